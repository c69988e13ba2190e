//! REL-10: the format is what the documentation says, old ones are read, newer ones refused.
