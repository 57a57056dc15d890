//! The store: the only code that knows a database.
//!
//! One trait ([`Store`]), two implementations (`embedded` on redb, `etcd` on the etcd v3 API), one contract
//! suite that both pass, and the watch cache the API server reads from. A record is a key and opaque bytes:
//! nothing here knows what a Kubernetes object is, how it is encoded, or who asks for it.

mod error;
mod types;

pub mod backup;
pub mod cache;
pub mod embedded;
pub mod etcd;

#[doc(hidden)]
pub mod contract;

pub use error::StoreError;
pub use types::{
    Committed, Event, Expect, KEY_BYTES_MAX, ListRequest, Mutation, Page, Record, Revision, Store,
    VALUE_BYTES_MAX, WatchStream, Write,
};
