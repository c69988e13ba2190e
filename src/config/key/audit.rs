//! The keys of `[audit]`.

use super::{Key, Shape};

pub(in crate::config) const AUDIT_ADMIN_SIZE_MAX_BYTES: Key =
    Key::new("audit", "admin_size_max_bytes", "268435456", SIZE);
pub(in crate::config) const AUDIT_ACCESS_SIZE_MAX_BYTES: Key =
    Key::new("audit", "access_size_max_bytes", "268435456", SIZE);

/// A book has 16 files: below 1 MiB each would hold less than a batch.
const SIZE: Shape = Shape::Number {
    least: 1 << 20,
    most: 1 << 50,
    unit: "bytes",
};
