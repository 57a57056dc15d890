//! Bootstrap tokens, by which machines join: [`signing`] what they are told of the cluster, and [`cleaning`] away those that
//! have ended.

pub mod cleaning;
pub mod signing;

use k8s_openapi::api::core::v1::Secret;
use penstock_informers::Meta;
use penstock_tokens::bootstrap::{NAMESPACE, StoredToken};

/// Secrets of the type, in any namespace.
const SELECTOR: &str = "type=bootstrap.kubernetes.io/token";

/// The token of a Secret that lies where tokens do.
fn token_of(secret: &Secret) -> Option<StoredToken> {
    if secret.ns() != NAMESPACE || secret.deleting() {
        return None;
    }
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    Some(StoredToken::read(text))
}
