//! `policy`. One file a kind.

pub(crate) mod poddisruptionbudgets;
