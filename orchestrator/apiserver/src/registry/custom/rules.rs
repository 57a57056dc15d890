//! Rules in CEL of a custom kind's schema (`x-kubernetes-validations`): compiled with the kind, held to on every write.
//!
//! A tree of the schema's nodes that have rules at or below them. [`shape`] makes types of schemas, [`definitions`]
//! says what is wrong with rules when a definition is written.

pub(crate) mod definitions;
mod shape;

use penstock_expressions::{Budget, Environment, EvaluationError, Program, Type, Value as Term, Variables};
use serde_json::Value;

use crate::admission::expressions::message;
use crate::error::FieldError;
use crate::registry::object::{items_at, str_at};

const SPENT: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// The rules at and below one node of a schema.
#[derive(Debug)]
pub(crate) struct Rules {
    own: Vec<Rule>,
    ty: Type,
    /// Objects and lists are not shown in errors.
    scalar: bool,
    below: Below,
}

#[derive(Debug)]
enum Below {
    Nothing,
    Fields {
        fields: Vec<(String, Rules)>,
        correlated: bool,
    },
    Entries {
        value: Box<Rules>,
        correlated: bool,
    },
    /// Items, correlated by their keys where the list is a map.
    Items {
        item: Box<Rules>,
        keys: Option<Vec<String>>,
    },
}

#[derive(Debug)]
struct Rule {
    program: Program,
    transition: bool,
    optional_old: bool,
    message: String,
    message_expression: Option<Program>,
    reason: String,
    /// Below the node, such as `.spec.x`; empty for the node itself.
    field_path: String,
}

/// The names a rule over values of a type has.
fn environment(ty: &Type, optional_old: bool) -> Environment {
    let old = if optional_old { Type::optional(ty.clone()) } else { ty.clone() };
    Environment::default().variable("self", ty.clone()).variable("oldSelf", old)
}

// === impl Rules ===

impl Rules {
    /// The rules of a version's schema; `None` when it has none. What does not compile is left out: writing such a
    /// definition is refused.
    pub fn compile(schema: &Value) -> Option<Rules> {
        Self::node(schema, true)
    }

    fn node(schema: &Value, root: bool) -> Option<Rules> {
        let below = Self::below(schema);
        let listed = items_at(schema, "/x-kubernetes-validations");
        if listed.is_empty() && matches!(below, Below::Nothing) {
            return None;
        }
        let ty = shape::type_of(schema, root);
        let own = listed.iter().filter_map(|rule| Rule::compile(rule, &ty)).collect();
        let scalar = !matches!(schema["type"].as_str(), Some("object" | "array"));
        Some(Rules { own, ty, scalar, below })
    }

    fn below(schema: &Value) -> Below {
        let correlated = schema["x-kubernetes-map-type"] != "atomic";
        if let Some(item) = schema.get("items").and_then(|item| Self::node(item, false)) {
            let keys = (schema["x-kubernetes-list-type"] == "map").then(|| {
                let keys = items_at(schema, "/x-kubernetes-list-map-keys").iter();
                keys.filter_map(|key| key.as_str().map(str::to_owned)).collect()
            });
            return Below::Items { item: Box::new(item), keys };
        }
        if let Some(value) = schema.get("additionalProperties").and_then(|value| Self::node(value, false)) {
            return Below::Entries { value: Box::new(value), correlated };
        }
        let properties = schema["properties"].as_object().into_iter().flatten();
        let fields: Vec<(String, Rules)> =
            properties.filter_map(|(name, node)| Some((name.clone(), Self::node(node, false)?))).collect();
        if fields.is_empty() { Below::Nothing } else { Below::Fields { fields, correlated } }
    }

    /// What an object breaks; `old` is what it replaces.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut check = Check { budget: Budget::default(), errors: Vec::new(), ended: false };
        check.node(self, new, old, String::new());
        check.errors
    }
}

// === impl Rule ===

impl Rule {
    fn compile(rule: &Value, ty: &Type) -> Option<Rule> {
        let source = str_at(rule, "/rule");
        let optional_old = rule["optionalOldSelf"] == true;
        let names = environment(ty, optional_old);
        let program = penstock_expressions::compile(source, &names).ok()?;
        let message_expression = match str_at(rule, "/messageExpression") {
            "" => None,
            source => penstock_expressions::compile(source, &names).ok(),
        };
        Some(Rule {
            transition: program.refers_to("oldSelf"),
            program,
            optional_old,
            message: str_at(rule, "/message").trim().to_owned(),
            message_expression,
            reason: str_at(rule, "/reason").to_owned(),
            field_path: str_at(rule, "/fieldPath").to_owned(),
        })
    }

    /// What names the rule in errors.
    fn shown(&self) -> &str {
        if self.message.is_empty() { self.program.source().trim() } else { &self.message }
    }

