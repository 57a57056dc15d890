//! What owners gain and lose, on built-in and custom types. Expected sets are upstream's for the same writes.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::claims::{Claim, Filter, Managed, Versions, Write};
use super::managers::{Manager, conflict_message};
use super::set::Set;
use super::{combine, walk};
use crate::structural::custom_type;
use crate::{Gvk, Schema, TypeRef};

/// One version only.
struct Only(TypeRef, &'static str);

impl Versions for Only {
    fn convert<'v>(&self, object: &'v Value, api_version: &str) -> Option<(TypeRef, Cow<'v, Value>)> {
        (api_version == self.1).then(|| (self.0.clone(), Cow::Borrowed(object)))
    }

    fn back(&self, object: Value, _: &str) -> Value {
        object
    }
}

fn kind(group: &str, version: &str, kind: &str) -> TypeRef {
    Schema::builtin().kind(group, version, kind).unwrap()
}

fn custom(schema: Value) -> TypeRef {
    let gvk = Gvk { group: "a.b".into(), version: "v1".into(), kind: "Thing".into() };
    custom_type(&gvk, "ThingList", &schema).unwrap()
}

/// An object whose owners are followed through writes.
struct Story {
    versions: Only,
    filter: Filter,
    object: Value,
    managed: Managed,
    now: u32,
}

impl Story {
    fn new(ty: TypeRef, api_version: &'static str) -> Story {
        let versions = Only(ty, api_version);
        Story { versions, filter: Filter::default(), object: json!({}), managed: Managed::default(), now: 0 }
    }

    fn write<T>(&mut self, act: impl FnOnce(&Write<'_>, Managed, &Value) -> T) -> T {
        self.now += 1;
        let now = self.now.to_string();
        let write =
            Write { versions: &self.versions, filter: &self.filter, api_version: self.versions.1, now: &now };
        act(&write, self.managed.clone(), &self.object)
    }

    fn update(&mut self, name: &str, new: Value) -> &mut Self {
        let manager = Manager::updating(name, self.versions.1, "");
        self.managed = self.write(|write, managed, old| write.update(manager, managed, old, &new));
        self.object = new;
        self
    }

    fn try_apply(&mut self, name: &str, config: Value, force: bool) -> Result<(), String> {
        let manager = Manager::applying(name, "");
        let applied = self.write(|write, managed, live| write.apply(&manager, managed, live, &config, force));
        let applied = applied.map_err(|conflicts| conflict_message(&conflicts))?;
        (self.object, self.managed) = (applied.object, applied.managed);
        Ok(())
    }

    fn apply(&mut self, name: &str, config: Value) -> &mut Self {
        self.try_apply(name, config, false).unwrap();
        self
    }

    fn owned(&self, name: &str) -> Value {
        let of_name = self.managed.claims.iter().filter(|(manager, _)| manager.name == name);
        of_name.fold(Set::default(), |all, (_, claim)| all.union(claim.set().into_owned())).to_fields_v1()
    }
}

fn deployments() -> Story {
    Story::new(kind("apps", "v1", "Deployment"), "apps/v1")
}

fn config_maps() -> Story {
    Story::new(kind("", "v1", "ConfigMap"), "v1")
}

#[test]
fn a_creator_owns_leaves_items_and_what_could_be_absent() {
    let mut story = deployments();
    story.update(
        "kubectl-create",
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": "i", "resources": {},
                             "ports": [{"containerPort": 80, "protocol": "TCP"}]}]},
                },
            },
        }),
    );
    let expected = json!({
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {
            "f:replicas": {}, "f:selector": {},
            "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
            "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {
                    ".": {}, "f:name": {}, "f:image": {}, "f:resources": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}":
                        {".": {}, "f:containerPort": {}, "f:protocol": {}}},
                }}},
            },
        },
    });
    assert_eq!(story.owned("kubectl-create"), expected);
}

#[test]
fn an_applier_owns_what_it_names() {
    let mut story = deployments();
    story.apply(
        "me",
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"template": {"spec": {"containers": [
                {"name": "web", "ports": [{"containerPort": 80}], "command": ["a"], "resources": {}}]}}},
        }),
    );
    let expected = json!({
        "f:metadata": {"f:labels": {"f:app": {}}},
        "f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {
            ".": {}, "f:name": {}, "f:command": {}, "f:resources": {},
            "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
        }}}}},
    });
    assert_eq!(story.owned("me"), expected);
}

#[test]
fn what_an_applier_leaves_out_goes_unless_another_owns_it() {
    let mut story = config_maps();
    story.apply("a", json!({"data": {"one": "1", "two": "2", "three": "3"}}));
    story.apply("b", json!({"data": {"two": "2"}}));
    story.update("c", json!({"data": {"one": "1", "two": "2", "three": "3", "four": "4"}}));
    story.apply("a", json!({"data": {"one": "1"}}));
    assert_eq!(story.object["data"], json!({"one": "1", "two": "2", "four": "4"}));
    story.apply("a", json!({}));
    assert_eq!(story.object["data"], json!({"two": "2", "four": "4"}));
    assert_eq!(story.owned("a"), json!({}));
    assert_eq!(story.owned("b"), json!({"f:data": {"f:two": {}}}));
}

