//! What is wrong with an object is told all at once, under upstream's reasons and paths; what was wrong before a rule
//! was made is let be.

use serde_json::{Value, json};

use crate::cluster::{Cluster, pod};

/// Fields and reasons of an answer that refuses, in order.
fn causes(error: &penstock_apiserver::error::ApiError) -> Vec<(String, String)> {
    let status = error.status();
    assert_eq!(status["reason"], "Invalid", "{status}");
    let text = |cause: &Value, field: &str| cause[field].as_str().unwrap_or_default().to_owned();
    let mut found: Vec<_> = status["details"]["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|cause| (text(cause, "field"), text(cause, "reason").replace("FieldValue", "")))
        .collect();
    found.sort();
    found
}

fn sorted(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all: Vec<_> =
        expected.iter().map(|(path, why)| ((*path).to_owned(), (*why).to_owned())).collect();
    all.sort();
    all
}

/// A bad object of a kind and everything it is told.
fn table() -> Vec<(&'static str, Value, &'static [(&'static str, &'static str)])> {
    let labels = json!({"matchLabels": {"a": "b"}});
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    vec![
        (
            "networkpolicies",
            json!({"spec": {"podSelector": {}, "policyTypes": ["Both"], "ingress": [{
                "ports": [{"port": 80, "endPort": 70}, {"protocol": "ICMP"}],
                "from": [{}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]}}),
            &[
                ("spec.ingress[0].from[0]", "Required"),
                ("spec.ingress[0].from[1].ipBlock.except[0]", "Invalid"),
                ("spec.ingress[0].ports[0].endPort", "Invalid"),
                ("spec.ingress[0].ports[1].protocol", "NotSupported"),
                ("spec.policyTypes[0]", "NotSupported"),
            ],
        ),
        (
            "ingresses",
            json!({"spec": {"rules": [{"host": "1.2.3.4", "http": {"paths": [
                {"pathType": "Exact", "path": "x//y", "backend": {"service": {"name": "s", "port": {"name": "p", "number": 1}}}},
                {"backend": {}}]}}]}}),
            &[
                ("spec.rules[0].host", "Invalid"),
                ("spec.rules[0].http.paths[0].backend", "Invalid"),
                ("spec.rules[0].http.paths[0].path", "Invalid"),
                ("spec.rules[0].http.paths[0].path", "Invalid"),
                ("spec.rules[0].http.paths[1].pathType", "Required"),
            ],
        ),
        ("ingresses", json!({"spec": {}}), &[("spec", "Invalid")]),
        (
            "ingressclasses",
            json!({"spec": {"controller": "nodomain", "parameters": {"scope": "Namespace", "kind": "k", "name": "n"}}}),
            &[("spec.controller", "Invalid"), ("spec.parameters.namespace", "Required")],
        ),
        ("servicecidrs", json!({"spec": {"cidrs": ["10.0.0.1/8"]}}), &[("spec.cidrs[0]", "Invalid")]),
        (
            "poddisruptionbudgets",
            json!({"spec": {"minAvailable": "110%", "maxUnavailable": 1, "unhealthyPodEvictionPolicy": "No"}}),
            &[
                ("spec", "Invalid"),
                ("spec.minAvailable", "Invalid"),
                ("spec.unhealthyPodEvictionPolicy", "NotSupported"),
            ],
        ),
        (
            "storageclasses",
            json!({"reclaimPolicy": "Recycle", "volumeBindingMode": "Later"}),
            &[
                ("provisioner", "Required"),
                ("reclaimPolicy", "NotSupported"),
                ("volumeBindingMode", "NotSupported"),
            ],
        ),
        (
            "persistentvolumeclaims",
            json!({"spec": {"accessModes": ["ReadWriteOncePod", "ReadWriteMany"], "dataSource": {"kind": "X", "name": "n"}}}),
            &[
                ("spec.accessModes", "Forbidden"),
                ("spec.dataSource", "Invalid"),
                ("spec.resources[storage]", "Required"),
            ],
        ),
        (
            "persistentvolumes",
            json!({"spec": {"capacity": {"storage": "0"}, "local": {"path": "/a/.."}}}),
            &[
                ("spec.accessModes", "Required"),
                ("spec.capacity[storage]", "Invalid"),
                ("spec.local.path", "Invalid"),
                ("spec.nodeAffinity", "Required"),
            ],
        ),
        (
            "cronjobs",
            json!({"spec": {"schedule": "* * *", "timeZone": "No/Where", "jobTemplate": {"spec": {"template": template}}}}),
            &[
                ("spec.jobTemplate.spec.template.spec.restartPolicy", "Required"),
                ("spec.schedule", "Invalid"),
                ("spec.timeZone", "Invalid"),
            ],
        ),
        (
            "jobs",
            json!({"spec": {"completionMode": "Indexed", "parallelism": -1, "template": template}}),
            &[
                ("spec.completions", "Required"),
                ("spec.parallelism", "Invalid"),
                ("spec.template.spec.restartPolicy", "Required"),
            ],
        ),
        (
            "statefulsets",
            json!({"spec": {"selector": labels, "template": template, "podManagementPolicy": "Any",
                "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {}}]}}),
            &[
                ("spec.podManagementPolicy", "Invalid"),
                ("spec.volumeClaimTemplates[0].spec.accessModes", "Required"),
                ("spec.volumeClaimTemplates[0].spec.resources[storage]", "Required"),
            ],
        ),
        (
            "daemonsets",
            json!({"spec": {"selector": labels, "template": template, "updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}}}),
            &[("spec.updateStrategy.rollingUpdate.maxSurge", "Invalid")],
        ),
        (
            "limitranges",
            json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}, {"type": "Pod", "default": {"cpu": "1"}}]}}),
            // Of a maximum alone a default is made, and of that a request.
            &[
                ("spec.limits[0].default[cpu]", "Invalid"),
                ("spec.limits[0].defaultRequest[cpu]", "Invalid"),
                ("spec.limits[0].min[cpu]", "Invalid"),
                ("spec.limits[1].default", "Forbidden"),
            ],
        ),
        (
            "leases",
            json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}),
            &[("spec.leaseDurationSeconds", "Invalid"), ("spec.leaseTransitions", "Invalid")],
        ),
        (
            "flowschemas",
            json!({"spec": {"matchingPrecedence": 0, "rules": [{"subjects": [{"kind": "User"}]}]}}),
            &[
                ("spec.priorityLevelConfiguration.name", "Required"),
                ("spec.rules[0]", "Required"),
                ("spec.rules[0].subjects[0].user", "Required"),
            ],
        ),
        (
            "resourceclaims",
            json!({"spec": {"devices": {"requests": [{"name": "a"}]}}}),
            &[("spec.devices.requests[0]", "Required")],
        ),
    ]
}

#[tokio::test]
async fn every_broken_rule_of_a_kind_is_told_under_its_path() {
    let cluster = Cluster::start().await;
    let mut wrong = Vec::new();
    for (plural, mut object, expected) in table() {
        object["metadata"] = json!({"name": "bad"});
        object["apiVersion"] = cluster.kind(plural).api_version().into();
        object["kind"] = cluster.kind(plural).kind.as_ref().into();
        let expected = sorted(expected);
        match cluster.create(plural, object.clone()).await {
            Ok(_) => wrong.push(format!("{plural} was taken: {object}")),
            Err(error) if causes(&error) != expected => {
                wrong.push(format!("{plural}: {:?} instead of {expected:?}", causes(&error)));
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_pod_is_told_all_that_is_wrong_with_it() {
    let cluster = Cluster::start().await.with_account().await;
    let mut bad = pod("bad");
    bad["spec"]["containers"] = json!([{"name": "c", "image": "i ", "envFrom": [{}],
        "env": [{"name": "a=b"}, {"name": "x", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}],
        "resources": {"limits": {"cpu": "-1"}}, "securityContext": {"runAsUser": -1, "seccompProfile": {"type": "Localhost"}},
        "livenessProbe": {"httpGet": {"port": 0}, "tcpSocket": {"port": 1}},
        "volumeMounts": [{"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}]}]);
    bad["spec"]["volumes"] = json!([{"name": "v", "hostPath": {"path": "/x", "type": "Pipe"}}]);
    bad["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}});
    bad["spec"]["tolerations"] = json!([{"key": "a", "operator": "Gt", "value": "1"}]);
    bad["spec"]["topologySpreadConstraints"] =
        json!([{"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Maybe"}]);
    bad["spec"]["os"] = json!({"name": "plan9"});
    bad["spec"]["dnsConfig"] = json!({"nameservers": ["x"]});
    let told = causes(&cluster.create("pods", bad).await.unwrap_err());
    let expected = [
        (
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
            "Required",
        ),
        ("spec.containers[0].env[0].name", "Invalid"),
        ("spec.containers[0].env[1].valueFrom.fieldRef.fieldPath", "NotSupported"),
        ("spec.containers[0].envFrom", "Invalid"),
        ("spec.containers[0].image", "Invalid"),
        ("spec.containers[0].livenessProbe.httpGet.port", "Invalid"),
        ("spec.containers[0].livenessProbe.tcpSocket", "Forbidden"),
        ("spec.containers[0].resources.limits[cpu]", "Invalid"),
        ("spec.containers[0].resources.requests[cpu]", "Invalid"),
        ("spec.containers[0].securityContext.runAsUser", "Invalid"),
        ("spec.containers[0].securityContext.seccompProfile.localhostProfile", "Required"),
        ("spec.containers[0].volumeMounts.mountPropagation", "Forbidden"),
        ("spec.dnsConfig.nameservers[0]", "Invalid"),
        ("spec.os", "NotSupported"),
        ("spec.tolerations[0].operator", "NotSupported"),
        ("spec.topologySpreadConstraints[0].maxSkew", "Invalid"),
        ("spec.topologySpreadConstraints[0].topologyKey", "Required"),
        ("spec.topologySpreadConstraints[0].whenUnsatisfiable", "NotSupported"),
        ("spec.volumes[0].hostPath.type", "NotSupported"),
    ];
    assert_eq!(told, sorted(&expected));
}

#[tokio::test]
async fn what_was_wrong_before_a_rule_was_made_is_let_be_and_what_is_new_is_not() {
    let cluster = Cluster::start().await;
    let old = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "old", "namespace": "default", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"podSelector": {}, "policyTypes": ["Both"]}});
    cluster.plant("networkpolicies", old).await;
    let mut policy = cluster.get("networkpolicies", "old").await.unwrap();
    policy["metadata"]["labels"] = json!({"a": "b"});
    let mut policy = cluster.update("networkpolicies", None, &policy).await.unwrap();
    policy["spec"]["policyTypes"] = json!(["Neither"]);
    let refused = cluster.update("networkpolicies", None, &policy).await.unwrap_err();
    assert_eq!(causes(&refused), [("spec.policyTypes[0]".to_owned(), "NotSupported".to_owned())]);
}

#[tokio::test]
async fn a_claim_grows_when_it_is_bound_and_nothing_else_of_it_changes() {
    let cluster = Cluster::start().await;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let mut claim = cluster.create("persistentvolumeclaims", claim).await.unwrap();
    claim["spec"]["resources"]["requests"]["storage"] = "2Gi".into();
    let refused = cluster.update("persistentvolumeclaims", None, &claim).await.unwrap_err();
    assert_eq!(causes(&refused), [("spec".to_owned(), "Forbidden".to_owned())]);
    claim["spec"]["resources"]["requests"]["storage"] = "1Gi".into();
    claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
    let mut claim = cluster.update("persistentvolumeclaims", Some("status"), &claim).await.unwrap();
    claim["spec"]["resources"]["requests"]["storage"] = "2Gi".into();
    claim["spec"]["volumeName"] = "v".into();
    let mut claim = cluster.update("persistentvolumeclaims", None, &claim).await.unwrap();
    claim["spec"]["resources"]["requests"]["storage"] = "512Mi".into();
    let refused = cluster.update("persistentvolumeclaims", None, &claim).await.unwrap_err();
    assert_eq!(causes(&refused), [("spec.resources.requests.storage".to_owned(), "Forbidden".to_owned())]);
    claim["spec"]["resources"]["requests"]["storage"] = "2Gi".into();
    claim["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    let refused = cluster.update("persistentvolumeclaims", None, &claim).await.unwrap_err();
    assert_eq!(causes(&refused), [("spec".to_owned(), "Forbidden".to_owned())]);
}

#[tokio::test]
async fn what_made_a_storage_class_stays() {
    let cluster = Cluster::start().await;
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "s"},
        "provisioner": "example.com/p", "parameters": {"a": "b"}});
    let mut class = cluster.create("storageclasses", class).await.unwrap();
    class["parameters"] = json!({"a": "c"});
    class["allowVolumeExpansion"] = true.into();
    let refused = cluster.update("storageclasses", None, &class).await.unwrap_err();
    assert_eq!(causes(&refused), [("parameters".to_owned(), "Invalid".to_owned())]);
    class["parameters"] = json!({"a": "b"});
    cluster.update("storageclasses", None, &class).await.unwrap();
}
