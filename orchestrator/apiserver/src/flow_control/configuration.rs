//! From stored FlowSchemas and PriorityLevelConfigurations to what requests are measured by. Pure.
//!
//! The mandatory objects are always there: where the store has none, or a broken one, they are imagined. A schema that
//! leads to no level is left out, and said to dangle.

use std::collections::BTreeMap;

use serde_json::Value;

use super::classify::FlowSchema;
use super::queues::Queuing;
use super::shares::Shares;
use crate::registry::bootstrap::flow_control as bootstrap;
use crate::registry::object::{items_at, meta_str, str_at};

/// A PriorityLevelConfiguration as it is worked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelSpec {
    pub name: String,
    pub uid: String,
    pub shares: Shares,
    pub queuing: Queuing,
}

/// What is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In the order they are asked. Each leads to one of `levels`, and the last takes everything.
    pub schemas: Vec<FlowSchema>,
    /// By name.
    pub levels: BTreeMap<String, LevelSpec>,
}

/// Whether the level a stored schema names is there: its `Dangling` condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub schema: String,
    pub level: String,
    pub found: bool,
}

// === impl Plan ===

impl Plan {
    pub fn of(schemas: &[Value], levels: &[Value]) -> Self {
        let mut specs: BTreeMap<String, LevelSpec> =
            levels.iter().filter_map(LevelSpec::read).map(|level| (level.name.clone(), level)).collect();
        for name in [bootstrap::EXEMPT, bootstrap::CATCH_ALL] {
            let imagined = bootstrap::mandatory("PriorityLevelConfiguration", name);
            if let (false, Some(level)) =
                (specs.contains_key(name), imagined.as_ref().and_then(LevelSpec::read))
            {
                specs.insert(name.to_owned(), level);
            }
        }
        let mut read: Vec<FlowSchema> =
            schemas.iter().map(FlowSchema::read).filter(|schema| specs.contains_key(&schema.level)).collect();
        for name in [bootstrap::EXEMPT, bootstrap::CATCH_ALL] {
            if !read.iter().any(|schema| schema.name == name) {
                read.extend(bootstrap::mandatory("FlowSchema", name).as_ref().map(FlowSchema::read));
            }
        }
        // catch-all takes what no other does, also where another has its precedence and a name behind it.
        let order = |schema: &FlowSchema| (schema.name == bootstrap::CATCH_ALL, schema.precedence);
        read.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.name.cmp(&b.name)));
        Self { schemas: read, levels: specs }
    }
}

// === impl LevelSpec ===

impl LevelSpec {
    /// `None` for an object that validation would refuse.
    fn read(object: &Value) -> Option<Self> {
        let (name, uid) = (meta_str(object, "name").to_owned(), meta_str(object, "uid").to_owned());
        let number = |pointer: &str| {
            object.pointer(pointer).and_then(Value::as_i64).map(|n| n.clamp(0, i64::from(i32::MAX)) as u32)
        };
        let is_exempt = str_at(object, "/spec/type") == "Exempt";
        if is_exempt != (name == bootstrap::EXEMPT) {
            return None;
        }
        let part = if is_exempt { "exempt" } else { "limited" };
        let of = |field: &str| number(&format!("/spec/{part}/{field}"));
        let queuing = match str_at(object, "/spec/limited/limitResponse/type") {
            _ if is_exempt => Queuing::Exempt,
            "Reject" => Queuing::Reject,
            "Queue" => {
                let of = |field: &str| number(&format!("/spec/limited/limitResponse/queuing/{field}"));
                Queuing::Queue {
                    queues: of("queues")?.max(1),
                    hand: of("handSize")?.max(1),
                    length_max: of("queueLengthLimit")?,
                }
            }
            _ => return None,
        };
        let shares = Shares {
            nominal_shares: of("nominalConcurrencyShares").unwrap_or(if is_exempt { 0 } else { 30 }),
            lendable_percent: of("lendablePercent").unwrap_or(0),
            borrowing_limit_percent: of("borrowingLimitPercent"),
        };
        Some(Self { name, uid, shares, queuing })
    }
}

