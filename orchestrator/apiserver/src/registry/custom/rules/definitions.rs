//! What is wrong with the rules of a definition: they must compile, know their types, and not be too dear.

use penstock_expressions::{Measure, REQUEST_BYTES_MAX, Type};
use serde_json::Value;

use super::environment;
use super::shape::{least_bytes, measure_of, type_of};
use crate::error::FieldError;
use crate::registry::object::{items_at, str_at};

/// What one rule may cost at most over a whole object, as upstream.
const RULE_COST_MAX: u64 = 10_000_000;
/// What the rules of a version may cost together, as upstream.
const SCHEMA_COST_MAX: u64 = 100_000_000;
const REASONS: &[&str] =
    &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Where a node stands.
#[derive(Clone, Default)]
struct Place {
    root: bool,
    /// How many of it an object can have; `None` when nothing bounds that.
    count_max: Option<u64>,
    /// The list or map in which nothing can be told to be what was there before.
    uncorrelated: Option<String>,
}

/// Everything wrong with the rules of a version's schema.
pub(crate) fn errors_of(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut check = Check { errors: Vec::new(), total: 0 };
    let place = Place { root: true, count_max: Some(1), uncorrelated: None };
    check.node(schema, path, &place);
    if check.total > SCHEMA_COST_MAX {
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        check.errors.push(FieldError::forbidden(path, too_dear(name, check.total, SCHEMA_COST_MAX)));
    }
    check.errors
}

