//! What makes a StatefulSet's pod itself: its name, its host name, its claims. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use penstock_informers::Meta;
use penstock_informers::identity::controller_reference;

use crate::pod;
use crate::revisions::HASH_LABEL;

/// The place of a pod of that name in the set; `None`: not one of its pods.
pub(crate) fn ordinal_of(set: &StatefulSet, pod: &str) -> Option<i32> {
    let number = pod.strip_prefix(set.name())?.strip_prefix('-')?;
    let canonical = number == "0" || !number.starts_with('0');
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    (canonical && digits).then(|| number.parse().ok()).flatten()
}

fn claim_name(template: &PersistentVolumeClaim, set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.name(), set.name())
}

/// The claims of one pod.
pub(crate) fn plan_volume_claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let templates = spec.volume_claim_templates.iter().flatten();
    let claim = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(template, set, ordinal));
        claim.metadata.namespace = Some(set.ns().to_owned());
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        claim.status = None;
        claim
    };
    templates.map(claim).collect()
}

/// The pod of one ordinal.
pub(crate) fn plan_pod(set: &StatefulSet, ordinal: i32, revision: &str, template: &PodTemplateSpec) -> Pod {
    let name = format!("{}-{ordinal}", set.name());
    let mut pod = pod::from_template(template, set.ns(), "", controller_reference(set));
    pod.metadata.generate_name = None;
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), revision.to_owned());
    labels.insert("statefulset.kubernetes.io/pod-name".into(), name.clone());
    labels.insert("apps.kubernetes.io/pod-index".into(), ordinal.to_string());
    pod.metadata.name = Some(name.clone());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    let set_spec = set.spec.as_ref();
    spec.subdomain = set_spec.and_then(|s| s.service_name.clone());
    let templates = set_spec.and_then(|s| s.volume_claim_templates.as_deref()).unwrap_or_default();
    if !templates.is_empty() {
        let names: BTreeSet<&str> = templates.iter().map(Meta::name).collect();
        let volumes = spec.volumes.get_or_insert_default();
        // A claim takes the place of a volume of its name.
        volumes.retain(|v| !names.contains(v.name.as_str()));
        volumes.extend(templates.iter().map(|template| Volume {
            name: template.name().to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(template, set, ordinal),
                read_only: None,
            }),
            ..Default::default()
        }));
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_known_by_its_name_and_finds_its_claims() {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "ns", "uid": "u"},
            "spec": {"serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
                "template": {"spec": {"containers": [{"name": "c"}], "volumes": [{"name": "data", "emptyDir": {}}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}}]},
        }))
        .unwrap();
        let places =
            ["db-0", "db-12", "db-01", "db-", "db-+1", "dbx-1", "other-1"].map(|n| ordinal_of(&set, n));
        assert_eq!(places, [Some(0), Some(12), None, None, None, None, None]);
        let template = &set.spec.as_ref().unwrap().template;
        let pod = plan_pod(&set, 3, "db-rev", template);
        let spec = pod.spec.clone().unwrap();
        assert_eq!((pod.name(), spec.hostname.as_deref()), ("db-3", Some("db-3")));
        assert_eq!(spec.subdomain.as_deref(), Some("db"));
        let volumes = spec.volumes.unwrap();
        let claim = volumes[0].persistent_volume_claim.as_ref().unwrap();
        assert_eq!((volumes.len(), claim.claim_name.as_str()), (1, "data-db-3"));
        assert_eq!(plan_volume_claims(&set, 3)[0].label("app"), Some("db"));
    }
}
