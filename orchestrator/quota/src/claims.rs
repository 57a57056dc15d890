//! What a claim of storage uses, in all and of its storage class.

use penstock_schema::Quantity;
use serde_json::Value;

use crate::amounts::{self, Amounts, Kind, ONE};
use crate::names::of_class;

/// Where the class was said before there was a field.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(crate) fn usage(claim: &Value) -> Amounts {
    let mut used = Amounts::from([("persistentvolumeclaims".to_owned(), ONE)]);
    if let Some(storage) = storage(claim) {
        used.insert("requests.storage".into(), storage);
    }
    let class =
        claim["metadata"]["annotations"][CLASS].as_str().or(claim["spec"]["storageClassName"].as_str());
    if let Some(class) = class.filter(|class| !class.is_empty()) {
        let of_class: Vec<_> = used.iter().map(|(part, amount)| (of_class(class, part), *amount)).collect();
        used.extend(of_class);
    }
    used
}

/// Whole bytes of what is asked for, or of what is given already where that is more.
fn storage(claim: &Value) -> Option<Quantity> {
    let asked = *amounts::of(&claim["spec"], Kind::Requests).get("storage")?;
    let given = amounts::read(claim.pointer("/status/allocatedResources"));
    let most = given.get("storage").map_or(asked, |given| asked.max(*given));
    Some(most.rounded_up())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_counts_in_all_and_for_its_class() {
        let claim =
            json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}});
        assert_eq!(
            amounts::told(&usage(&claim)),
            "gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             gold.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi"
        );
        let shrunk = json!({
            "spec": {"resources": {"requests": {"storage": "1500m"}}},
            "status": {"allocatedResources": {"storage": "3"}},
        });
        assert_eq!(usage(&shrunk)["requests.storage"].to_string(), "3");
    }
}