    fn detail<'v>(&'v self, variables: &Variables<'v>, budget: &mut Budget) -> String {
        if let Some(text) = message(self.message_expression.as_ref(), variables, budget) {
            return text;
        }
        if self.message.is_empty() { format!("failed rule: {}", self.shown()) } else { self.message.clone() }
    }
}

/// One object being held to its rules.
struct Check {
    budget: Budget,
    errors: Vec<FieldError>,
    /// The budget is spent.
    ended: bool,
}

impl Check {
    fn node(&mut self, rules: &Rules, new: &Value, old: Option<&Value>, path: String) {
        // Null is the business of what holds it.
        if new.is_null() || self.ended {
            return;
        }
        self.own(rules, new, old.filter(|old| !old.is_null()), &path);
        match (&rules.below, new) {
            (Below::Fields { fields, correlated }, Value::Object(values)) => {
                for (name, rules) in fields {
                    let Some(value) = values.get(name) else { continue };
                    let old = old.filter(|_| *correlated).and_then(|old| old.get(name));
                    let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    self.node(rules, value, old, below);
                }
            }
            (Below::Entries { value: rules, correlated }, Value::Object(values)) => {
                for (key, value) in values {
                    let old = old.filter(|_| *correlated).and_then(|old| old.get(key));
                    self.node(rules, value, old, format!("{path}[{key}]"));
                }
            }
            (Below::Items { item: rules, keys }, Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    let old = keys.as_ref().and_then(|keys| same_item(item, old?, keys));
                    self.node(rules, item, old, format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn own(&mut self, rules: &Rules, new: &Value, old: Option<&Value>, path: &str) {
        if rules.own.is_empty() {
            return;
        }
        let shown_path = if path.is_empty() { "<nil>" } else { path };
        let report = |errors: &mut Vec<FieldError>, detail: String| {
            errors.push(FieldError::invalid_unshown(shown_path, detail));
        };
        let this = Term::of_type(new, &rules.ty);
        let before = old.map(|old| Term::of_type(old, &rules.ty));
        for rule in &rules.own {
            if rule.transition && old.is_none() && !rule.optional_old {
                continue;
            }
            let mut variables = Variables::default().with("self", this.clone());
            match (&before, rule.optional_old) {
                (before, true) => variables = variables.with("oldSelf", Term::optional(before.clone())),
                (Some(before), false) => variables = variables.with("oldSelf", before.clone()),
                (None, false) => {}
            }
            let shown = rule.shown();
            match rule.program.holds(&variables, &mut self.budget) {
                Ok(true) => {}
                // What an update leaves as it was is not its business.
                Ok(false) if !rule.transition && old == Some(new) => {}
                Ok(false) => {
                    let at = match (path, rule.field_path.as_str()) {
                        (_, "") => shown_path.to_owned(),
                        ("", below) => below.trim_start_matches('.').to_owned(),
                        (path, below) => format!("{path}{below}"),
                    };
                    let detail = rule.detail(&variables, &mut self.budget);
                    self.errors.push(error_of(rule, rules.scalar, at, new, detail));
                }
                Err(EvaluationError::CostExceeded) => {
                    self.ended = true;
                    let detail = if self.budget.left() == 0 {
                        SPENT.to_owned()
                    } else {
                        format!(
                            "'operation cancelled: actual cost limit exceeded': no further validation rules will be \
                             run due to call cost exceeds limit for rule: {shown}"
                        )
                    };
                    report(&mut self.errors, detail);
                    return;
                }
                Err(error @ EvaluationError::NoSuchOverload { .. }) => report(
                    &mut self.errors,
                    format!(
                        "'{error}': call arguments did not match a supported operator, function or macro signature \
                         for rule: {shown}"
                    ),
                ),
                Err(error) => report(&mut self.errors, format!("{error} evaluating rule: {shown}")),
            }
        }
    }
}

fn error_of(rule: &Rule, scalar: bool, path: String, value: &Value, detail: String) -> FieldError {
    match rule.reason.as_str() {
        "FieldValueForbidden" => FieldError::forbidden(path, detail),
        "FieldValueRequired" => FieldError::required(path, detail),
        "FieldValueDuplicate" => FieldError::duplicate(path, value.clone()),
        _ if scalar => FieldError::invalid(path, value.clone(), detail),
        _ => FieldError::invalid_unshown(path, detail),
    }
}

/// The item of a list that has the same keys.
fn same_item<'v>(item: &Value, old: &'v Value, keys: &[String]) -> Option<&'v Value> {
    let found = |other: &&Value| keys.iter().all(|key| item.get(key) == other.get(key));
    old.as_array()?.iter().find(found)
}

#[cfg(test)]
mod tests;
