//! The roles and bindings a cluster starts with. Names are the well-known ones; rules are added when missing.

use serde_json::{Value, json};

const API: &str = "rbac.authorization.k8s.io";

/// Adds what is missing; never takes away. An owner can opt out by `autoupdate: "false"`.
pub(super) fn reconcile(have: &mut Value, want: &Value) {
    let auto = have.pointer("/metadata/annotations/rbac.authorization.kubernetes.io~1autoupdate");
    if auto == Some(&json!("false")) {
        return;
    }
    let missing = super::missing_rules(have, want);
    if !missing.is_empty() {
        let mut rules = super::items_at(have, "/rules").to_vec();
        rules.extend(missing);
        have["rules"] = json!(rules);
    }
    let subjects = super::items_at(want, "/subjects");
    let had = super::items_at(have, "/subjects").to_vec();
    if subjects.iter().any(|s| !had.contains(s)) {
        let mut all = had.clone();
        all.extend(subjects.iter().filter(|s| !had.contains(s)).cloned());
        have["subjects"] = json!(all);
    }
}

/// `(groups, resources, verbs)`, each space-separated; the core group is `core`.
type Rule = (&'static str, &'static str, &'static str);

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const ALL: &str = "create delete deletecollection get list patch update watch";

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().map(|w| if w == "core" { "" } else { w }).collect()
}

fn rules(list: &[Rule]) -> Vec<Value> {
    list.iter()
        .map(|(groups, resources, verbs)| {
            json!({"apiGroups": words(groups), "resources": words(resources), "verbs": words(verbs)})
        })
        .collect()
}

fn metadata(name: &str, labels: &[(&str, &str)]) -> Value {
    let mut all = serde_json::Map::new();
    all.insert("kubernetes.io/bootstrapping".into(), "rbac-defaults".into());
    for (k, v) in labels {
        all.insert((*k).into(), (*v).into());
    }
    json!({"name": name, "labels": all, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}})
}

fn cluster_role(name: &str, labels: &[(&str, &str)], list: &[Rule]) -> Value {
    json!({"apiVersion": format!("{API}/v1"), "kind": "ClusterRole", "metadata": metadata(name, labels), "rules": rules(list)})
}

fn url_role(name: &str, urls: &[&str]) -> Value {
    json!({"apiVersion": format!("{API}/v1"), "kind": "ClusterRole", "metadata": metadata(name, &[]),
        "rules": [{"nonResourceURLs": urls, "verbs": ["get"]}]})
}

fn bind(name: &str, role: &str, subjects: Vec<Value>) -> Value {
    json!({"apiVersion": format!("{API}/v1"), "kind": "ClusterRoleBinding", "metadata": metadata(name, &[]),
        "roleRef": {"apiGroup": API, "kind": "ClusterRole", "name": role}, "subjects": subjects})
}

fn group(name: &str) -> Value {
    json!({"apiGroup": API, "kind": "Group", "name": name})
}

fn user(name: &str) -> Value {
    json!({"apiGroup": API, "kind": "User", "name": name})
}

fn account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "namespace": "kube-system", "name": name})
}

const NODE: &[Rule] = &[
    ("authentication.k8s.io", "tokenreviews", "create"),
    ("authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews", "create"),
    ("core", "services", READ),
    ("core", "nodes", "create get list watch patch update delete"),
    ("core", "nodes/status", "patch update"),
    ("core events.k8s.io", "events", "create patch update"),
    ("core", "pods", "get list watch create delete"),
    ("core", "pods/status", "patch update"),
    ("core", "pods/eviction", "create"),
    ("core", "configmaps secrets", READ),
    ("core", "persistentvolumeclaims persistentvolumes", READ),
    ("core", "persistentvolumeclaims/status", "get patch update"),
    ("core", "endpoints namespaces", READ),
    ("core", "serviceaccounts", "get list watch"),
    ("core", "serviceaccounts/token", "create"),
    ("discovery.k8s.io", "endpointslices", READ),
    ("networking.k8s.io", "networkpolicies ingresses ingressclasses servicecidrs ipaddresses", READ),
    ("networking.k8s.io", "ingresses/status", "patch update"),
    ("certificates.k8s.io", "certificatesigningrequests", "create get list watch"),
    ("coordination.k8s.io", "leases", "create delete get list patch update watch"),
    ("storage.k8s.io", "volumeattachments", READ),
    ("storage.k8s.io", "csidrivers", READ),
    ("storage.k8s.io", "csinodes", "create delete get list patch update watch"),
    ("node.k8s.io", "runtimeclasses", READ),
    ("resource.k8s.io", "resourceclaims deviceclasses", READ),
    ("resource.k8s.io", "resourceslices", "create delete deletecollection get list patch update watch"),
];

