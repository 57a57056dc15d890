//! The roles and bindings a cluster starts with. Names are the well-known ones; rules are added when missing.

use serde_json::{Value, json};

use super::controller_roles::{CONTROLLERS, NAMED};

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
pub(super) type Rule = (&'static str, &'static str, &'static str);
/// As [`Rule`], for objects of the names in the third place alone.
pub(super) type NamedRule = (&'static str, &'static str, &'static str, &'static str);

pub(super) const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
/// Telling what happened.
pub(super) const EVENTS: Rule = ("core events.k8s.io", "events", "create patch update");
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

fn named(list: impl Iterator<Item = NamedRule>) -> Vec<Value> {
    list.map(|(groups, resources, names, verbs)| {
        json!({"apiGroups": words(groups), "resources": words(resources), "resourceNames": words(names), "verbs": words(verbs)})
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

/// A role of a namespace, bound to `subjects` under its own name.
fn local_role(namespace: &str, name: &str, rules: Vec<Value>, subjects: Vec<Value>) -> [Value; 2] {
    let mut metadata = metadata(name, &[]);
    metadata["namespace"] = namespace.into();
    [
        json!({"apiVersion": format!("{API}/v1"), "kind": "Role", "metadata": metadata, "rules": rules}),
        json!({"apiVersion": format!("{API}/v1"), "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": API, "kind": "Role", "name": name}, "subjects": subjects}),
    ]
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

/// For whoever binds it; the nodes themselves are judged by the Node authoriser, which knows whose pods run where.
const NODE: &[Rule] = &[
    ("authentication.k8s.io", "tokenreviews", "create"),
    ("authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews", "create"),
    ("core", "services", READ),
    ("core", "nodes", "create get list watch patch update"),
    ("core", "nodes/status", "patch update"),
    EVENTS,
    ("core", "pods", "get list watch create delete"),
    ("core", "pods/status", "patch update"),
    ("core", "pods/eviction", "create"),
    ("core", "configmaps secrets", READ),
    ("core", "persistentvolumeclaims persistentvolumes endpoints serviceaccounts", "get"),
    ("core", "persistentvolumeclaims/status", "get patch update"),
    ("core", "serviceaccounts/token", "create"),
    ("certificates.k8s.io", "certificatesigningrequests", "create get list watch"),
    ("coordination.k8s.io", "leases", "create delete get patch update"),
    ("storage.k8s.io", "volumeattachments", "get"),
    ("storage.k8s.io", "csidrivers", READ),
    ("storage.k8s.io", "csinodes", "create delete get patch update"),
    ("node.k8s.io", "runtimeclasses", READ),
    ("resource.k8s.io", "resourceclaims", "get"),
    ("resource.k8s.io", "resourceslices", "deletecollection"),
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
    EVENTS,
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

const CONTROLLER_MANAGER: &[Rule] = &[
    EVENTS,
    ("coordination.k8s.io", "leases", "create get list update patch watch"),
    ("*", "*", "get list watch"),
    ("core", "serviceaccounts secrets", "create delete update"),
    ("core", "serviceaccounts/token", "create"),
    ("authentication.k8s.io", "tokenreviews", "create"),
    ("authorization.k8s.io", "subjectaccessreviews", "create"),
];

/// Roles for parts of a cluster that not every cluster has.
const FURTHER: &[(&str, &[Rule])] = &[
    (
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[("certificates.k8s.io", "certificatesigningrequests/nodeclient", "create")],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[("certificates.k8s.io", "certificatesigningrequests/selfnodeclient", "create")],
    ),
    ("system:heapster", &[("core", "events namespaces nodes pods", READ)]),
    ("system:kube-aggregator", &[("core", "endpoints services", READ)]),
    (
        "system:kube-dns",
        &[("core", "endpoints services", "list watch"), ("discovery.k8s.io", "endpointslices", "list watch")],
    ),
    ("system:node-problem-detector", &[("core", "nodes", "get"), ("core", "nodes/status", "patch"), EVENTS]),
    (
        "system:persistent-volume-provisioner",
        &[
            ("core", "persistentvolumes", "create delete get list watch"),
            ("core", "persistentvolumeclaims", "get list update watch"),
            ("storage.k8s.io", "storageclasses", READ),
            ("core", "events", "watch"),
            EVENTS,
        ],
    ),
    (
        "system:volume-scheduler",
        &[
            ("core", "persistentvolumes persistentvolumeclaims", "get list patch update watch"),
            ("storage.k8s.io", "storageclasses", READ),
        ],
    ),
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
                EVENTS,
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
        cluster_role("system:kube-controller-manager", &[], CONTROLLER_MANAGER),
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
    all.extend(FURTHER.iter().map(|(name, list)| cluster_role(name, &[], list)));
    for signer in
        ["kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown"]
    {
        let mut role = cluster_role(&format!("system:certificates.k8s.io:{signer}-approver"), &[], &[]);
        let name = format!("kubernetes.io/{signer}");
        role["rules"] = json!([{"apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
            "resourceNames": [name], "verbs": ["approve"]}]);
        all.push(role);
    }
    for (controller, list) in CONTROLLERS {
        let name = format!("system:controller:{controller}");
        let mut role = cluster_role(&name, &[], list);
        let further = NAMED.iter().filter(|(of, _)| of == controller).map(|(_, rule)| *rule);
        if let Some(rules) = role["rules"].as_array_mut() {
            rules.extend(named(further));
        }
        all.push(role);
        all.push(bind(&name, &name, vec![account(controller)]));
    }
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
        bind("system:node", "system:node", Vec::new()),
        bind("system:node-proxier", "system:node-proxier", vec![user("system:kube-proxy")]),
        bind("system:kube-dns", "system:kube-dns", vec![account("kube-dns")]),
        bind("system:volume-scheduler", "system:volume-scheduler", vec![user("system:kube-scheduler")]),
        bind("system:kube-scheduler", "system:kube-scheduler", vec![user("system:kube-scheduler")]),
        bind(
            "system:kube-controller-manager",
            "system:kube-controller-manager",
            vec![user("system:kube-controller-manager")],
        ),
        bind(
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            vec![group("system:serviceaccounts")],
        ),
    ]);
    all.extend(joining());
    let manager = || vec![user("system:kube-controller-manager"), account("kube-controller-manager")];
    let scheduler = || vec![user("system:kube-scheduler"), account("kube-scheduler")];
    let leader = rules(&[("coordination.k8s.io", "leases leasecandidates", "create get list watch update")]);
    let reader = named([("core", "configmaps", "extension-apiserver-authentication", READ)].into_iter());
    let [reader, _] =
        local_role("kube-system", "extension-apiserver-authentication-reader", reader, Vec::new());
    let mut reads = local_role(
        "kube-system",
        "system::extension-apiserver-authentication-reader",
        Vec::new(),
        vec![user("system:kube-controller-manager"), user("system:kube-scheduler")],
    )[1]
    .clone();
    reads["roleRef"]["name"] = reader["metadata"]["name"].clone();
    all.extend([reader, reads]);
    all.extend(local_role(
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        leader.clone(),
        manager(),
    ));
    all.extend(local_role("kube-system", "system::leader-locking-kube-scheduler", leader, scheduler()));
    let signer = rules(&[("core", "secrets", READ)]);
    all.extend(local_role(
        "kube-system",
        "system:controller:bootstrap-signer",
        signer,
        vec![account("bootstrap-signer")],
    ));
    let cleaner = rules(&[("core", "secrets", "delete get list watch"), EVENTS]);
    all.extend(local_role(
        "kube-system",
        "system:controller:token-cleaner",
        cleaner,
        vec![account("token-cleaner")],
    ));
    let cloud = rules(&[("core", "configmaps", "create get list watch")]);
    all.extend(local_role(
        "kube-system",
        "system:controller:cloud-provider",
        cloud,
        vec![account("cloud-provider")],
    ));
    let mut signer = rules(&[("core", "configmaps", READ), EVENTS]);
    signer.extend(named([("core", "configmaps", "cluster-info", "update")].into_iter()));
    all.extend(local_role(
        "kube-public",
        "system:controller:bootstrap-signer",
        signer,
        vec![account("bootstrap-signer")],
    ));
    all
}

/// What a machine that joins may do, and a node for its own certificate: what kubeadm gives a cluster, under its names, but
/// for every bootstrap token. See docs/adr/0044-joining-and-renewing.md.
fn joining() -> Vec<Value> {
    let bootstrappers = || vec![group("system:bootstrappers")];
    let info = named([("core", "configmaps", "cluster-info", "get")].into_iter());
    let reads = vec![user("system:anonymous")];
    let mut all = vec![
        bind("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", bootstrappers()),
        bind(
            "kubeadm:node-autoapprove-bootstrap",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            bootstrappers(),
        ),
        bind(
            "kubeadm:node-autoapprove-certificate-rotation",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            vec![group("system:nodes")],
        ),
        // To see whether its name is taken.
        cluster_role("kubeadm:get-nodes", &[], &[("core", "nodes", "get")]),
        bind("kubeadm:get-nodes", "kubeadm:get-nodes", bootstrappers()),
    ];
    all.extend(local_role("kube-public", "kubeadm:bootstrap-signer-clusterinfo", info, reads));
    all
}
