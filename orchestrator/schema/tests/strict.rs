//! Unknown and duplicate fields, wrong types and hostile documents: exact paths, no panics.

use penstock_schema::{DecodeError, Issue, Schema, TypeRef, check, json, yaml};
use serde_json::json;

fn ty(group: &str, kind: &str) -> TypeRef {
    Schema::builtin().kind(group, "v1", kind).expect("a kind")
}

fn unknown(path: &str) -> Issue {
    Issue::Unknown { path: path.into() }
}

fn duplicate(path: &str) -> Issue {
    Issue::Duplicate { path: path.into() }
}

#[test]
fn an_unknown_field_is_named_by_its_path_and_dropped() {
    let text = br#"{"spec":{"template":{"spec":{"containers":[{"name":"a","imagee":"x"}]}},"replicass":3}}"#;
    let decoded = json::decode(&ty("apps", "Deployment"), text).unwrap();
    assert_eq!(
        decoded.issues,
        [unknown("spec.template.spec.containers[0].imagee"), unknown("spec.replicass")]
    );
    assert_eq!(decoded.object, json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}]}}}}));
    assert_eq!(decoded.issues[1].to_string(), "unknown field \"spec.replicass\"");
}

#[test]
fn names_are_case_sensitive() {
    let decoded = json::decode(&ty("", "Pod"), br#"{"Spec":{},"metadata":{"Name":"x"}}"#).unwrap();
    assert_eq!(decoded.issues, [unknown("Spec"), unknown("metadata.Name")]);
}

#[test]
fn the_last_of_duplicate_fields_is_kept() {
    let text = br#"{"spec":{"replicas":1,"replicas":2},"metadata":{"labels":{"a":"1","a":"2"}}}"#;
    let decoded = json::decode(&ty("apps", "Deployment"), text).unwrap();
    assert_eq!(decoded.issues, [duplicate("spec.replicas"), duplicate("metadata.labels.a")]);
    assert_eq!(decoded.object, json!({"spec": {"replicas": 2}, "metadata": {"labels": {"a": "2"}}}));
}

#[test]
fn yaml_finds_the_same() {
    let text = "spec:\n  replicas: 1\n  replicas: 2\n  replicass: 3\n";
    let decoded = yaml::decode(&ty("apps", "Deployment"), text.as_bytes()).unwrap();
    assert_eq!(decoded.issues, [duplicate("spec.replicas"), unknown("spec.replicass")]);
}

#[test]
fn a_wrong_type_is_refused_with_its_path() {
    let error = json::decode(&ty("apps", "Deployment"), br#"{"spec":{"replicas":"three"}}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    let error = json::decode(&ty("", "Pod"), br#"{"spec":{"containers":[{"image":7}]}}"#).unwrap_err();
    assert!(matches!(error, DecodeError::Type { path, .. } if path == "spec.containers[0].image"));
    let error = json::decode(&ty("", "Pod"), br#"{"spec":[]}"#).unwrap_err();
    assert!(matches!(error, DecodeError::Type { expected, .. } if expected == "v1.PodSpec"));
    assert!(json::decode(&ty("", "Pod"), b"[]").is_err());
}

#[test]
fn forms_are_checked_and_normalised() {
    let pod = ty("", "Pod");
    let text = br#"{"metadata":{"creationTimestamp":null},"spec":{"containers":[{"resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}}}]}}"#;
    let decoded = json::decode(&pod, text).unwrap();
    assert_eq!(
        decoded.object,
        json!({"metadata": {}, "spec": {"containers": [{"resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}]}})
    );
    let wrong = json::decode(&pod, br#"{"metadata":{"creationTimestamp":"soon"}}"#).unwrap_err();
    assert!(matches!(wrong, DecodeError::Form { path, .. } if path == "metadata.creationTimestamp"));
    let secret = json::decode(&ty("", "Secret"), br#"{"data":{"k":"not base64!"}}"#).unwrap_err();
    assert!(matches!(secret, DecodeError::Form { path, .. } if path == "data.k"));
}

#[test]
fn yaml_reads_what_people_write() {
    let text = "
metadata: {labels: &l {app: web}}
spec:
  selector: {matchLabels: *l}
  template:
    metadata: {labels: *l}
    spec:
      hostNetwork: yes
      containers:
      - name: a
        args: [\"1\", \"true\"]
        ports: [{containerPort: 80}]
      volumes:
      - name: v
        configMap: {name: c, defaultMode: 0644}
";
    let decoded = yaml::decode(&ty("apps", "Deployment"), text.as_bytes()).unwrap();
    assert_eq!(decoded.issues, []);
    let spec = &decoded.object["spec"]["template"]["spec"];
    assert_eq!(spec["hostNetwork"], true);
    assert_eq!(spec["volumes"][0]["configMap"]["defaultMode"], 420);
    assert_eq!(decoded.object["spec"]["selector"]["matchLabels"]["app"], "web");
}

#[test]
fn yaml_merge_keys_lend_what_is_not_given() {
    let text = "
metadata:
  labels: &l {app: web, tier: front}
  annotations: {<<: *l, tier: back}
spec:
  template:
    spec:
      containers:
      - &c {name: a, image: \"x:1\", tty: true}
      - {<<: *c, name: b}
";
    let decoded = yaml::decode(&ty("apps", "Deployment"), text.as_bytes()).unwrap();
    assert_eq!(decoded.issues, []);
    assert_eq!(decoded.object["metadata"]["annotations"], json!({"app": "web", "tier": "back"}));
    let containers = &decoded.object["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[1], json!({"name": "b", "image": "x:1", "tty": true}));
}

#[test]
fn depth_bombs_are_refused() {
    let pod = ty("", "Pod");
    for opening in ["[", "{\"a\":", "{\"spec\":"] {
        let bomb = opening.repeat(200_000);
        assert!(json::decode(&pod, bomb.as_bytes()).is_err());
        assert!(yaml::decode(&pod, opening.repeat(2_000).as_bytes()).is_err());
    }
    let mut deep = json!({"type": "object"});
    for _ in 0..500 {
        deep = json!({"properties": {"a": deep}});
    }
    let crd = ty("apiextensions.k8s.io", "CustomResourceDefinition");
    let mut object = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": deep}}]}});
    assert!(matches!(check::conform(&crd, &mut object), Err(DecodeError::TooDeep { .. })));
}

#[test]
fn alias_bombs_are_refused() {
    let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for n in 1..12 {
        let before = n - 1;
        text.push_str(&format!(
            "a{n}: &a{n} [*a{before},*a{before},*a{before},*a{before},*a{before},*a{before}]\n"
        ));
    }
    text.push_str("data: *a11\n");
    assert!(yaml::decode(&ty("apps", "ControllerRevision"), text.as_bytes()).is_err());
}

#[test]
fn what_is_too_large_is_refused() {
    let text = vec![b' '; json::BYTES_MAX + 1];
    assert!(matches!(json::decode(&ty("", "Pod"), &text), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn broken_documents_say_where() {
    let pod = ty("", "Pod");
    assert!(matches!(json::decode(&pod, b"{\"a\":1,}"), Err(DecodeError::Syntax { .. })));
    assert!(matches!(json::decode(&pod, b"{} {}"), Err(DecodeError::Syntax { .. })));
    assert!(matches!(yaml::decode(&pod, b"a: [1"), Err(DecodeError::Yaml { .. })));
    assert!(matches!(yaml::decode(&pod, b"a: 1\n---\nb: 2\n"), Err(DecodeError::Yaml { .. })));
}

#[test]
fn a_result_of_a_patch_is_pruned() {
    let mut object = json!({"spec": {"replicas": 3, "extra": 1, "paused": null}});
    assert_eq!(check::conform(&ty("apps", "Deployment"), &mut object), Ok(vec![unknown("spec.extra")]));
    assert_eq!(object, json!({"spec": {"replicas": 3}}));
}

#[test]
fn free_form_fields_keep_everything() {
    let text = br#"{"data":{"anything":[1,null,{"Goes":true}]}}"#;
    let decoded = json::decode(&ty("apps", "ControllerRevision"), text).unwrap();
    assert_eq!(decoded.issues, []);
    assert_eq!(decoded.object, json!({"data": {"anything": [1, null, {"Goes": true}]}}));
}
