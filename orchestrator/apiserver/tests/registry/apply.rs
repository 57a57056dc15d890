//! Who owns which field after writes of every kind, and server-side apply.

use std::sync::Arc;

use penstock_apiserver::error::ApiError;
use penstock_apiserver::registry::{
    Body, Context, Definition, FieldValidation, Outcome, PatchKind, Target, User,
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, pod};
use crate::custom::{established, widgets};

/// Somebody who writes.
struct Writer<'a> {
    cluster: &'a Cluster,
    definition: Arc<Definition>,
    manager: &'a str,
    force: bool,
    subresource: Option<&'a str>,
    validation: FieldValidation,
    dry_run: bool,
}

impl<'a> Writer<'a> {
    fn new(cluster: &'a Cluster, plural: &str, manager: &'a str) -> Self {
        let (definition, validation) = (cluster.kind(plural), FieldValidation::Warn);
        Self { cluster, definition, manager, force: false, subresource: None, validation, dry_run: false }
    }

    fn of(self, subresource: &'a str) -> Self {
        Self { subresource: Some(subresource), ..self }
    }

    fn forced(self) -> Self {
        Self { force: true, ..self }
    }

    fn context(&self) -> Context {
        let mut context = Context::new(User::system("test"));
        context.field_manager = Some(self.manager.into());
        context.force = self.force;
        context.field_validation = self.validation;
        context.dry_run = self.dry_run;
        context
    }

    fn target(&self, name: &str) -> Target {
        let target = Target::named(self.definition.namespaced.then_some("default"), name);
        Target { subresource: self.subresource.map(Into::into), ..target }
    }

    async fn patch(&self, kind: PatchKind, name: &str, text: String) -> Result<Outcome, ApiError> {
        let registry = &self.cluster.registry;
        registry.patch(&self.context(), &self.definition, &self.target(name), kind, text.into()).await
    }

    async fn try_apply(&self, name: &str, config: &Value) -> Result<Outcome, ApiError> {
        self.patch(PatchKind::Apply, name, config.to_string()).await
    }

    async fn apply(&self, name: &str, config: Value) -> Value {
        self.try_apply(name, &config).await.unwrap_or_else(|e| panic!("{e}")).object.value()
    }

    async fn refused(&self, name: &str, config: Value) -> ApiError {
        self.try_apply(name, &config).await.expect_err("refused")
    }

    async fn create(&self, object: Value) -> Value {
        let target = Target::collection(self.definition.namespaced.then_some("default"));
        let body = Body::Json(object.to_string().into());
        let made = self.cluster.registry.create(&self.context(), &self.definition, &target, body).await;
        made.unwrap_or_else(|e| panic!("{e}")).object.value()
    }

    async fn update(&self, object: &Value) -> Value {
        let name = object["metadata"]["name"].as_str().unwrap();
        let body = Body::Json(object.to_string().into());
        let registry = &self.cluster.registry;
        let done = registry.update(&self.context(), &self.definition, &self.target(name), body).await;
        done.unwrap_or_else(|e| panic!("{e}")).object.value()
    }
}

/// Managers of an object as `manager operation version subresource`, in order.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("-").to_owned();
    entries
        .iter()
        .map(|e| ["manager", "operation", "apiVersion", "subresource"].map(|f| text(e, f)).join(" "))
        .collect()
}

fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let found = entries.into_iter().find(|entry| entry["manager"] == manager);
    found.map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

fn deployment(replicas: Option<u32>) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    });
    if let Some(replicas) = replicas {
        object["spec"]["replicas"] = replicas.into();
    }
    object
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

