//! Admission policies: what their expressions refuse, warn of, note and change.

use penstock_apiserver::error::ApiError;
use penstock_apiserver::registry::{Body, Context, Target};
use serde_json::{Value, json};

use crate::cluster::{Cluster, context};
use crate::custom::eventually;

fn rule(group: &str, resource: &str) -> Value {
    json!({"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource]})
}

fn policy(name: &str, spec: Value) -> Value {
    let mut policy = json!({"metadata": {"name": name}, "spec": spec});
    if policy["spec"]["matchConstraints"].is_null() {
        policy["spec"]["matchConstraints"] = json!({"resourceRules": [rule("", "configmaps")]});
    }
    policy
}

fn binding(name: &str, policy: &str, actions: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"policyName": policy, "validationActions": actions}})
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

const POLICIES: &str = "validatingadmissionpolicies";
const BINDINGS: &str = "validatingadmissionpolicybindings";

/// A create under a context of its own, so that what is noted of the request can be seen.
async fn create_noted(cluster: &Cluster, object: Value) -> (Result<(), ApiError>, Context) {
    let context = context();
    let target = Target::collection(Some("default"));
    let body = Body::Json(object.to_string().into());
    let kind = cluster.kind("configmaps");
    let made = cluster.registry.create(&context, &kind, &target, body).await.map(|_| ());
    (made, context)
}

/// The refusal of an object that no policy refused before.
async fn refusal(cluster: &Cluster, object: &Value) -> ApiError {
    eventually("the refusal", async || {
        let mut object = object.clone();
        object["metadata"]["name"] = format!("c-{}", rand_suffix()).into();
        cluster.create("configmaps", object).await.err()
    })
    .await
}

fn rand_suffix() -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

#[tokio::test]
async fn what_a_policy_does_not_hold_for_is_refused() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "variables": [
            {"name": "size", "expression": "object.data.size()"},
            {"name": "limit", "expression": "variables.size * 0 + 2"},
        ],
        "matchConditions": [{"name": "not-exempt", "expression": "!has(object.data.exempt)"}],
        "validations": [
            {"expression": "variables.size <= variables.limit", "reason": "Forbidden",
             "messageExpression": "'has ' + string(variables.size) + ' of ' + string(variables.limit)"},
            {"expression": "!('bad' in object.data)", "message": "bad is bad"},
        ],
    });
    cluster.create(POLICIES, policy("small", spec)).await.unwrap();
    cluster.create(BINDINGS, binding("all", "small", json!(["Deny"]))).await.unwrap();
    let refused = refusal(&cluster, &config_map("", json!({"a": "", "b": "", "c": ""}))).await;
    assert_eq!((refused.code, refused.reason), (403, "Forbidden"));
    assert!(refused.message.ends_with(
        "is forbidden: ValidatingAdmissionPolicy 'small' with binding 'all' denied request: has 3 of 2"
    ));
    let refused = cluster.create("configmaps", config_map("x", json!({"bad": ""}))).await.unwrap_err();
    assert_eq!((refused.code, refused.reason), (422, "Invalid"));
    assert!(refused.message.ends_with("denied request: bad is bad"), "{}", refused.message);
    cluster.create("configmaps", config_map("ok", json!({"a": ""}))).await.unwrap();
    let exempt = json!({"exempt": "", "a": "", "b": "", "bad": ""});
    cluster.create("configmaps", config_map("exempt", exempt)).await.unwrap();
    let grown = cluster.merge("configmaps", "ok", json!({"data": {"b": "", "c": "", "d": ""}})).await;
    assert!(grown.unwrap_err().message.contains("has 4 of 2"), "updates are held to it as well");

    cluster.delete(BINDINGS, "all", Default::default()).await.unwrap();
    eventually("the end of the policy", async || {
        cluster.merge("configmaps", "ok", json!({"data": {"b": "", "c": "", "d": ""}})).await.ok()
    })
    .await;
}

