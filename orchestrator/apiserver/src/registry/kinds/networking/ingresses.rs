//! Ingress: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::{Declaration, STATUS};
use crate::tables::network::INGRESSES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("networking.k8s.io", "v1", "Ingress", "ingresses")
        .columns(INGRESSES)
        .short(&["ing"])
        .generation()
        .subresources(&[STATUS])
}
