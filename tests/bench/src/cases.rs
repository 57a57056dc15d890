//! What is measured: one file a kind of measurement.

pub mod connect;
pub mod packets;
pub mod programming;
pub mod traffic;