#[tokio::test]
async fn failures_are_warned_of_and_noted_where_the_binding_says_so() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "validations": [{"expression": "object.data.a == 'x'"}],
        "auditAnnotations": [{"key": "who", "valueExpression": "request.userInfo.username + ' ' + request.operation"}],
    });
    cluster.create(POLICIES, policy("noisy.example.com", spec)).await.unwrap();
    cluster.create(BINDINGS, binding("b", "noisy.example.com", json!(["Warn", "Audit"]))).await.unwrap();
    let context = eventually("the warning", async || {
        let (made, context) =
            create_noted(&cluster, config_map(&format!("w-{}", rand_suffix()), json!({"a": "y"}))).await;
        made.unwrap();
        let warned = !context.warnings.lock().is_empty();
        warned.then_some(context)
    })
    .await;
    assert_eq!(
        *context.warnings.lock(),
        [
            "Validation failed for ValidatingAdmissionPolicy 'noisy.example.com' with binding 'b': failed expression: object.data.a == 'x'"
        ]
    );
    let notes = context.annotations.lock().clone();
    assert_eq!(notes["noisy.example.com/who"], "test CREATE");
    let failure: Value =
        serde_json::from_str(&notes["validation.policy.admission.k8s.io/validation_failure"]).unwrap();
    assert_eq!(failure[0]["policy"], "noisy.example.com");
    assert_eq!(failure[0]["validationActions"], json!(["Warn", "Audit"]));
}

#[tokio::test]
async fn an_expression_that_fails_refuses_unless_the_policy_ignores_it() {
    let cluster = Cluster::start().await;
    let broken = json!([{"expression": "object.data.missing == 'x'"}]);
    let ignored = json!({"failurePolicy": "Ignore", "validations": broken});
    cluster.create(POLICIES, policy("ignored", ignored)).await.unwrap();
    cluster.create(BINDINGS, binding("i", "ignored", json!(["Deny"]))).await.unwrap();
    cluster.create(POLICIES, policy("strict", json!({"validations": broken}))).await.unwrap();
    cluster.create(BINDINGS, binding("s", "strict", json!(["Deny"]))).await.unwrap();
    let refused = refusal(&cluster, &config_map("", json!({"a": ""}))).await;
    let wanted = "ValidatingAdmissionPolicy 'strict' with binding 's' denied request: \
                  expression 'object.data.missing == 'x'' resulted in error: no such key: missing";
    assert!(refused.message.ends_with(wanted), "{}", refused.message);
}

#[tokio::test]
async fn parameters_are_found_by_name_and_by_labels() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": {"resourceRules": [rule("", "secrets")]},
        "validations": [{"expression": "object.metadata.name.startsWith(params.data.prefix)"}],
    });
    cluster.create(POLICIES, policy("prefixed", spec)).await.unwrap();
    let mut bound = binding("b", "prefixed", json!(["Deny"]));
    bound["spec"]["paramRef"] = json!({"name": "prefix", "parameterNotFoundAction": "Deny"});
    cluster.create(BINDINGS, bound.clone()).await.unwrap();
    let refused = eventually("the refusal", async || {
        let name = format!("s-{}", rand_suffix());
        cluster.create("secrets", json!({"metadata": {"name": name}})).await.err()
    })
    .await;
    let wanted =
        "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert!(refused.message.ends_with(wanted), "{}", refused.message);
    cluster.create("configmaps", config_map("prefix", json!({"prefix": "good-"}))).await.unwrap();
    let secret = |name: &str| json!({"metadata": {"name": name}});
    eventually("the parameter", async || cluster.create("secrets", secret("good-1")).await.ok()).await;
    let refused = cluster.create("secrets", secret("other")).await.unwrap_err();
    assert!(
        refused.message.contains("failed expression: object.metadata.name.startsWith"),
        "{}",
        refused.message
    );

    bound = cluster.get(BINDINGS, "b").await.unwrap();
    bound["spec"]["paramRef"] =
        json!({"selector": {"matchLabels": {"role": "prefix"}}, "parameterNotFoundAction": "Allow"});
    cluster.update(BINDINGS, None, &bound).await.unwrap();
    eventually("that nothing selected allows", async || {
        cluster.create("secrets", secret("other")).await.ok()
    })
    .await;
    for prefix in ["a", "ab"] {
        let mut map = config_map(prefix, json!({"prefix": prefix}));
        map["metadata"]["labels"] = json!({"role": "prefix"});
        cluster.create("configmaps", map).await.unwrap();
    }
    assert!(cluster.create("secrets", secret("ac")).await.is_err(), "it has to pass with each of them");
    cluster.create("secrets", secret("abc")).await.unwrap();
}