#[test]
fn the_last_key_takes_its_map_along() {
    let mut story = config_maps();
    story.apply("a", json!({"metadata": {"name": "x", "labels": {"l": "1"}}, "data": {"one": "1"}}));
    story.apply("a", json!({"metadata": {"name": "x"}}));
    assert_eq!(story.object, json!({"metadata": {"name": "x"}}));
}

#[test]
fn a_conflict_names_every_field_and_owner() {
    let mut story = deployments();
    let template = |image: &str| json!({"spec": {"containers": [{"name": "c", "image": image}]}});
    story.apply("a", json!({"spec": {"replicas": 1, "template": template("one")}}));
    story.update("scaler", json!({"spec": {"replicas": 5, "template": template("one")}}));
    let refused = story.try_apply("b", json!({"spec": {"replicas": 2, "template": template("two")}}), false);
    let expected = "Apply failed with 2 conflicts: conflicts with \"a\":\n\
                    - .spec.template.spec.containers[name=\"c\"].image\n\
                    conflicts with \"scaler\" using apps/v1:\n- .spec.replicas";
    assert_eq!(refused.unwrap_err(), expected);
    let refused = story.try_apply("b", json!({"spec": {"replicas": 2}}), false);
    assert_eq!(
        refused.unwrap_err(),
        "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas"
    );
    story.try_apply("b", json!({"spec": {"replicas": 2}}), true).unwrap();
    assert_eq!(story.object["spec"]["replicas"], 2);
    assert_eq!(story.owned("scaler"), json!({}));
    assert_eq!(story.owned("b"), json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn equal_values_are_owned_together() {
    let mut story = config_maps();
    story.apply("a", json!({"data": {"one": "1"}})).apply("b", json!({"data": {"one": "1"}}));
    assert_eq!(story.owned("a"), story.owned("b"));
    story.apply("a", json!({"data": {}}));
    assert_eq!(story.object["data"], json!({"one": "1"}));
    let refused = story.try_apply("a", json!({"data": {"one": "2"}}), false).unwrap_err();
    assert_eq!(refused, "Apply failed with 1 conflict: conflict with \"b\": .data.one");
}

#[test]
fn an_update_takes_what_it_changes_and_the_time_is_that_of_a_change() {
    let mut story = config_maps();
    story.apply("a", json!({"data": {"one": "1", "two": "2"}}));
    story.update("c", json!({"data": {"one": "x", "two": "2"}}));
    assert_eq!(story.owned("a"), json!({"f:data": {"f:two": {}}}));
    assert_eq!(story.owned("c"), json!({"f:data": {"f:one": {}}}));
    let time = |story: &Story| -> Vec<Option<String>> {
        story.managed.claims.values().map(|c: &Claim| c.time.clone()).collect()
    };
    let before = time(&story);
    let same = story.object.clone();
    story.update("c", same);
    story.try_apply("a", json!({"data": {"two": "2"}}), false).unwrap();
    assert_eq!(time(&story), before, "nothing has changed");
    let gone = json!({"data": {"one": "x"}});
    story.update("c", gone);
    assert_eq!(story.owned("a"), json!({}), "what is gone has no owner");
}

#[test]
fn what_a_filter_keeps_out_is_neither_owned_nor_a_conflict() {
    let mut story = deployments();
    story.update("controller", json!({"spec": {"replicas": 1}, "status": {"replicas": 1}}));
    story.filter = Filter { within: &[], without: Set::of([&["status"][..]]) };
    story.apply("me", json!({"spec": {"paused": true}, "status": {"replicas": 9}}));
    assert_eq!(story.owned("me"), json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(story.owned("controller")["f:status"], json!({"f:replicas": {}}));
}

#[test]
fn items_keep_the_order_of_the_config_and_the_places_of_others() {
    let env = |names: &[&str]| -> Value {
        let items: Vec<Value> = names.iter().map(|n| json!({"name": n})).collect();
        json!({"spec": {"containers": [{"name": "c", "env": items}]}})
    };
    let ty = kind("", "v1", "Pod");
    let table: &[(&[&str], &[&str], &[&str])] = &[
        (&["a", "b"], &["b", "a"], &["b", "a"]),
        (&["a", "x", "b"], &["b", "a"], &["x", "b", "a"]),
        (&["a", "x", "b"], &["a", "b"], &["a", "x", "b"]),
        (&["a", "b", "c"], &["d", "b"], &["a", "d", "b", "c"]),
        (&[], &["a"], &["a"]),
        (&["a"], &[], &["a"]),
    ];
    for (live, config, merged) in table {
        assert_eq!(combine::merge(&ty, &env(live), &env(config)), env(merged), "{live:?} {config:?}");
    }
}

#[test]
fn keys_that_are_left_out_have_their_defaults() {
    let ty = kind("", "v1", "Service");
    let live = json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "name": "a"}, {"port": 80, "protocol": "UDP"}]}});
    let config = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
    let merged = combine::merge(&ty, &live, &config);
    assert_eq!(
        merged["spec"]["ports"],
        json!([{"port": 80, "protocol": "TCP", "name": "a", "targetPort": 8080}, {"port": 80, "protocol": "UDP"}])
    );
}

