//! PodDisruptionBudget: how many pods of a set may be evicted at a time.

use crate::registry::definition::{Declaration, STATUS};
use crate::tables::workloads::DISRUPTION_BUDGETS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
        .columns(DISRUPTION_BUDGETS)
        .short(&["pdb"])
        .generation()
        .subresources(&[STATUS])
}
