//! Checked settings.
