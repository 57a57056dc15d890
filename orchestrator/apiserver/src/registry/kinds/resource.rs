//! `resource.k8s.io`. One file a kind.

mod claims;
pub(crate) mod deviceclasses;
pub(crate) mod resourceclaims;
pub(crate) mod resourceclaimtemplates;
pub(crate) mod resourceslices;
