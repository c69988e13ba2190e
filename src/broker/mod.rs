//! Live sessions: who is connected where, take-over, revocation.