fn too_dear(what: &str, cost: u64, most: u64) -> String {
    let factor = cost as f64 / most as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

struct Check {
    errors: Vec<FieldError>,
    /// Of all rules so far.
    total: u64,
}

impl Check {
    fn node(&mut self, schema: &Value, path: &str, place: &Place) {
        let rules = items_at(schema, "/x-kubernetes-validations");
        if !rules.is_empty() {
            let (ty, measure) = (type_of(schema, place.root), measure_of(schema, place.root));
            let count = place.count_max.unwrap_or(REQUEST_BYTES_MAX / (least_bytes(schema) + 1));
            for (index, rule) in rules.iter().enumerate() {
                let at = format!("{path}.x-kubernetes-validations[{index}]");
                self.rule(rule, &at, &ty, &measure, count, place);
                self.field_path(schema, rule, &at);
            }
        }
        let many = |key: &str| -> Option<u64> { place.count_max?.checked_mul(schema[key].as_u64()?) };
        let loose = |is: bool| place.uncorrelated.clone().or_else(|| is.then(|| path.to_owned()));
        let atomic = schema["x-kubernetes-map-type"] == "atomic";
        if schema["items"].is_object() {
            let uncorrelated = loose(schema["x-kubernetes-list-type"] != "map");
            let place = Place { root: false, count_max: many("maxItems"), uncorrelated };
            self.node(&schema["items"], &format!("{path}.items"), &place);
        }
        if schema["additionalProperties"].is_object() {
            let place = Place { root: false, count_max: many("maxProperties"), uncorrelated: loose(atomic) };
            self.node(&schema["additionalProperties"], &format!("{path}.additionalProperties"), &place);
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let place = Place { root: false, count_max: place.count_max, uncorrelated: loose(atomic) };
            self.node(property, &format!("{path}.properties[{name}]"), &place);
        }
    }

    fn rule(&mut self, rule: &Value, at: &str, ty: &Type, measure: &Measure, count: u64, place: &Place) {
        let (source, message) = (str_at(rule, "/rule"), str_at(rule, "/message"));
        let line_breaks = |text: &str| text.trim().contains(['\n', '\r']);
        if source.trim().is_empty() {
            self.errors.push(FieldError::required(format!("{at}.rule"), "rule is not specified"));
            return;
        }
        if !message.is_empty() && message.trim().is_empty() {
            self.invalid(format!("{at}.message"), message, "must be non-empty if specified");
        } else if line_breaks(message) {
            self.invalid(format!("{at}.message"), message, "must not contain line breaks");
        } else if line_breaks(source) && message.is_empty() {
            let detail = "message must be specified if rule contains line breaks";
            self.errors.push(FieldError::required(format!("{at}.message"), detail));
        }
        let reason = str_at(rule, "/reason");
        if !reason.is_empty() && !REASONS.contains(&reason) {
            self.errors.push(FieldError::not_supported(format!("{at}.reason"), reason, REASONS));
        }
        let names = environment(ty, rule["optionalOldSelf"] == true);
        let sizes = [("self", measure.clone()), ("oldSelf", measure.clone())];
        let whole = || rule.clone();
        match penstock_expressions::compile(source, &names) {
            Err(error) => self.invalid(format!("{at}.rule"), whole(), format!("compilation failed: {error}")),
            Ok(program) if *program.result_type() != Type::Bool => {
                self.invalid(format!("{at}.rule"), whole(), "cel expression must evaluate to a bool");
            }
            Ok(program) => {
                self.pay(
                    format!("{at}.rule"),
                    "estimated rule cost",
                    program.cost_max(&sizes).saturating_mul(count),
                );
                let transition = program.refers_to("oldSelf");
                if let (true, Some(within)) = (transition, &place.uncorrelated) {
                    let detail = format!(
                        "oldSelf cannot be used on the uncorrelatable portion of the schema within {within}"
                    );
                    self.invalid(format!("{at}.rule"), source, detail);
                } else if !transition && !rule["optionalOldSelf"].is_null() {
                    let detail = "may not be set if oldSelf is not used in rule";
                    self.invalid(format!("{at}.optionalOldSelf"), rule["optionalOldSelf"].clone(), detail);
                }
            }
        }
        let given = str_at(rule, "/messageExpression");
        let path = format!("{at}.messageExpression");
        if !given.is_empty() && given.trim().is_empty() {
            self.errors.push(FieldError::required(path, "messageExpression must be non-empty if specified"));
        } else if !given.is_empty() {
            match penstock_expressions::compile(given, &names) {
                Err(error) => {
                    self.invalid(path, whole(), format!("messageExpression compilation failed: {error}"))
                }
                Ok(program) if *program.result_type() != Type::String => {
                    self.invalid(path, whole(), "messageExpression must evaluate to a string");
                }
                Ok(program) => self.pay(path, "estimated messageExpression cost", program.cost_max(&sizes)),
            }
        }
    }

    fn invalid(&mut self, path: String, value: impl Into<Value>, detail: impl Into<String>) {
        self.errors.push(FieldError::invalid(path, value, detail));
    }

    fn pay(&mut self, path: String, what: &str, cost: u64) {
        self.total = self.total.saturating_add(cost);
        if cost > RULE_COST_MAX {
            self.errors.push(FieldError::forbidden(path, too_dear(what, cost, RULE_COST_MAX)));
        }
    }

    /// A rule may only speak of fields there are.
    fn field_path(&mut self, schema: &Value, rule: &Value, at: &str) {
        let given = str_at(rule, "/fieldPath");
        let path = format!("{at}.fieldPath");
        if given.is_empty() {
            return;
        }
        if given.trim().is_empty() {
            self.invalid(path, given, "must be non-empty if specified");
        } else if given.contains(['\n', '\r']) {
            self.invalid(path, given, "must not contain line breaks");
        } else if !leads_somewhere(schema, given) {
            self.invalid(path, given, "must be a valid path");
        }
    }
}

/// Whether a path of fields (`.a.b`, `.a['b']`) is one of the schema.
fn leads_somewhere(schema: &Value, path: &str) -> bool {
    let (mut node, mut rest) = (schema, path);
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix("['") {
            let Some((key, after)) = after.split_once("']") else { return false };
            (name, rest) = (key, after);
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            (name, rest) = (&after[..end], &after[end..]);
        } else {
            return false;
        }
        let found = node["properties"].get(name);
        let Some(found) = found.or_else(|| node.get("additionalProperties").filter(|n| n.is_object())) else {
            return false;
        };
        node = found;
    }
    true
}
