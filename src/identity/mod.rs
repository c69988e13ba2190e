//! Who, and what may they: devices, credentials, the token index, rights.
