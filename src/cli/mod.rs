//! The commands, each a client of the API that others use.