#[tokio::test]
async fn every_write_is_noted_under_its_manager() {
    let cluster = Cluster::start().await;
    let made = Writer::new(&cluster, "deployments", "maker").create(deployment(Some(1))).await;
    assert_eq!(managers(&made), ["maker Update apps/v1 -"]);
    let spec = &owned(&made, "maker")["f:spec"];
    assert_eq!(spec["f:replicas"], json!({}));
    assert_eq!(spec["f:progressDeadlineSeconds"], json!({}), "what defaults fill in is the creator's");
    assert!(owned(&made, "maker").get("f:status").is_none(), "the status is nobody's yet");
    assert!(made["metadata"]["managedFields"][0]["time"].is_string());

    let controller = Writer::new(&cluster, "deployments", "controller").of("status");
    let mut status = made.clone();
    status["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    status["spec"]["replicas"] = json!(7);
    let after = controller.update(&status).await;
    assert_eq!(after["spec"]["replicas"], 1);
    assert_eq!(managers(&after), ["controller Update apps/v1 status", "maker Update apps/v1 -"]);
    assert_eq!(
        owned(&after, "controller"),
        json!({"f:status": {"f:replicas": {}, "f:conditions":
            {".": {}, "k:{\"type\":\"Available\"}": {".": {}, "f:type": {}, "f:status": {}}}}})
    );

    let scaler = Writer::new(&cluster, "deployments", "scaler").of("scale");
    scaler.patch(PatchKind::Merge, "web", json!({"spec": {"replicas": 3}}).to_string()).await.unwrap();
    let after = cluster.get("deployments", "web").await.unwrap();
    assert_eq!(after["spec"]["replicas"], 3);
    assert!(managers(&after).contains(&"scaler Update apps/v1 scale".to_owned()), "{:?}", managers(&after));
    assert_eq!(owned(&after, "scaler"), json!({"f:spec": {"f:replicas": {}}}));
    assert!(owned(&after, "maker")["f:spec"].get("f:replicas").is_none());

    let patcher = Writer::new(&cluster, "deployments", "patcher");
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "j"}]}}}});
    let after = patcher.patch(PatchKind::Strategic, "web", patch.to_string()).await.unwrap().object.value();
    let container =
        |of: &Value| of["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"].clone();
    assert_eq!(container(&owned(&after, "patcher")), json!({"f:image": {}}));
    assert!(container(&owned(&after, "maker")).get("f:image").is_none());
}

#[tokio::test]
async fn a_binding_and_a_deletion_are_nobodys() {
    let cluster = Cluster::start().await.with_account().await;
    let made = Writer::new(&cluster, "pods", "maker").create(pod("p")).await;
    let before = made["metadata"]["managedFields"].clone();
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": "n"}});
    let target = cluster.target("pods", "p").with_subresource("binding");
    let context = Writer::new(&cluster, "pods", "scheduler").context();
    let body = Body::Json(binding.to_string().into());
    cluster.registry.create(&context, &cluster.kind("pods"), &target, body).await.unwrap();
    let bound = cluster.get("pods", "p").await.unwrap();
    assert_eq!(bound["spec"]["nodeName"], "n");
    assert_eq!(bound["metadata"]["managedFields"], before);
}

