//! What is measured: one file a kind of measurement.

pub mod traffic;