#[tokio::test]
async fn selectors_and_names_say_what_a_policy_is_about() {
    let cluster = Cluster::start().await;
    let mut narrow = rule("", "configmaps");
    narrow["resourceNames"] = json!(["named"]);
    let spec = json!({
        "matchConstraints": {
            "resourceRules": [narrow, rule("", "secrets")],
            "excludeResourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"],
                "resources": ["secrets"], "resourceNames": ["excluded"]}],
            "objectSelector": {"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
        },
        "validations": [{"expression": "false", "message": "never"}],
    });
    cluster.create(POLICIES, policy("never", spec)).await.unwrap();
    cluster.create(BINDINGS, binding("b", "never", json!(["Deny"]))).await.unwrap();
    eventually("the policy", async || {
        cluster.create("secrets", json!({"metadata": {"name": format!("s-{}", rand_suffix())}})).await.err()
    })
    .await;
    assert!(cluster.create("configmaps", config_map("named", json!({}))).await.is_err());
    cluster.create("configmaps", config_map("other", json!({}))).await.unwrap();
    cluster.create("secrets", json!({"metadata": {"name": "excluded"}})).await.unwrap();
    cluster.create("secrets", json!({"metadata": {"name": "f", "labels": {"free": ""}}})).await.unwrap();
    let elsewhere = Body::Json(json!({"metadata": {"name": "s"}}).to_string().into());
    let target = Target::collection(Some("kube-system"));
    cluster.registry.create(&context(), &cluster.kind("secrets"), &target, elsewhere).await.unwrap();
}