#[tokio::test]
async fn what_changes_nothing_writes_nothing() {
    let cluster = Cluster::start().await;
    let writer = Writer::new(&cluster, "configmaps", "a");
    let made = writer.apply("m", config_map(json!({"k": "1"}))).await;
    assert_eq!(writer.apply("m", config_map(json!({"k": "1"}))).await, made);
    let updater = Writer::new(&cluster, "configmaps", "b");
    assert_eq!(updater.update(&made).await, made);
    let mut unaware = made.clone();
    unaware["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!(updater.update(&unaware).await, made, "a client that knows no owners loses none");
}

#[tokio::test]
async fn apply_creates_changes_and_removes() {
    let cluster = Cluster::start().await;
    let writer = Writer::new(&cluster, "configmaps", "a");
    let made = writer.try_apply("m", &config_map(json!({"one": "1", "two": "2"}))).await.unwrap();
    assert!(made.created);
    assert_eq!(managers(&made.object.value()), ["a Apply v1 -"]);
    let changed = writer.try_apply("m", &config_map(json!({"one": "x"}))).await.unwrap();
    assert!(!changed.created);
    assert_eq!(changed.object.value()["data"], json!({"one": "x"}));

    let other = Writer::new(&cluster, "configmaps", "b");
    let refused = other.refused("m", config_map(json!({"one": "y"}))).await;
    assert_eq!((refused.code, refused.reason), (409, "Conflict"));
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"a\": .data.one");
    assert_eq!(
        refused.status()["details"],
        json!({"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"a\"", "field": ".data.one"}]})
    );
    let taken = other.forced().apply("m", config_map(json!({"one": "y"}))).await;
    assert_eq!(taken["data"], json!({"one": "y"}));
    assert_eq!(managers(&taken), ["b Apply v1 -"]);
    let still =
        writer.apply("m", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}})).await;
    assert_eq!(still["data"], json!({"one": "y"}), "it is b's now");
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused() {
    let cluster = Cluster::start().await;
    let writer = Writer::new(&cluster, "configmaps", "a");
    let with = |field: &str, value: Value| {
        let mut config = config_map(json!({"k": "1"}));
        config["metadata"][field] = value;
        config
    };
    let mut kindless = config_map(json!({}));
    kindless["kind"] = "Secret".into();
    let table = [
        (with("managedFields", json!([])), 400, "metadata.managedFields must be nil"),
        (with("managedFields", json!([{}])), 400, "metadata.managedFields must be nil"),
        (
            with("name", "other".into()),
            400,
            "the name of the object (other) does not match the name on the URL (m)",
        ),
        (
            with("namespace", "other".into()),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            with("uid", "x".into()),
            409,
            "Operation cannot be fulfilled on configmaps \"m\": uid mismatch: the provided object specified uid x, and no existing object was found",
        ),
        (
            with("resourceVersion", "7".into()),
            409,
            "Operation cannot be fulfilled on configmaps \"m\": the object has been modified; please apply your changes to the latest version and try again",
        ),
        (kindless, 400, "invalid object type: /v1, Kind=Secret"),
        (json!({"metadata": {"name": "m"}}), 400, "invalid object type: /, Kind="),
        (
            config_map(json!({"k": ["1"]})),
            500,
            "failed to create typed patch object (default/m; /v1, Kind=ConfigMap): .data.k: expected string, got array",
        ),
    ];
    for (config, code, message) in table {
        let refused = writer.refused("m", config).await;
        assert_eq!((refused.code, refused.message.as_str()), (code, message));
    }
    let generated = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "m-"}});
    let refused = writer.refused("m", generated).await;
    assert!(refused.message.contains("was undeterminable: name must be provided"), "{refused}");
    assert!(cluster.get("configmaps", "m").await.is_err(), "nothing was made");

    let deployments = Writer::new(&cluster, "deployments", "a");
    let mut config = deployment(Some(1));
    config["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x".into();
    config["spec"]["replicass"] = 1.into();
    assert_eq!(
        deployments.refused("web", config).await.message,
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): errors:\n  \
         .spec.replicass: field not declared in schema\n  \
         .spec.template.spec.containers[name=\"c\"].imagee: field not declared in schema"
    );
    let mut config = deployment(Some(1));
    let containers = config["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
    containers.push(containers[0].clone());
    assert_eq!(
        deployments.refused("web", config).await.message,
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): \
         .spec.template.spec.containers: duplicate entries for key [name=\"c\"]"
    );
    let bomb = format!("apiVersion: v1\nkind: ConfigMap\ndata: {}{}", "[".repeat(5000), "]".repeat(5000));
    let refused = writer.patch(PatchKind::Apply, "m", bomb).await.unwrap_err();
    assert!(refused.code >= 400 && !refused.message.is_empty());
}

#[tokio::test]
async fn twice_given_fields_are_told_as_asked() {
    let cluster = Cluster::start().await;
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {k: \"1\", k: \"2\"}\n";
    let mut writer = Writer::new(&cluster, "configmaps", "a");
    writer.validation = FieldValidation::Strict;
    let refused = writer.patch(PatchKind::Apply, "m", text.into()).await.unwrap_err();
    assert_eq!(refused.code, 400);
    assert_eq!(refused.message, "error strict decoding YAML: duplicate field \"data.k\"");
    writer.validation = FieldValidation::Warn;
    writer.patch(PatchKind::Apply, "m", text.into()).await.unwrap();
}

#[tokio::test]
async fn a_version_or_uid_that_is_not_there_is_a_conflict() {
    let cluster = Cluster::start().await;
    let writer = Writer::new(&cluster, "configmaps", "a");
    let made = writer.apply("m", config_map(json!({"k": "1"}))).await;
    let mut config = config_map(json!({"k": "2"}));
    config["metadata"]["resourceVersion"] = "1".into();
    assert_eq!(writer.refused("m", config.clone()).await.reason, "Conflict");
    config["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    config["metadata"]["uid"] = "another".into();
    assert_eq!(writer.refused("m", config.clone()).await.reason, "Conflict");
    config["metadata"]["uid"] = made["metadata"]["uid"].clone();
    assert_eq!(writer.apply("m", config).await["data"]["k"], "2");
}

#[tokio::test]
async fn a_dry_run_applies_and_keeps_nothing() {
    let cluster = Cluster::start().await;
    let mut writer = Writer::new(&cluster, "configmaps", "a");
    writer.dry_run = true;
    let made = writer.try_apply("m", &config_map(json!({"k": "1"}))).await.unwrap();
    assert!(made.created);
    assert!(cluster.get("configmaps", "m").await.is_err());
    writer.dry_run = false;
    writer.apply("m", config_map(json!({"k": "1"}))).await;
    writer.dry_run = true;
    assert_eq!(writer.apply("m", config_map(json!({}))).await.get("data"), None);
    assert_eq!(cluster.get("configmaps", "m").await.unwrap()["data"], json!({"k": "1"}));
}

#[tokio::test]
async fn subresources_are_applied_to() {
    let cluster = Cluster::start().await;
    let status = Writer::new(&cluster, "deployments", "c").of("status");
    let absent = status.refused("web", deployment(None)).await;
    assert!(absent.is_not_found(), "a subresource makes no object");
    Writer::new(&cluster, "deployments", "a").apply("web", deployment(Some(1))).await;
    let mut config = deployment(Some(9));
    config["status"] = json!({"observedGeneration": 1});
    let after = status.apply("web", config).await;
    assert_eq!(
        (after["spec"]["replicas"].clone(), after["status"].clone()),
        (json!(1), json!({"observedGeneration": 1}))
    );
    assert_eq!(owned(&after, "c"), json!({"f:status": {"f:observedGeneration": {}}}));
    assert_eq!(managers(&after), ["a Apply apps/v1 -", "c Apply apps/v1 status"]);

    let scale = |replicas: u32| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": replicas}});
    let scaler = Writer::new(&cluster, "deployments", "s").of("scale");
    let refused = scaler.refused("web", scale(4)).await;
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
    assert_eq!(scaler.forced().apply("web", scale(4)).await["spec"]["replicas"], 4);
    let after = cluster.get("deployments", "web").await.unwrap();
    assert_eq!(owned(&after, "s"), json!({"f:spec": {"f:replicas": {}}}));
    let refused = Writer::new(&cluster, "deployments", "a").refused("web", deployment(Some(1))).await;
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"s\" with subresource \"scale\": .spec.replicas"
    );
    let given_up = Writer::new(&cluster, "deployments", "a").apply("web", deployment(None)).await;
    assert_eq!(given_up["spec"]["replicas"], 4, "the scaler keeps what the applier gave up");
}

#[tokio::test]
async fn owners_are_cleared_and_begin_again_with_an_apply() {
    let cluster = Cluster::start().await;
    let writer = Writer::new(&cluster, "configmaps", "a");
    for cleared in [json!([]), json!([{}])] {
        let mut made = writer.apply("m", config_map(json!({"k": "1"}))).await;
        assert!(!managers(&made).is_empty());
        made["metadata"]["managedFields"] = cleared;
        let after = writer.update(&made).await;
        assert_eq!(managers(&after), Vec::<String>::new());
        let mut changed = after.clone();
        changed["data"]["k"] = "2".into();
        let after = writer.update(&changed).await;
        assert_eq!(managers(&after), Vec::<String>::new(), "nobody tracks it");
        let refused = writer.refused("m", config_map(json!({"k": "3"}))).await;
        assert!(
            refused.message.contains("conflict with \"before-first-apply\" using v1: .data.k"),
            "{refused}"
        );
        let changed =
            Writer::new(&cluster, "configmaps", "a").forced().apply("m", config_map(json!({"k": "1"}))).await;
        assert_eq!(managers(&changed), ["a Apply v1 -", "before-first-apply Update v1 -"]);
        assert_eq!(owned(&changed, "before-first-apply"), json!({"f:data": {}}), "the map itself is left");
    }
    let mut made = cluster.get("configmaps", "m").await.unwrap();
    let before = made["metadata"]["managedFields"].clone();
    for nonsense in [
        json!([{"manager": "x"}]),
        json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"spec": {}}}]),
    ] {
        made["metadata"]["managedFields"] = nonsense;
        assert_eq!(
            writer.update(&made).await["metadata"]["managedFields"],
            before,
            "what cannot be read is not taken"
        );
    }
    let entries = json!([{"manager": "x".repeat(200), "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}}}]);
    made["metadata"]["managedFields"] = entries;
    let refused = cluster.update("configmaps", None, &made).await.unwrap_err();
    assert!(refused.message.contains("metadata.managedFields[0].manager: Too long"), "{refused}");
}

#[tokio::test]
async fn kubectl_takes_over_what_it_applied_by_itself() {
    let cluster = Cluster::start().await;
    let last = config_map(json!({"k": "1"}));
    let mut object = config_map(json!({"k": "1", "other": "1"}));
    object["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": last.to_string()});
    Writer::new(&cluster, "configmaps", "kubectl-client-side-apply").create(object).await;
    let kubectl = Writer::new(&cluster, "configmaps", "kubectl");
    let refused = kubectl.refused("m", config_map(json!({"k": "2", "other": "2"}))).await;
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .data.other"
    );
    let refused = Writer::new(&cluster, "configmaps", "me").refused("m", config_map(json!({"k": "2"}))).await;
    assert!(refused.is_conflict(), "only kubectl's own");
    let after = kubectl.apply("m", config_map(json!({"k": "2"}))).await;
    assert_eq!(after["data"], json!({"k": "2", "other": "1"}));
    let noted = &after["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert_eq!(noted.as_str().unwrap(), format!("{}\n", config_map(json!({"k": "2"}))));
}

#[tokio::test]
async fn versions_of_a_kind_share_owners() {
    let cluster = Cluster::start().await;
    let spec = json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 5});
    let of = |version: &str, spec: &Value| {
        json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h"}, "spec": spec})
    };
    let definition =
        |version: &str| cluster.registry.find("autoscaling", version, "horizontalpodautoscalers").unwrap();
    let mut one = Writer::new(&cluster, "horizontalpodautoscalers", "one");
    one.definition = definition("v1");
    let mut v1 = spec.clone();
    v1["targetCPUUtilizationPercentage"] = 60.into();
    one.apply("h", of("v1", &v1)).await;
    let mut two = Writer::new(&cluster, "horizontalpodautoscalers", "two");
    two.definition = definition("v2");
    let mut v2 = spec.clone();
    v2["maxReplicas"] = 9.into();
    assert_eq!(
        two.refused("h", of("v2", &v2)).await.message,
        "Apply failed with 1 conflict: conflict with \"one\": .spec.maxReplicas"
    );
    two.apply("h", of("v2", &spec)).await;
    let after = one.apply("h", of("v1", &spec)).await;
    assert!(after["spec"].get("targetCPUUtilizationPercentage").is_none(), "{}", after["spec"]);
    assert_eq!(managers(&after), ["one Apply autoscaling/v1 -", "two Apply autoscaling/v2 -"]);
}