// === impl Reference ===

impl Reference {
    /// What is to be said of each stored schema.
    pub fn all(schemas: &[Value], plan: &Plan) -> Vec<Self> {
        let of = |schema: &Value| {
            let level = str_at(schema, "/spec/priorityLevelConfiguration/name").to_owned();
            let found = plan.levels.contains_key(&level);
            Self { schema: meta_str(schema, "name").to_owned(), level, found }
        };
        schemas.iter().map(of).collect()
    }

    fn words(&self) -> (&'static str, &'static str, String) {
        let this = format!(
            "This FlowSchema references the PriorityLevelConfiguration object named {:?}",
            self.level
        );
        match self.found {
            true => ("False", "Found", format!("{this} and it exists")),
            false => ("True", "NotFound", format!("{this} but there is no such object")),
        }
    }

    /// Whether the object says just this already.
    pub fn is_noted(&self, object: &Value) -> bool {
        let (status, reason, message) = self.words();
        items_at(object, "/status/conditions").iter().any(|c| {
            c["type"] == "Dangling"
                && c["status"] == status
                && c["reason"] == reason
                && c["message"] == *message
        })
    }

    /// The object with this as its condition.
    pub fn note(&self, object: &Value, now: &str) -> Value {
        let (status, reason, message) = self.words();
        let conditions = items_at(object, "/status/conditions");
        let mut conditions: Vec<Value> =
            conditions.iter().filter(|c| c["type"] != "Dangling").cloned().collect();
        conditions.push(serde_json::json!({"type": "Dangling", "status": status, "lastTransitionTime": now,
            "reason": reason, "message": message}));
        let mut new = object.clone();
        if !new["status"].is_object() {
            new["status"] = serde_json::json!({});
        }
        new["status"]["conditions"] = Value::Array(conditions);
        new
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(name: &str, level: &str, precedence: u32) -> Value {
        json!({"metadata": {"name": name}, "spec": {"matchingPrecedence": precedence,
            "priorityLevelConfiguration": {"name": level}}})
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.schemas.iter().map(|schema| schema.name.as_str()).collect()
    }

    #[test]
    fn the_mandatory_ones_are_there_without_objects() {
        let plan = Plan::of(&[], &[]);
        assert_eq!(names(&plan), ["exempt", "catch-all"]);
        assert_eq!(plan.levels["exempt"].queuing, Queuing::Exempt);
        assert_eq!(plan.levels["catch-all"].queuing, Queuing::Reject);
    }

    #[test]
    fn schemas_are_asked_by_precedence_then_name_and_catch_all_last() {
        let schemas =
            [schema("z", "catch-all", 10_000), schema("b", "catch-all", 5), schema("a", "catch-all", 5)];
        assert_eq!(names(&Plan::of(&schemas, &[])), ["exempt", "a", "b", "z", "catch-all"]);
    }

    #[test]
    fn a_schema_without_its_level_is_left_out_and_said_to_dangle() {
        let schemas = [schema("lost", "nowhere", 5), schema("found", "catch-all", 6)];
        let plan = Plan::of(&schemas, &[]);
        assert_eq!(names(&plan), ["exempt", "found", "catch-all"]);
        let [lost, found] = &Reference::all(&schemas, &plan)[..] else { panic!() };
        let noted = lost.note(&schemas[0], "2026-01-01T00:00:00Z");
        assert_eq!(noted["status"]["conditions"][0]["status"], "True");
        assert!(lost.is_noted(&noted) && !lost.is_noted(&schemas[0]));
        assert_eq!(
            found.note(&noted, "2026-01-01T00:00:00Z")["status"]["conditions"].as_array().unwrap().len(),
            1
        );
    }

    #[test]
    fn a_broken_level_does_not_exist() {
        let broken = json!({"metadata": {"name": "odd"}, "spec": {"type": "Exempt", "exempt": {}}});
        assert!(!Plan::of(&[], &[broken]).levels.contains_key("odd"));
    }
}
