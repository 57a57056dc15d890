//! Strategic merge patch: one case a rule.

use penstock_schema::{PatchError, Schema, Value, patch};
use serde_json::json;

fn pod_spec(spec: Value, change: Value) -> Result<Value, PatchError> {
    let ty = Schema::builtin().kind("", "v1", "Pod").expect("Pod");
    let merged = patch::strategic(&ty, &json!({"spec": spec}), &json!({"spec": change}))?;
    Ok(merged["spec"].clone())
}

#[test]
fn containers_merge_by_name() {
    let spec =
        json!({"containers": [{"name": "a", "image": "a:1", "tty": true}, {"name": "b", "image": "b:1"}]});
    let merged =
        pod_spec(spec, json!({"containers": [{"name": "a", "image": "a:2"}, {"name": "c", "image": "c:1"}]}));
    assert_eq!(
        merged.unwrap()["containers"],
        json!([{"name": "a", "image": "a:2", "tty": true}, {"name": "c", "image": "c:1"}, {"name": "b", "image": "b:1"}]),
        "what the patch brings stands before what it does not name, and does not follow"
    );
}

#[test]
fn nested_lists_merge_by_their_own_keys() {
    let spec =
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}], "command": ["x", "y"]}]});
    let change =
        json!({"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}], "command": ["z"]}]});
    let merged = pod_spec(spec, change).unwrap();
    assert_eq!(
        merged["containers"][0]["env"],
        json!([{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}])
    );
    assert_eq!(merged["containers"][0]["command"], json!(["z"]), "an atomic list is replaced");
}

#[test]
fn patch_delete_removes_an_item_and_null_a_field() {
    let spec = json!({"hostname": "h", "containers": [{"name": "a"}, {"name": "b"}]});
    let merged =
        pod_spec(spec, json!({"hostname": null, "containers": [{"name": "a", "$patch": "delete"}]})).unwrap();
    assert_eq!(merged, json!({"containers": [{"name": "b"}]}));
}

#[test]
fn patch_replace_replaces_lists_and_objects() {
    let spec = json!({"containers": [{"name": "a"}], "securityContext": {"runAsUser": 1}});
    let change = json!({
        "containers": [{"$patch": "replace"}, {"name": "z"}],
        "securityContext": {"$patch": "replace", "runAsGroup": 2}
    });
    let merged = pod_spec(spec, change).unwrap();
    assert_eq!(merged, json!({"containers": [{"name": "z"}], "securityContext": {"runAsGroup": 2}}));
}

#[test]
fn patch_delete_removes_an_object() {
    let merged = pod_spec(
        json!({"securityContext": {"runAsUser": 1}}),
        json!({"securityContext": {"$patch": "delete"}}),
    );
    assert_eq!(merged.unwrap(), json!({}));
}

#[test]
fn retain_keys_clears_the_other_members_of_a_union() {
    let spec = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    let change =
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]});
    let merged = pod_spec(spec, change).unwrap();
    assert_eq!(merged["volumes"], json!([{"name": "v", "hostPath": {"path": "/x"}}]));
}

#[test]
fn retain_keys_must_hold_every_patched_key() {
    let change = json!({"volumes": [{"name": "v", "$retainKeys": ["name"], "hostPath": {"path": "/x"}}]});
    assert!(matches!(pod_spec(json!({}), change), Err(PatchError::Malformed { .. })));
}

#[test]
fn set_element_order_orders_and_leaves_the_servers_items_where_they_were() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "sidecar"}, {"name": "b"}]});
    let change = json!({
        "$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}],
        "containers": [{"name": "c"}]
    });
    let merged = pod_spec(spec, change).unwrap();
    assert_eq!(
        merged["containers"],
        json!([{"name": "b"}, {"name": "c"}, {"name": "a"}, {"name": "sidecar"}])
    );
    assert!(merged.get("$setElementOrder/containers").is_none());
}

#[test]
fn scalars_merge_as_a_set_and_are_deleted_by_directive() {
    let ty = Schema::builtin().kind("", "v1", "Pod").expect("Pod");
    let object = json!({"metadata": {"finalizers": ["a", "b"]}});
    let change = json!({"metadata": {
        "$deleteFromPrimitiveList/finalizers": ["a"],
        "$setElementOrder/finalizers": ["c", "b"],
        "finalizers": ["c"]
    }});
    let merged = patch::strategic(&ty, &object, &change).unwrap();
    assert_eq!(merged, json!({"metadata": {"finalizers": ["c", "b"]}}));
}

#[test]
fn an_item_without_its_merge_key_is_refused() {
    let refused = pod_spec(json!({"containers": []}), json!({"containers": [{"image": "x"}]}));
    assert!(matches!(refused, Err(PatchError::Malformed { .. })));
}

#[test]
fn labels_merge_and_null_removes_one() {
    let ty = Schema::builtin().kind("apps", "v1", "Deployment").expect("Deployment");
    let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
    let merged =
        patch::strategic(&ty, &object, &json!({"metadata": {"labels": {"a": null, "c": "3"}}})).unwrap();
    assert_eq!(merged["metadata"]["labels"], json!({"b": "2", "c": "3"}));
}

#[test]
fn service_ports_merge_by_port() {
    let ty = Schema::builtin().kind("", "v1", "Service").expect("Service");
    let object = json!({"spec": {"ports": [{"port": 80, "nodePort": 30080}]}});
    let merged =
        patch::strategic(&ty, &object, &json!({"spec": {"ports": [{"port": 80, "name": "http"}]}})).unwrap();
    assert_eq!(merged["spec"]["ports"], json!([{"port": 80, "nodePort": 30080, "name": "http"}]));
}

#[test]
fn nulls_of_a_new_object_are_not_kept() {
    let ty = Schema::builtin().kind("apps", "v1", "Deployment").expect("Deployment");
    let change = json!({"spec": {"strategy": {"rollingUpdate": null, "type": "Recreate"}}});
    let merged = patch::strategic(&ty, &json!({"spec": {}}), &change).unwrap();
    assert_eq!(merged["spec"]["strategy"], json!({"type": "Recreate"}));
}
