//! What the programs do with packets that needs no kernel: headers read, flows hashed, checksums mended.
//!
//! It exists so that the code which meets hostile input in the kernel is the code that tests meet on the host.
//! Must not know maps, helpers or services.
#![no_std]

pub mod checksum;
pub mod crc32c;
pub mod direct;
pub mod hash;
pub mod header;
pub mod neighbour;
mod parse;
pub mod table;

pub use parse::{Kind, Packet, parse};
