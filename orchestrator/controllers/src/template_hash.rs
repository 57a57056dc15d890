//! A short stable name for a pod template: the same template gives the same hash in every process and release.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use sha2::{Digest, Sha256};

/// Letters and digits that make no words and are not mistaken for each other.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const LENGTH: usize = 10;

/// Hash of a template, with a count of collisions mixed in.
pub fn hash_template(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // Field order is the type's and maps are sorted; absent fields are left out, so new API fields change nothing.
    let bytes = serde_json::to_vec(template).unwrap_or_default();
    hash_bytes(&bytes, collisions)
}

/// Hash of any bytes, in the same alphabet.
pub fn hash_bytes(bytes: &[u8], collisions: Option<i32>) -> String {
    let mut hasher = Sha256::new();
    hasher.update(bytes);
    if let Some(collisions) = collisions {
        hasher.update(collisions.to_le_bytes());
    }
    let digest = hasher.finalize();
    digest.iter().take(LENGTH).map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    #[test]
    fn the_hash_is_pinned_and_follows_template_and_collisions() {
        let mut template = PodTemplateSpec::default();
        assert_eq!(hash_template(&template, None), hash_template(&template.clone(), None));
        assert_eq!(hash_bytes(b"{}", None).len(), LENGTH);
        let plain = hash_template(&template, None);
        assert_ne!(plain, hash_template(&template, Some(1)));
        template.metadata = Some(ObjectMeta {
            labels: Some([("a".to_owned(), "b".to_owned())].into()),
            ..Default::default()
        });
        assert_ne!(plain, hash_template(&template, None));
    }
}
