//! The device platform's virtual topics.
