//! ResourceQuota: how much of everything a namespace may hold.

use crate::registry::definition::{Declaration, STATUS};
use crate::tables::core::RESOURCE_QUOTAS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "ResourceQuota", "resourcequotas")
        .columns(RESOURCE_QUOTAS)
        .short(&["quota"])
        .returns_deleted()
        .subresources(&[STATUS])
}
