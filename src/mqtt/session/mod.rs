//! One client's session, as a pure state machine.