const EDIT: &[Rule] = &[
    ("core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy", READ),
    ("core", "serviceaccounts", "impersonate"),
    ("core", "pods pods/attach pods/exec pods/portforward pods/proxy", WRITE),
    ("core", "pods/eviction serviceaccounts/token", "create"),
    (
        "core",
        "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy",
        WRITE,
    ),
    (
        "apps",
        "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale",
        WRITE,
    ),
    ("autoscaling", "horizontalpodautoscalers", WRITE),
    ("batch", "cronjobs jobs", WRITE),
    ("policy", "poddisruptionbudgets", WRITE),
    ("networking.k8s.io", "ingresses networkpolicies", WRITE),
    ("coordination.k8s.io", "leases", ALL),
];

const VIEW: &[Rule] = &[
    (
        "core",
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status",
        READ,
    ),
    (
        "core",
        "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status namespaces",
        READ,
    ),
    ("discovery.k8s.io", "endpointslices", READ),
    (
        "apps",
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
        READ,
    ),
    ("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status", READ),
    ("batch", "cronjobs cronjobs/status jobs jobs/status", READ),
    ("policy", "poddisruptionbudgets poddisruptionbudgets/status", READ),
    ("networking.k8s.io", "ingresses ingresses/status networkpolicies", READ),
];

const ADMIN: &[Rule] =
    &[("authorization.k8s.io", "localsubjectaccessreviews", "create"), (API, "roles rolebindings", ALL)];

const SCHEDULER: &[Rule] = &[
    ("core events.k8s.io", "events", "create patch update"),
    ("coordination.k8s.io", "leases", "create get list update patch watch"),
    ("core", "nodes", READ),
    ("core", "pods", "delete get list watch"),
    ("core", "bindings pods/binding", "create"),
    ("core", "pods/status", "patch update"),
    ("core", "replicationcontrollers services persistentvolumes namespaces", READ),
    ("core", "persistentvolumeclaims", "get list watch patch update"),
    ("apps", "replicasets statefulsets", READ),
    ("policy", "poddisruptionbudgets", READ),
    ("storage.k8s.io", "csidrivers csinodes csistoragecapacities storageclasses volumeattachments", READ),
    ("resource.k8s.io", "deviceclasses resourceslices", READ),
    ("resource.k8s.io", "resourceclaims", "get list watch patch update"),
    ("resource.k8s.io", "resourceclaims/status", "get patch update"),
    ("authentication.k8s.io", "tokenreviews", "create"),
    ("authorization.k8s.io", "subjectaccessreviews", "create"),
];

const CONTROLLERS: &[Rule] = &[
    ("core events.k8s.io", "events", "create patch update"),
    ("coordination.k8s.io", "leases", "create get list update patch watch"),
    ("*", "*", "get list watch"),
    ("core", "serviceaccounts secrets", "create delete update"),
    ("core", "serviceaccounts/token", "create"),
    ("authentication.k8s.io", "tokenreviews", "create"),
    ("authorization.k8s.io", "subjectaccessreviews", "create"),
];

