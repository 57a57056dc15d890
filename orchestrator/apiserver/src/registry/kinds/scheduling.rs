//! `scheduling.k8s.io`. One file a kind.

pub(crate) mod priorityclasses;
