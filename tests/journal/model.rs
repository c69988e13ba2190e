//! Random actions and faults against a model.
