//! Which requests a policy or a binding is about. Pure but for the namespace's labels, which the caller gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::admission::expressions::word;
use crate::admission::{Attributes, Operation};
use crate::registry::definition::Definition;
use crate::registry::object::{items_at, str_at};
use crate::registry::selector::LabelSelector;

/// `MatchResources`, read once.
#[derive(Debug, Default)]
pub(super) struct Matching {
    namespaces: Selector,
    objects: Selector,
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    equivalent: bool,
}

/// A selector, or that it cannot be read.
type Selector = Option<LabelSelector>;

/// `NamedRuleWithOperations`
#[derive(Debug)]
pub(super) struct Rule {
    operations: Vec<String>,
    pub groups: Vec<String>,
    pub versions: Vec<String>,
    pub resources: Vec<String>,
    scope: String,
    names: Vec<String>,
}

/// As what a request matches.
pub(super) enum Matched {
    No,
    /// As what it is.
    Itself,
    /// As another version of it.
    As(Arc<Definition>),
}

/// Labels that selectors look at.
pub(super) type Labels = BTreeMap<String, String>;

// === impl Matching ===

impl Matching {
    pub fn of(resources: &Value) -> Self {
        let selector = |pointer: &str| match resources.pointer(pointer) {
            Some(selector) => LabelSelector::from_object(selector),
            None => Some(LabelSelector::default()),
        };
        let rules = |pointer: &str| items_at(resources, pointer).iter().map(Rule::of).collect();
        Self {
            namespaces: selector("/namespaceSelector"),
            objects: selector("/objectSelector"),
            rules: rules("/resourceRules"),
            excluded: rules("/excludeResourceRules"),
            equivalent: str_at(resources, "/matchPolicy") != "Exact",
        }
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// By what the request is on. Without rules that is anything.
    pub fn by_resource(&self, a: &Attributes<'_>, others: &dyn Fn() -> Vec<Arc<Definition>>) -> Matched {
        if !matches!(self.any(&self.excluded, a, others), Matched::No) {
            return Matched::No;
        }
        if self.rules.is_empty() { Matched::Itself } else { self.any(&self.rules, a, others) }
    }

    fn any(&self, rules: &[Rule], a: &Attributes<'_>, others: &dyn Fn() -> Vec<Arc<Definition>>) -> Matched {
        if rules.iter().any(|rule| rule.matches(a, a.definition)) {
            return Matched::Itself;
        }
        // Other versions are looked for only where a rule names the resource at all.
        let named = |rule: &Rule| rule.operation(a) && rule.resource(a, a.definition);
        if !self.equivalent || !rules.iter().any(named) {
            return Matched::No;
        }
        let found = others().into_iter().find(|other| rules.iter().any(|rule| rule.matches(a, other)));
        found.map_or(Matched::No, Matched::As)
    }

    /// Whether the labels of the namespace have to be known.
    pub fn asks_for_namespace(&self) -> bool {
        self.namespaces.as_ref().is_none_or(|selector| !selector.is_empty())
    }

    /// By labels. What cannot be read is an error, as upstream has it.
    pub fn by_labels(
        &self,
        namespace: Option<&Labels>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<bool, String> {
        let unreadable = |which: &str| format!("the {which} cannot be read");
        let namespaces = self.namespaces.as_ref().ok_or_else(|| unreadable("namespaceSelector"))?;
        if let Some(labels) = namespace
            && !namespaces.matches(labels)
        {
            return Ok(false);
        }
        let objects = self.objects.as_ref().ok_or_else(|| unreadable("objectSelector"))?;
        let selected = |value: &Value| objects.matches(&labels_of(value));
        Ok(objects.is_empty() || object.is_some_and(selected) || old.is_some_and(selected))
    }
}

pub(super) fn labels_of(object: &Value) -> Labels {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    labels.into_iter().flatten().filter_map(text).collect()
}

// === impl Rule ===

impl Rule {
    fn of(rule: &Value) -> Self {
        let list = |pointer: &str| -> Vec<String> {
            items_at(rule, pointer).iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
        };
        Self {
            operations: list("/operations"),
            groups: list("/apiGroups"),
            versions: list("/apiVersions"),
            resources: list("/resources"),
            scope: str_at(rule, "/scope").to_owned(),
            names: list("/resourceNames"),
        }
    }

    fn matches(&self, a: &Attributes<'_>, definition: &Definition) -> bool {
        let scope = match self.scope.as_str() {
            "Namespaced" => definition.namespaced,
            "Cluster" => !definition.namespaced,
            _ => true,
        };
        scope
            && self.operation(a)
            && holds(&self.groups, &definition.group)
            && holds(&self.versions, &definition.version)
            && self.resource(a, definition)
            && (self.names.is_empty() || self.names.iter().any(|name| name == a.name))
    }

    fn operation(&self, a: &Attributes<'_>) -> bool {
        holds(&self.operations, word(a.operation))
    }

    fn resource(&self, a: &Attributes<'_>, definition: &Definition) -> bool {
        self.resources.iter().any(|pattern| {
            let (resource, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
            (resource == "*" || *resource == *definition.plural) && (sub == "*" || sub == a.subresource)
        })
    }

    /// Whether a mutating policy could never be asked: it changes what is created or updated.
    pub fn beyond_mutation(&self) -> Option<&str> {
        let known = [word(Operation::Create), word(Operation::Update)];
        self.operations.iter().map(String::as_str).find(|operation| !known.contains(operation))
    }
}

fn holds(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}
