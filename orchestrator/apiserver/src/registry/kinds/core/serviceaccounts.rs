//! ServiceAccount: an identity for pods. Its tokens are issued by the server.

use crate::registry::definition::{Declaration, Subresource};
use crate::tables::core::SERVICE_ACCOUNTS;

const TOKEN: Subresource = Subresource {
    name: "token",
    group: "authentication.k8s.io",
    version: "v1",
    kind: "TokenRequest",
    verbs: &["create"],
};

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "ServiceAccount", "serviceaccounts")
        .columns(SERVICE_ACCOUNTS)
        .short(&["sa"])
        .returns_deleted()
        .subresources(&[TOKEN])
}
