//! `flowcontrol.apiserver.k8s.io`. One file a kind.

pub(crate) mod flowschemas;
pub(crate) mod prioritylevelconfigurations;

use crate::registry::field_rules::{Check, Rule, at};

/// Conditions of both kinds, which are older than metav1's: each type once.
const CONDITIONS: &[Rule] =
    &[at("status.conditions", Check::Unique(&["type"])), at("status.conditions[].type", Check::Required(""))];
