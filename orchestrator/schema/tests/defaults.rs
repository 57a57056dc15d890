//! Defaults of the kinds people write most, and what holds for all kinds.

#[path = "generate/generate.rs"]
mod generate;

use penstock_schema::structural::custom_type;
use penstock_schema::{Gvk, Schema, Value, check, defaults};
use serde_json::json;

fn defaulted(group: &str, kind: &str, mut object: Value) -> Value {
    let ty = Schema::builtin().kind(group, "v1", kind).expect("a kind");
    defaults::apply(&ty, &mut object);
    object
}

#[test]
fn a_minimal_pod_gets_upstreams_defaults() {
    let pod = defaulted("", "Pod", json!({"spec": {"containers": [{"name": "a", "image": "nginx"}]}}));
    assert_eq!(
        pod["spec"],
        json!({
            "containers": [{
                "name": "a", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
        })
    );
}

#[test]
fn only_an_image_without_tag_or_with_latest_is_always_pulled() {
    for (image, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.2", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:0123", "IfNotPresent"),
    ] {
        let pod = defaulted("", "Pod", json!({"spec": {"containers": [{"name": "a", "image": image}]}}));
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], policy, "{image}");
    }
}

#[test]
fn limits_become_requests_in_a_pod_and_not_in_a_template() {
    let container = json!({"name": "a", "resources": {"limits": {"cpu": "1"}}});
    let pod = defaulted("", "Pod", json!({"spec": {"containers": [container]}}));
    assert_eq!(pod["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "1"}));
    let template = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    let deployment = defaulted("apps", "Deployment", template);
    assert!(deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"].is_null());
}

#[test]
fn probes_ports_and_volumes_are_filled() {
    let pod = defaulted(
        "",
        "Pod",
        json!({"spec": {
            "containers": [{
                "name": "a", "image": "a:1", "ports": [{"containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": 80}, "timeoutSeconds": 0},
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            }],
            "volumes": [{"name": "e"}, {"name": "c", "configMap": {"name": "c"}}, {"name": "h", "hostPath": {"path": "/"}}],
        }}),
    );
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["ports"], json!([{"containerPort": 80, "protocol": "TCP"}]));
    assert_eq!(
        container["livenessProbe"],
        json!({
            "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
            "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
        })
    );
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(
        pod["spec"]["volumes"],
        json!([
            {"name": "e", "emptyDir": {}},
            {"name": "c", "configMap": {"name": "c", "defaultMode": 420}},
            {"name": "h", "hostPath": {"path": "/", "type": ""}},
        ])
    );
}

#[test]
fn a_deployment_rolls_by_quarters() {
    let deployment =
        defaulted("apps", "Deployment", json!({"spec": {"template": {"spec": {"containers": []}}}}));
    let spec = &deployment["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    let zero =
        defaulted("apps", "Deployment", json!({"spec": {"replicas": 0, "strategy": {"type": "Recreate"}}}));
    assert_eq!(zero["spec"]["replicas"], 0, "zero replicas is a wish");
    assert_eq!(zero["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn a_service_targets_its_own_port() {
    let service = defaulted("", "Service", json!({"spec": {"ports": [{"port": 80}]}}));
    assert_eq!(
        service["spec"],
        json!({
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None", "type": "ClusterIP",
        })
    );
    let balanced =
        defaulted("", "Service", json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}}));
    assert_eq!(balanced["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(balanced["spec"]["allocateLoadBalancerNodePorts"], true);
    assert_eq!(balanced["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10800);
}

#[test]
fn subjects_get_the_group_of_their_kind() {
    let binding = defaulted(
        "rbac.authorization.k8s.io",
        "RoleBinding",
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]}),
    );
    assert_eq!(binding["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(binding["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    assert!(binding["subjects"][1]["apiGroup"].is_null());
}

#[test]
fn what_is_empty_and_need_not_be_there_is_left_out() {
    let pod = defaulted(
        "",
        "Pod",
        json!({
            "metadata": {"name": "p", "finalizers": [], "labels": {}, "generation": 0},
            "spec": {
                "containers": [], "volumes": [], "nodeSelector": {}, "hostNetwork": false, "nodeName": "",
                "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0, "affinity": {},
            },
        }),
    );
    assert_eq!(pod["metadata"], json!({"name": "p"}));
    assert_eq!(
        pod["spec"],
        json!({
            "containers": [], "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
            "affinity": {}, "dnsPolicy": "ClusterFirst", "enableServiceLinks": true,
            "restartPolicy": "Always", "schedulerName": "default-scheduler", "securityContext": {},
        }),
        "what is required, what Go points to and structs stay"
    );
}

#[test]
fn a_custom_kinds_empty_values_stay_as_they_were_written() {
    let schema = json!({
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {
            "items": {"type": "array", "items": {"type": "string"}}, "count": {"type": "integer"},
        }}},
    });
    let gvk = Gvk { group: "shop.test".into(), version: "v1".into(), kind: "Order".into() };
    let ty = custom_type(&gvk, "OrderList", &schema).expect("a structural schema");
    let mut object = json!({"metadata": {"finalizers": []}, "spec": {"items": [], "count": 0}});
    defaults::apply(&ty, &mut object);
    assert_eq!(object, json!({"metadata": {}, "spec": {"items": [], "count": 0}}));
}

#[test]
fn defaults_settle_and_conform_for_every_kind() {
    let schema = Schema::builtin();
    for seed in 0..20 {
        let mut source = generate::Source(seed);
        for gvk in schema.kinds() {
            let ty = schema.kind(&gvk.group, &gvk.version, &gvk.kind).expect("a listed kind");
            let mut once = generate::object(&ty, &mut source);
            defaults::apply(&ty, &mut once);
            let mut twice = once.clone();
            defaults::apply(&ty, &mut twice);
            assert_eq!(once, twice, "{gvk:?}: applying defaults twice changes nothing");
            assert_eq!(check::conform(&ty, &mut twice), Ok(vec![]), "{gvk:?}");
            assert_eq!(once, twice, "{gvk:?}: defaults are of the normal form");
        }
    }
}
