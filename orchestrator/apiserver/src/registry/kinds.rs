//! The built-in kinds: one small file each, by API group.
//!
//! A kind's file holds its declaration, its strategy when it needs one, and its validation. Shapes that several
//! kinds share (pod specs, selectors, ports) are in `rules`.

pub(crate) mod admissionregistration;
pub(crate) mod apiextensions;
pub(crate) mod apiregistration;
pub(crate) mod apps;
pub(crate) mod autoscaling;
pub(crate) mod batch;
pub(crate) mod certificates;
pub(crate) mod coordination;
pub(crate) mod core;
pub(crate) mod discovery;
pub(crate) mod events;
pub(crate) mod flowcontrol;
pub(crate) mod networking;
pub(crate) mod node;
pub(crate) mod policy;
pub(crate) mod rbac;
pub(crate) mod resource;
pub(crate) mod rules;
pub(crate) mod scheduling;
pub(crate) mod storage;
