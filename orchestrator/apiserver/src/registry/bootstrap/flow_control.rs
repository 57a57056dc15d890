//! The FlowSchemas and PriorityLevelConfigurations every cluster has, and when one that is there is put right.
//!
//! The mandatory ones are exactly so, always. The suggested ones follow this list as long as their annotation says so,
//! which it does until somebody edits them
//! (<https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#defaults>).

use serde_json::{Value, json};

use crate::registry::object::meta_str;

pub(crate) const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
pub(crate) const GROUP: &str = "flowcontrol.apiserver.k8s.io";
pub(crate) const SCHEMAS: &str = "flowschemas";
pub(crate) const LEVELS: &str = "prioritylevelconfigurations";
/// `true`: the spec is kept as it is here. `false`: somebody else's.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

pub(crate) const EXEMPT: &str = "exempt";
pub(crate) const CATCH_ALL: &str = "catch-all";

/// All of them: priority levels before the schemas that lead to them.
pub(crate) fn objects() -> Vec<Value> {
    levels().into_iter().chain(schemas()).collect()
}

/// Whether this one is not the users' to change.
pub(crate) fn is_mandatory(name: &str) -> bool {
    name == EXEMPT || name == CATCH_ALL
}

/// The object of this kind and name, if it is one of the mandatory ones.
pub(crate) fn mandatory(kind: &str, name: &str) -> Option<Value> {
    let of = |object: &Value| object["kind"] == kind && meta_str(object, "name") == name;
    Some(name).filter(|name| is_mandatory(name)).and_then(|_| objects().into_iter().find(of))
}

/// Puts right what is not the users': of `exempt` they may set how many seats it lends.
pub(crate) fn reconcile(have: &mut Value, want: &Value) {
    let name = meta_str(want, "name");
    let annotation = have.pointer("/metadata/annotations").and_then(|all| all.get(AUTO_UPDATE));
    let kept = annotation.map(|said| said == "true");
    // Without the annotation an object is the users' if they have touched it: they can only have by writing the spec.
    let keeps = is_mandatory(name) || kept.unwrap_or_else(|| have["metadata"]["generation"] == 1);
    if keeps {
        let exempt = have.pointer("/spec/exempt").filter(|_| name == EXEMPT).cloned();
        have["spec"] = want["spec"].clone();
        if let Some(exempt) = exempt {
            have["spec"]["exempt"] = exempt;
        }
    }
    let annotation = if keeps { "true" } else { "false" };
    if kept != Some(keeps) {
        if !have["metadata"]["annotations"].is_object() {
            have["metadata"]["annotations"] = json!({});
        }
        have["metadata"]["annotations"][AUTO_UPDATE] = annotation.into();
    }
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec})
}

// === Priority levels ===

fn levels() -> Vec<Value> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let catch_all = json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0,
        "limitResponse": {"type": "Reject"}}});
    vec![
        object("PriorityLevelConfiguration", EXEMPT, exempt),
        object("PriorityLevelConfiguration", CATCH_ALL, catch_all),
        // What keeps the cluster itself going: kubelets and the like.
        queuing("system", 30, 33, 64, 6),
        // That nodes are well must be heard even if pods starting take all of the above.
        queuing("node-high", 40, 25, 64, 6),
        queuing("leader-election", 10, 0, 16, 4),
        // Controllers and the scheduler.
        queuing("workload-high", 40, 50, 128, 6),
        // Service accounts.
        queuing("workload-low", 100, 90, 128, 6),
        // People.
        queuing("global-default", 20, 50, 128, 6),
    ]
}

