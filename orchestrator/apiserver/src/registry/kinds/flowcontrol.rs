//! `flowcontrol.apiserver.k8s.io`. One file a kind.

pub(crate) mod flowschemas;
pub(crate) mod prioritylevelconfigurations;