/// In the order they are made.
pub(super) fn objects() -> Vec<Value> {
    let aggregate = |to: &'static str| -> String { format!("rbac.authorization.k8s.io/aggregate-to-{to}") };
    let mut all = vec![
        json!({"apiVersion": format!("{API}/v1"), "kind": "ClusterRole", "metadata": metadata("cluster-admin", &[]),
            "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}]}),
        url_role(
            "system:discovery",
            &[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ],
        ),
        url_role("system:public-info-viewer", &["/healthz", "/livez", "/readyz", "/version", "/version/"]),
        url_role(
            "system:monitoring",
            &[
                "/healthz",
                "/healthz/*",
                "/livez",
                "/livez/*",
                "/metrics",
                "/metrics/slis",
                "/readyz",
                "/readyz/*",
            ],
        ),
        cluster_role(
            "system:basic-user",
            &[],
            &[
                ("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", "create"),
                ("authentication.k8s.io", "selfsubjectreviews", "create"),
            ],
        ),
        cluster_role("system:aggregate-to-admin", &[(&aggregate("admin"), "true")], ADMIN),
        cluster_role("system:aggregate-to-edit", &[(&aggregate("edit"), "true")], EDIT),
        cluster_role("system:aggregate-to-view", &[(&aggregate("view"), "true")], VIEW),
        cluster_role("system:node", &[], NODE),
        cluster_role(
            "system:node-proxier",
            &[],
            &[
                ("core", "endpoints services nodes", READ),
                ("core events.k8s.io", "events", "create patch update"),
                ("discovery.k8s.io", "endpointslices", READ),
                ("networking.k8s.io", "servicecidrs", READ),
            ],
        ),
        cluster_role(
            "system:node-bootstrapper",
            &[],
            &[("certificates.k8s.io", "certificatesigningrequests", "create get list watch")],
        ),
        cluster_role(
            "system:kubelet-api-admin",
            &[],
            &[
                ("core", "nodes", "get list watch proxy"),
                (
                    "core",
                    "nodes/proxy nodes/metrics nodes/stats nodes/log nodes/spec nodes/configz nodes/healthz nodes/pods",
                    "create delete get patch update",
                ),
            ],
        ),
        cluster_role("system:kube-scheduler", &[], SCHEDULER),
        cluster_role("system:kube-controller-manager", &[], CONTROLLERS),
        cluster_role(
            "system:auth-delegator",
            &[],
            &[
                ("authentication.k8s.io", "tokenreviews", "create"),
                ("authorization.k8s.io", "subjectaccessreviews", "create"),
            ],
        ),
        cluster_role("system:service-account-issuer-discovery", &[], &[]),
    ];
    // The three users' roles, with their parts' rules at once; the aggregation controller keeps them current.
    let mut admin: Vec<Rule> = ADMIN.to_vec();
    admin.extend_from_slice(EDIT);
    admin.extend_from_slice(VIEW);
    let mut edit: Vec<Rule> = EDIT.to_vec();
    edit.extend_from_slice(VIEW);
    for (name, labels, list, selects) in [
        ("admin", vec![], admin, "admin"),
        ("edit", vec![(aggregate("admin"), "true")], edit, "edit"),
        ("view", vec![(aggregate("edit"), "true")], VIEW.to_vec(), "view"),
    ] {
        let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        let mut role = cluster_role(name, &labels, &list);
        role["aggregationRule"] =
            json!({"clusterRoleSelectors": [{"matchLabels": {aggregate(selects): "true"}}]});
        all.push(role);
    }
    if let Some(role) =
        all.iter_mut().find(|r| r["metadata"]["name"] == "system:service-account-issuer-discovery")
    {
        role["rules"] = json!([{"nonResourceURLs": ["/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/"], "verbs": ["get"]}]);
    }
    all.extend([
        bind("cluster-admin", "cluster-admin", vec![group("system:masters")]),
        bind("system:discovery", "system:discovery", vec![group("system:authenticated")]),
        bind("system:basic-user", "system:basic-user", vec![group("system:authenticated")]),
        bind(
            "system:public-info-viewer",
            "system:public-info-viewer",
            vec![group("system:authenticated"), group("system:unauthenticated")],
        ),
        bind("system:monitoring", "system:monitoring", vec![group("system:monitoring")]),
        // Upstream's Node authoriser decides by graph; until ours does, nodes are in the role.
        bind("system:node", "system:node", vec![group("system:nodes")]),
        bind(
            "system:node-proxier",
            "system:node-proxier",
            vec![user("system:kube-proxy"), group("system:nodes")],
        ),
        bind("system:kube-scheduler", "system:kube-scheduler", vec![user("system:kube-scheduler")]),
        bind(
            "system:kube-controller-manager",
            "system:kube-controller-manager",
            vec![user("system:kube-controller-manager"), account("generic-garbage-collector")],
        ),
        bind(
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            vec![group("system:serviceaccounts")],
        ),
    ]);
    all.push(json!({"apiVersion": format!("{API}/v1"), "kind": "Role",
        "metadata": {"name": "extension-apiserver-authentication-reader", "namespace": "kube-system",
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"],
            "resourceNames": ["extension-apiserver-authentication"], "verbs": ["get", "list", "watch"]}]}));
    all.push(json!({"apiVersion": format!("{API}/v1"), "kind": "RoleBinding",
        "metadata": {"name": "system::extension-apiserver-authentication-reader", "namespace": "kube-system",
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
        "roleRef": {"apiGroup": API, "kind": "Role", "name": "extension-apiserver-authentication-reader"},
        "subjects": [user("system:kube-controller-manager"), user("system:kube-scheduler")]}));
    all
}
