//! The API server.

pub mod error;
pub mod registry;
pub mod tables;
