//! Every figure Tollgate keeps of itself.
