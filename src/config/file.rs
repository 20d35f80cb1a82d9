//! The TOML files as written.