#[tokio::test]
async fn custom_kinds_are_owned_by_their_schema() {
    let cluster = Cluster::start().await;
    let mut crd = widgets();
    let item = json!({"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "n": {"type": "integer"}}});
    let properties =
        &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    properties["parts"] = json!({"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]});
    properties["plain"] = json!({"type": "array", "items": item});
    cluster.create("customresourcedefinitions", crd).await.unwrap();
    let definition = established(&cluster).await;
    let as_manager =
        |manager| Writer { definition: definition.clone(), ..Writer::new(&cluster, "pods", manager) };
    let config = |spec: Value| json!({"apiVersion": "shop.example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec});
    let (a, b) = (as_manager("a"), as_manager("b"));
    let made = a.apply("w", config(json!({"parts": [{"id": "1", "n": 1}], "plain": [{"id": "1"}]}))).await;
    assert_eq!(made["spec"]["size"], 3, "defaults are filled in");
    assert_eq!(
        owned(&made, "a"),
        json!({"f:spec": {"f:plain": {}, "f:parts": {"k:{\"id\":\"1\"}": {".": {}, "f:id": {}, "f:n": {}}}}}),
        "and are nobody's"
    );
    let both = b.apply("w", config(json!({"parts": [{"id": "2", "n": 2}]}))).await;
    assert_eq!(both["spec"]["parts"], json!([{"id": "1", "n": 1}, {"id": "2", "n": 2}]));
    let refused = b.refused("w", config(json!({"plain": []}))).await;
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"a\": .spec.plain");
    let left = a.apply("w", config(json!({}))).await;
    assert_eq!(left["spec"], json!({"size": 3, "parts": [{"id": "2", "n": 2}]}));
    assert_eq!(
        a.refused("w", config(json!({"sizee": 1}))).await.message,
        "failed to create typed patch object (default/w; shop.example.com/v1, Kind=Widget): .spec.sizee: field not \
         declared in schema"
    );
    let status = Writer { subresource: Some("status"), ..as_manager("s") };
    let mut config = config(json!({"size": 9}));
    config["metadata"]["labels"] = json!({"l": "1"});
    config["status"] = json!({"any": {"thing": [1]}});
    let after = status.apply("w", config).await;
    assert_eq!(owned(&after, "s"), json!({"f:status": {"f:any": {".": {}, "f:thing": {}}}}));
    assert_eq!((&after["spec"]["size"], after["metadata"].get("labels")), (&json!(3), None));
}

#[tokio::test]
async fn owners_survive_protobuf() {
    let cluster = Cluster::start().await;
    let writer = Writer::new(&cluster, "deployments", "a");
    let made = writer.try_apply("web", &deployment(Some(1))).await.unwrap().object;
    let bytes = made.protobuf().unwrap();
    let read = penstock_schema::protobuf::decode(&writer.definition.ty, &bytes).unwrap();
    assert_eq!(read["metadata"]["managedFields"], made.value()["metadata"]["managedFields"]);
}

#[tokio::test]
async fn a_json_patch_reaches_the_owners() {
    let cluster = Cluster::start().await;
    let writer = Writer::new(&cluster, "configmaps", "a");
    writer.apply("m", config_map(json!({"k": "1"}))).await;
    let patch = json!([
        {"op": "test", "path": "/metadata/managedFields/0/manager", "value": "a"},
        {"op": "replace", "path": "/metadata/managedFields/0/manager", "value": "renamed"},
    ]);
    let after = writer.patch(PatchKind::Json, "m", patch.to_string()).await.unwrap().object.value();
    assert_eq!(managers(&after), ["renamed Apply v1 -"]);
}

#[tokio::test]
async fn many_updaters_are_kept_few() {
    let cluster = Cluster::start().await;
    Writer::new(&cluster, "configmaps", "m").create(config_map(json!({"k": "v"}))).await;
    for n in 0..14 {
        let manager = format!("manager-{n:02}");
        let patch = json!({"data": {format!("k{n}"): "v"}}).to_string();
        Writer::new(&cluster, "configmaps", &manager).patch(PatchKind::Merge, "m", patch).await.unwrap();
    }
    let object = cluster.get("configmaps", "m").await.unwrap();
    assert_eq!(managers(&object).len(), 10);
    assert!(managers(&object).iter().any(|m| m.starts_with("ancient-changes ")), "{:?}", managers(&object));
}
