//! Every kind of the catalogue can be created, read, listed, updated, patched and deleted.

use penstock_apiserver::registry::{Definition, DeleteOptions, ListOptions, Target};
use serde_json::{Value, json};

use crate::cluster::{Cluster, context};

/// Kinds that cannot go round, and why.
const SKIPPED: [(&str, &str); 5] = [
    ("apiservices", "named after what it serves: see api/aggregation.rs"),
    ("bindings", "create-only, stores nothing"),
    ("componentstatuses", "read-only, nothing to read"),
    ("customresourcedefinitions", "what it stores is served: see custom.rs"),
    ("validatingadmissionpolicies", "its status is written while it goes round: see policies.rs"),
];

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

/// The least that is valid, without metadata.
fn minimal(d: &Definition) -> Value {
    let selector = json!({"matchLabels": {"a": "b"}});
    match &*d.plural {
        "pods" => json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}),
        "deployments" | "replicasets" | "daemonsets" => {
            json!({"spec": {"selector": selector, "template": template()}})
        }
        "statefulsets" => json!({"spec": {"selector": selector, "template": template(), "serviceName": "s"}}),
        "replicationcontrollers" => json!({"spec": {"selector": {"a": "b"}, "template": template()}}),
        "podtemplates" => json!({"template": template()}),
        "jobs" => {
            let mut t = template();
            t["spec"]["restartPolicy"] = "Never".into();
            json!({"spec": {"template": t}})
        }
        "cronjobs" => {
            let mut t = template();
            t["spec"]["restartPolicy"] = "Never".into();
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": t}}}})
        }
        "services" => json!({"spec": {"ports": [{"port": 80}]}}),
        "events" if d.group.is_empty() => {
            json!({"involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}})
        }
        "events" => {
            json!({"regarding": {"kind": "Pod", "name": "p", "namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z",
                "reportingController": "example.com/c", "reportingInstance": "i", "action": "Act", "reason": "Why", "type": "Normal"})
        }
        "priorityclasses" => json!({"value": 5}),
        "horizontalpodautoscalers" => {
            json!({"spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}})
        }
        "clusterrolebindings" | "rolebindings" => {
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}})
        }
        "certificatesigningrequests" => {
            let request = crate::certificates::request("jane", &[]);
            json!({"spec": {"request": request, "signerName": "example.com/s", "usages": ["client auth"]}})
        }
        "endpointslices" => json!({"addressType": "IPv4", "endpoints": []}),
        "storageclasses" => json!({"provisioner": "example.com/p"}),
        "runtimeclasses" => json!({"handler": "h"}),
        "mutatingadmissionpolicies" => {
            json!({"spec": {"reinvocationPolicy": "Never",
                "matchConstraints": {"resourceRules": [{"apiGroups": ["a.b"], "apiVersions": ["v1"],
                    "operations": ["CREATE"], "resources": ["none"]}]},
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/x'}]"}}]}})
        }
        "mutatingadmissionpolicybindings" => json!({"spec": {"policyName": "p"}}),
        "validatingadmissionpolicybindings" => {
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}})
        }
        "controllerrevisions" => json!({"revision": 1, "data": {}}),
        "ingresses" => {
            json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}})
        }
        "ingressclasses" => json!({"spec": {"controller": "example.com/c"}}),
        "ipaddresses" => json!({"spec": {"parentRef": {"resource": "services", "name": "s"}}}),
        "servicecidrs" => json!({"spec": {"cidrs": ["10.97.0.0/16"]}}),
        "persistentvolumeclaims" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
        }
        "persistentvolumes" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}})
        }
        "volumeattachments" => {
            json!({"spec": {"attacher": "example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}}})
        }
        "volumeattributesclasses" => json!({"driverName": "example.com", "parameters": {"a": "b"}}),
        "csistoragecapacities" => json!({"storageClassName": "c"}),
        "flowschemas" => {
            json!({"spec": {"priorityLevelConfiguration": {"name": "global-default"}, "matchingPrecedence": 5000}})
        }
        "prioritylevelconfigurations" => {
            json!({"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}})
        }
        "resourceslices" => json!({"spec": {"driver": "example.com", "allNodes": true,
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}}),
        _ => json!({}),
    }
}

#[tokio::test]
async fn every_kind_goes_round() {
    let cluster = Cluster::start().await.with_account().await;
    let registry = &cluster.registry;
    let mut broken = Vec::new();
    for d in registry.definitions() {
        if SKIPPED.iter().any(|(plural, _)| *plural == d.plural) {
            continue;
        }
        if let Err(why) = round(&cluster, &d).await {
            broken.push(format!("{d:?}: {why}"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

async fn round(cluster: &Cluster, d: &Definition) -> Result<(), String> {
    let registry = &cluster.registry;
    let name =
        if d.plural == "ipaddresses" { "10.96.77.7".to_string() } else { format!("round-{}", d.version) };
    let namespace = d.namespaced.then_some("default");
    let target = Target::named(namespace, &name);
    let context = context();
    let mut object = minimal(d);
    object["apiVersion"] = d.api_version().into();
    object["kind"] = d.kind.as_ref().into();
    object["metadata"] = json!({"name": name, "labels": {"round": d.plural}});
    let body = |v: &Value| penstock_apiserver::registry::Body::Json(v.to_string().into());
    let said = |step: &'static str| move |e: penstock_apiserver::error::ApiError| format!("{step}: {e}");

    let made = registry
        .create(&context, d, &Target::collection(namespace), body(&object))
        .await
        .map_err(said("create"))?;
    let made = made.object.value();
    let again = registry.create(&context, d, &Target::collection(namespace), body(&object)).await;
    if !again.as_ref().is_err_and(|e| e.is_already_exists()) {
        return Err(format!("a second create: {again:?}"));
    }
    let got = registry.get(&context, d, &target).await.map_err(said("get"))?;
    if got.value() != made {
        return Err(format!("get differs from create: {} / {made}", got.value()));
    }
    let selected =
        ListOptions { label_selector: Some(format!("round={}", d.plural)), ..ListOptions::default() };
    let list =
        registry.list(&context, d, &Target::collection(namespace), &selected).await.map_err(said("list"))?;
    if list.items.len() != 1 {
        return Err(format!("list has {} items", list.items.len()));
    }
    let mut changed = made.clone();
    changed["metadata"]["annotations"] = json!({"a": "1"});
    let updated =
        registry.update(&context, d, &target, body(&changed)).await.map_err(said("update"))?.object.value();
    if updated["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"] {
        return Err("update kept the version".into());
    }
    let stale = registry.update(&context, d, &target, body(&changed)).await;
    if !stale.as_ref().is_err_and(|e| e.is_conflict()) {
        return Err(format!("a stale update: {stale:?}"));
    }
    let patch = json!({"metadata": {"annotations": {"b": "2"}}}).to_string().into();
    let kind = penstock_apiserver::registry::PatchKind::Merge;
    let patched =
        registry.patch(&context, d, &target, kind, patch).await.map_err(said("patch"))?.object.value();
    if patched["metadata"]["annotations"] != json!({"a": "1", "b": "2"}) {
        return Err(format!("patched to {}", patched["metadata"]));
    }
    if d.generation && patched["metadata"]["generation"] != 1 {
        return Err(format!("annotations moved the generation: {}", patched["metadata"]));
    }
    let columns = (d.columns.cells)(&patched, "2026-01-01T00:00:00Z".parse().unwrap());
    if columns.len() != d.columns.columns.len() {
        return Err(format!("{} cells for {} columns", columns.len(), d.columns.columns.len()));
    }
    registry.delete(&context, d, &target, &DeleteOptions::default()).await.map_err(said("delete"))?;
    if d.plural == "namespaces" {
        // Waits for its finalizer.
        let mut dying = registry.get(&context, d, &target).await.map_err(said("get dying"))?.value();
        dying["spec"]["finalizers"] = json!([]);
        let finalize = target.clone().with_subresource("finalize");
        registry.update(&context, d, &finalize, body(&dying)).await.map_err(said("finalize"))?;
    }
    match registry.get(&context, d, &target).await {
        Err(e) if e.is_not_found() => Ok(()),
        other => Err(format!("after delete: {other:?}")),
    }
}

#[tokio::test]
async fn bootstrap_is_there_and_heals() {
    let cluster = Cluster::start().await;
    for (plural, name) in
        [("services", "kubernetes"), ("endpoints", "kubernetes"), ("endpointslices", "kubernetes")]
    {
        cluster.get(plural, name).await.unwrap();
    }
    assert_eq!(cluster.get("services", "kubernetes").await.unwrap()["spec"]["clusterIP"], "10.96.0.1");
    cluster.delete("endpoints", "kubernetes", DeleteOptions::default()).await.unwrap();
    let again = penstock_apiserver::registry::Registry::new(
        cluster.registry.store().clone(),
        crate::cluster::config(),
    )
    .await
    .unwrap();
    let d = again.find("", "v1", "endpoints").unwrap();
    again.get(&context(), &d, &Target::named(Some("default"), "kubernetes")).await.unwrap();
}