#[tokio::test]
async fn a_rule_matches_other_versions_and_sees_the_object_in_its_own() {
    let cluster = Cluster::start().await;
    let rule = json!({"apiGroups": ["autoscaling"], "apiVersions": ["v2"], "operations": ["CREATE"],
        "resources": ["horizontalpodautoscalers"]});
    let spec = json!({
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "!has(object.spec.metrics)",
            "messageExpression": "object.apiVersion + ' for ' + request.requestKind.version"}],
    });
    cluster.create(POLICIES, policy("v2", spec.clone())).await.unwrap();
    cluster.create(BINDINGS, binding("b", "v2", json!(["Deny"]))).await.unwrap();
    let v1 = cluster.registry.find("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
    let create = async || {
        let scaler = json!({"metadata": {"name": format!("h-{}", rand_suffix())}, "spec": {"maxReplicas": 3,
            "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
        let body = Body::Json(scaler.to_string().into());
        cluster.registry.create(&context(), &v1, &Target::collection(Some("default")), body).await
    };
    let refused = eventually("the policy", async || create().await.err()).await;
    assert!(refused.message.ends_with("denied request: autoscaling/v2 for v1"), "{}", refused.message);
    let mut exact = cluster.get(POLICIES, "v2").await.unwrap();
    exact["spec"]["matchConstraints"]["matchPolicy"] = "Exact".into();
    cluster.update(POLICIES, None, &exact).await.unwrap();
    eventually("that it is exact", async || create().await.ok()).await;
}

#[tokio::test]
async fn policies_do_not_rule_over_policies() {
    let cluster = Cluster::start().await;
    let everything =
        json!({"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]});
    let spec = json!({
        "matchConstraints": {"resourceRules": [everything]},
        "validations": [{"expression": "false"}],
    });
    cluster.create(POLICIES, policy("locked", spec)).await.unwrap();
    cluster.create(BINDINGS, binding("b", "locked", json!(["Deny"]))).await.unwrap();
    refusal(&cluster, &config_map("", json!({}))).await;
    cluster.delete(BINDINGS, "b", Default::default()).await.unwrap();
    cluster.delete(POLICIES, "locked", Default::default()).await.unwrap();
    eventually("that it is open again", async || {
        cluster.create("configmaps", config_map("free", json!({}))).await.ok()
    })
    .await;
}

#[tokio::test]
async fn wrong_policies_and_bindings_are_refused_with_all_that_is_wrong() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "matchConditions": [{"name": "a", "expression": "params.x == 1"}],
        "variables": [{"name": "for", "expression": "1"}],
        "validations": [
            {"expression": "object.a ==", "reason": "Odd"},
            {"expression": "object.a", "messageExpression": "authorizer.path('/').check('get').reason()"},
            {"expression": "'a'", "message": "a\nb"},
        ],
        "auditAnnotations": [{"key": "a b", "valueExpression": "1"}],
    });
    let message = cluster.create(POLICIES, policy("p", spec)).await.unwrap_err().message;
    for wanted in [
        "spec.matchConditions[0].expression: Invalid value: \"params.x == 1\": compilation failed: ERROR: <input>:1:1: \
         undeclared reference to 'params' (in container '')",
        "spec.variables[0].name: Invalid value: \"for\": must be a valid CEL identifier",
        "spec.validations[0].expression: Invalid value: \"object.a ==\": compilation failed: ERROR: <input>:1:12: Syntax error",
        "spec.validations[0].reason: Unsupported value: \"Odd\"",
        "spec.validations[1].expression: Invalid value: \"object.a\": must evaluate to bool but got dyn",
        "spec.validations[1].messageExpression: Invalid value",
        "spec.validations[2].expression: Invalid value: \"'a'\": must evaluate to bool but got string",
        "spec.validations[2].message: Invalid value: \"a\\nb\": must not contain line breaks",
        "spec.auditAnnotations[0].valueExpression: Invalid value: \"1\": must evaluate to one of [string null] but got int",
    ] {
        assert!(message.contains(wanted), "{wanted}\nis not in\n{message}");
    }
    let empty = json!({"matchConstraints": {}, "failurePolicy": "Maybe"});
    let message = cluster.create(POLICIES, policy("p", empty)).await.unwrap_err().message;
    assert!(message.contains("spec.matchConstraints.resourceRules: Required value"), "{message}");
    assert!(message.contains("validations or auditAnnotations must contain at least one item"), "{message}");
    assert!(message.contains("spec.failurePolicy: Unsupported value: \"Maybe\""), "{message}");
    let message =
        cluster.create(BINDINGS, binding("b", "P!", json!(["Deny", "Warn"]))).await.unwrap_err().message;
    assert!(
        message.contains("spec.policyName: Invalid value") && message.contains("both Deny and Warn"),
        "{message}"
    );
}

#[tokio::test]
async fn expressions_are_checked_against_the_types_of_the_rules() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "matchConstraints": {"resourceRules": [rule("apps", "deployments")]},
        "validations": [
            {"expression": "object.spec.replicas > '1'",
             "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas"},
            {"expression": "object.spec.replicas < 10 && object.spec.template.spec.containers.all(c, c.image != '')"},
        ],
    });
    cluster.create(POLICIES, policy("typed", spec)).await.unwrap();
    let checked = eventually("the check of types", async || {
        let policy = cluster.get(POLICIES, "typed").await.unwrap();
        (policy["status"]["observedGeneration"] == policy["metadata"]["generation"]).then_some(policy)
    })
    .await;
    let warnings = checked["status"]["typeChecking"]["expressionWarnings"].as_array().unwrap().clone();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[0].expression");
    let text = warnings[0]["warning"].as_str().unwrap();
    assert!(
        text.starts_with("apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload"),
        "{text}"
    );
    assert_eq!(warnings[1]["fieldRef"], "spec.validations[0].messageExpression");
    let labelled =
        cluster.merge(POLICIES, "typed", json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    assert_eq!(labelled["metadata"]["generation"], 1, "labels are no reason to check it again");
    assert!(warnings[1]["warning"].as_str().unwrap().contains("'_+_' applied to '(string, int)'"));
}

const MUTATING: &str = "mutatingadmissionpolicies";
const MUTATING_BINDINGS: &str = "mutatingadmissionpolicybindings";