#[test]
fn two_items_of_one_name_are_a_fault_of_a_config_and_one_thing_of_an_update() {
    let twice = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "a", "image": "2"}]}});
    let ty = kind("", "v1", "Pod");
    assert_eq!(walk::faults_of(&ty, &twice), [".spec.containers: duplicate entries for key [name=\"a\"]"]);
    let nameless = json!({"spec": {"containers": [{"image": "1"}]}});
    assert_eq!(
        walk::faults_of(&ty, &nameless),
        [".spec.containers: element 0: associative list with keys has an element that omits all key fields \
          [\"name\"] (and doesn't have default values for any key fields)"]
    );
    let found = walk::compare(&ty, &json!({"spec": {"containers": [{"name": "a", "image": "1"}]}}), &twice);
    assert_eq!(found.added.to_fields_v1(), json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {}}}}));
}

#[test]
fn custom_types_say_how_their_lists_and_maps_are_owned() {
    let item = json!({"type": "object", "properties": {"id": {"type": "string"}, "v": {"type": "integer"}}});
    let keyed = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"], "items": item});
    let ty = custom(json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "keyed": keyed, "plain": {"type": "array", "items": item},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}}}));
    let mut story = Story::new(ty, "a.b/v1");
    story.apply(
        "me",
        json!({"spec": {
            "keyed": [{"id": "1", "v": 1}], "plain": [{"id": "1"}], "tags": ["t"], "whole": {"a": "b"},
            "free": {"x": {"y": [1]}},
        }}),
    );
    let expected = json!({"f:spec": {
        "f:keyed": {"k:{\"id\":\"1\"}": {".": {}, "f:id": {}, "f:v": {}}},
        "f:plain": {}, "f:tags": {"v:\"t\"": {}}, "f:whole": {},
        // What no schema describes is owned by what it looks like: keys of maps, lists as a whole.
        "f:free": {"f:x": {".": {}, "f:y": {}}},
    }});
    assert_eq!(story.owned("me"), expected);
    story.update(
        "other",
        json!({"spec": {
            "keyed": [{"id": "1", "v": 1}, {"id": "2", "v": 2}], "plain": [{"id": "1"}], "tags": ["t", "u"],
            "whole": {"a": "b"}, "free": {"x": {"y": [1], "z": 1}},
        }}),
    );
    story.apply("me", json!({"spec": {"keyed": []}}));
    // Whoever owns a key or an item takes along what others put into it.
    assert_eq!(story.object["spec"], json!({"keyed": [{"id": "2", "v": 2}], "tags": ["u"]}));
}

#[test]
fn the_oldest_updaters_become_one() {
    let mut story = config_maps();
    for n in 0..14 {
        let mut data = story.object["data"].clone();
        data[format!("k{n}")] = "v".into();
        story.now = 10 + n;
        story.update(&format!("m{n:02}"), json!({"data": data}));
        story.managed.cap();
    }
    assert_eq!(story.managed.claims.len(), Managed::UPDATERS_MAX);
    let ancient = story.owned("ancient-changes");
    assert_eq!(ancient["f:data"].as_object().map(|o| o.len()), Some(6), "{ancient}");
    assert_eq!(story.owned("m13"), json!({"f:data": {"f:k13": {}}}));
}

#[test]
fn the_list_is_read_and_written_alike() {
    let mut story = config_maps();
    story.update("z", json!({"data": {"one": "1"}}));
    story.apply("b", json!({"data": {"two": "2"}}));
    story.apply("a", json!({"data": {"three": "3"}}));
    let written = Value::Array(story.managed.clone().write());
    let order: Vec<&str> =
        written.as_array().unwrap().iter().map(|e| e["manager"].as_str().unwrap()).collect();
    assert_eq!(order, ["b", "a", "z"], "appliers first, then by time");
    assert_eq!(Managed::read(Some(&written)).unwrap(), story.managed);
    assert_eq!(Managed::read_written(Some(written.clone())), story.managed);
    let mut broken = written.clone();
    broken[0]["operation"] = "Guess".into();
    assert!(Managed::read(Some(&broken)).is_err());
}
