//! Every bound that belongs to no single module.