fn queuing(name: &str, shares: u32, lendable_percent: u32, queues: u32, hand: u32) -> Value {
    let spec = json!({"type": "Limited", "limited": {
        "nominalConcurrencyShares": shares, "lendablePercent": lendable_percent,
        "limitResponse": {"type": "Queue",
            "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}}}});
    object("PriorityLevelConfiguration", name, spec)
}

// === Flow schemas ===

fn schemas() -> Vec<Value> {
    let everybody = || [group("system:unauthenticated"), group("system:authenticated")].to_vec();
    let nodes = || vec![group("system:nodes")];
    let system_accounts =
        || json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}});
    let probes = json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]);
    let leases = |verbs: &[&str]| resources(verbs, "coordination.k8s.io", &["leases"], false);
    let loops = ["system:kube-controller-manager", "system:kube-scheduler"];
    let electing = loops.iter().map(|name| user(name)).chain([system_accounts()]).collect();
    vec![
        schema(EXEMPT, EXEMPT, 1, "", all(vec![group("system:masters")])),
        schema("probes", EXEMPT, 2, "", json!({"subjects": everybody(), "nonResourceRules": probes})),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            rule(electing, vec![leases(&["get", "create", "update"])]),
        ),
        schema(
            "system-node-high",
            "node-high",
            400,
            "ByUser",
            rule(nodes(), vec![resources(&["*"], "", &["nodes", "nodes/status"], true), leases(&["*"])]),
        ),
        schema("system-nodes", "system", 500, "ByUser", all(nodes())),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", all(vec![user(loops[0])])),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", all(vec![user(loops[1])])),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            all(vec![system_accounts()]),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            all(vec![group("system:serviceaccounts")]),
        ),
        schema("global-default", "global-default", 9900, "ByUser", all(everybody())),
        schema(CATCH_ALL, CATCH_ALL, 10_000, "ByUser", all(everybody())),
    ]
}

fn schema(name: &str, level: &str, precedence: u32, distinguisher: &str, rule: Value) -> Value {
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
        "rules": [rule]});
    if !distinguisher.is_empty() {
        spec["distinguisherMethod"] = json!({"type": distinguisher});
    }
    object("FlowSchema", name, spec)
}

fn rule(subjects: Vec<Value>, resources: Vec<Value>) -> Value {
    json!({"subjects": subjects, "resourceRules": resources})
}

/// Everything these subjects may ask.
fn all(subjects: Vec<Value>) -> Value {
    json!({"subjects": subjects, "resourceRules": [resources(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]})
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster_scope: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster_scope {
        rule["clusterScope"] = true.into();
    }
    rule
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> Value {
        objects().into_iter().find(|object| meta_str(object, "name") == name).unwrap()
    }

    fn mended(mut have: Value, name: &str) -> Value {
        reconcile(&mut have, &find(name));
        have
    }

    #[test]
    fn what_is_mandatory_is_put_right_whoever_changed_it() {
        let mut have = find(CATCH_ALL);
        have["spec"]["limited"]["nominalConcurrencyShares"] = 500.into();
        have["metadata"]["annotations"][AUTO_UPDATE] = "false".into();
        assert_eq!(mended(have, CATCH_ALL), find(CATCH_ALL));
    }

    #[test]
    fn seats_of_the_exempt_level_are_the_users() {
        let mut have = find(EXEMPT);
        have["spec"]["exempt"]["nominalConcurrencyShares"] = 7.into();
        assert_eq!(mended(have.clone(), EXEMPT), have);
    }

    #[test]
    fn what_is_suggested_follows_until_its_annotation_says_no() {
        let mut have = find("workload-low");
        have["spec"]["limited"]["nominalConcurrencyShares"] = 1.into();
        assert_eq!(mended(have.clone(), "workload-low"), find("workload-low"));
        have["metadata"]["annotations"][AUTO_UPDATE] = "false".into();
        assert_eq!(mended(have.clone(), "workload-low"), have);
        // Without a word about it, one that was edited is left alone and says so from now on.
        have["metadata"] = json!({"name": "workload-low", "generation": 2});
        let mended = mended(have, "workload-low");
        assert_eq!(mended["spec"]["limited"]["nominalConcurrencyShares"], 1);
        assert_eq!(mended["metadata"]["annotations"][AUTO_UPDATE], "false");
    }
}