fn mutation(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

async fn bind_mutating(cluster: &Cluster, name: &str, spec: Value) {
    cluster.create(MUTATING, policy(name, spec)).await.unwrap();
    let bound = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    cluster.create(MUTATING_BINDINGS, bound).await.unwrap();
}

#[tokio::test]
async fn a_mutating_policy_changes_what_is_created() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "reinvocationPolicy": "Never",
        "matchConditions": [{"name": "marked", "expression": "has(object.data.mark)"}],
        "variables": [{"name": "who", "expression": "request.userInfo.username"}],
        "mutations": [
            mutation("Object{metadata: Object.metadata{annotations: {'by': variables.who}}, data: {'more': 'x'}}"),
            patch("[JSONPatch{op: 'test', path: '/data/mark', value: 'nothing'}, JSONPatch{op: 'remove', path: '/data'}]"),
            patch("[JSONPatch{op: 'add', path: '/metadata/labels', value: {'first': object.data.more}},
                    JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a.b/c'), value: 'y'}]"),
        ],
    });
    bind_mutating(&cluster, "marks", spec).await;
    let made = eventually("the change", async || {
        let name = format!("m-{}", rand_suffix());
        let made = cluster.create("configmaps", config_map(&name, json!({"mark": "1"}))).await.unwrap();
        made["data"]["more"].is_string().then_some(made)
    })
    .await;
    assert_eq!(made["data"], json!({"mark": "1", "more": "x"}));
    assert_eq!(made["metadata"]["annotations"]["by"], "test");
    assert_eq!(made["metadata"]["labels"], json!({"first": "x", "a.b/c": "y"}));
    let plain = cluster.create("configmaps", config_map("plain", json!({"a": "1"}))).await.unwrap();
    assert_eq!(plain["data"], json!({"a": "1"}));
}

#[tokio::test]
async fn lists_are_merged_by_their_keys_and_what_is_atomic_is_refused() {
    let cluster = Cluster::start().await.with_account().await;
    let spec = json!({
        "reinvocationPolicy": "Never",
        "matchConstraints": {"resourceRules": [rule("", "pods")]},
        "mutations": [mutation("!has(object.metadata.labels.atomic)
            ? Object{spec: Object.spec{containers: [Object.spec.containers{name: 'side', image: 'sidecar'}]}}
            : Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', command: ['x']}]}}")],
    });
    bind_mutating(&cluster, "sidecars", spec).await;
    let made = eventually("the sidecar", async || {
        let made =
            cluster.create("pods", crate::cluster::pod(&format!("p-{}", rand_suffix()))).await.unwrap();
        (made["spec"]["containers"].as_array().unwrap().len() == 2).then_some(made)
    })
    .await;
    assert_eq!(made["spec"]["containers"][1]["imagePullPolicy"], "Always", "what is added is defaulted");
    let mut atomic = crate::cluster::pod("atomic");
    atomic["metadata"]["labels"]["atomic"] = "".into();
    let refused = cluster.create("pods", atomic).await.unwrap_err();
    let wanted = "policy 'sidecars' with binding 'sidecars' denied request: error applying patch: \
                  invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.containers[0].command";
    assert_eq!((refused.code, refused.message.as_str()), (403, wanted));
}

#[tokio::test]
async fn a_policy_that_asks_for_it_sees_what_later_ones_changed() {
    let cluster = Cluster::start().await;
    let count = "Object{data: {'seen': string(object.data.size())}}";
    let first = json!({"reinvocationPolicy": "IfNeeded", "mutations": [mutation(count)]});
    bind_mutating(&cluster, "a-counts", first).await;
    let second =
        json!({"reinvocationPolicy": "Never", "mutations": [mutation("Object{data: {'late': 'x'}}")]});
    bind_mutating(&cluster, "b-adds", second).await;
    let made = eventually("both policies", async || {
        let name = format!("r-{}", rand_suffix());
        let made = cluster.create("configmaps", config_map(&name, json!({"a": "1"}))).await.unwrap();
        (made["data"]["late"] == "x" && made["data"]["seen"].is_string()).then_some(made)
    })
    .await;
    assert_eq!(made["data"]["seen"], "3", "it counts itself and what came after it");
}

#[tokio::test]
async fn wrong_mutations_are_refused() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "mutations": [mutation("[1]"), patch("Object{}"), {"patchType": "JSONPatch"}, mutation("Thing{}")],
        "matchConstraints": {"resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["pods"]}]},
    });
    let message = cluster.create(MUTATING, policy("m", spec)).await.unwrap_err().message;
    for wanted in [
        "spec.mutations[0].applyConfiguration.expression: Invalid value: \"[1]\": must evaluate to Object but got list(int)",
        "spec.mutations[1].jsonPatch.expression: Invalid value: \"Object{}\": must evaluate to list(JSONPatch) but got Object",
        "spec.mutations[2].jsonPatch: Required value: must be specified when patchType is JSONPatch",
        "undeclared reference to 'Thing' (in container '')",
        "spec.reinvocationPolicy: Required value",
        "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\"",
    ] {
        assert!(message.contains(wanted), "{wanted}\nis not in\n{message}");
    }
}
