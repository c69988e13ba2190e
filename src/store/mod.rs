//! The state database (SQLite).
