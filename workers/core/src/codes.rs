//! Patterns of codes.
