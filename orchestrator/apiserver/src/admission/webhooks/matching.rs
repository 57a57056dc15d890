//! Which requests a webhook is asked about: operations, resources, scope. Pure.

use serde_json::Value;

use crate::admission::{Attributes, Operation};
use crate::registry::Definition;
use crate::registry::object::{items_at, str_at};

/// One entry of `rules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Namespaced,
    Cluster,
}

/// A request as rules see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub operation: Operation,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// Whether the request is about something inside a namespace. A namespace itself is not.
    pub namespaced: bool,
}

// === impl Asked ===

impl<'a> Asked<'a> {
    /// The request, as one on `definition`, which is its own or an equivalent one.
    pub fn of(a: &'a Attributes<'_>, definition: &'a Definition) -> Self {
        Self {
            operation: a.operation,
            group: &definition.group,
            version: &definition.version,
            resource: &definition.plural,
            subresource: a.subresource,
            namespaced: definition.namespaced,
        }
    }
}

// === impl Rule ===

impl Rule {
    pub(crate) fn read(rule: &Value) -> Self {
        let texts = |pointer: &str| {
            items_at(rule, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            operations: texts("/operations"),
            groups: texts("/apiGroups"),
            versions: texts("/apiVersions"),
            resources: texts("/resources"),
            scope: match str_at(rule, "/scope") {
                "Namespaced" => Scope::Namespaced,
                "Cluster" => Scope::Cluster,
                _ => Scope::All,
            },
        }
    }

    pub(super) fn matches(&self, asked: &Asked<'_>) -> bool {
        let any = |items: &[String], wanted: &str| items.iter().any(|item| item == "*" || item == wanted);
        let in_scope = match self.scope {
            Scope::All => true,
            Scope::Namespaced => asked.namespaced,
            Scope::Cluster => !asked.namespaced,
        };
        in_scope
            && any(&self.operations, asked.operation.name())
            && any(&self.groups, asked.group)
            && any(&self.versions, asked.version)
            && self.resources.iter().any(|resource| {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                (resource == "*" || resource == asked.resource)
                    && (subresource == "*" || subresource == asked.subresource)
            })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(resources: &[&str], resource: &str, subresource: &str) -> bool {
        let rule = Rule::read(&json!({"operations": ["CREATE", "CONNECT"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": resources, "scope": "*"}));
        let (group, version, operation) = ("", "v1", Operation::Connect);
        rule.matches(&Asked { operation, group, version, resource, subresource, namespaced: true })
    }

    #[test]
    fn resources_are_matched_with_their_subresources() {
        let cases = [
            (vec!["pods"], "pods", "", true),
            (vec!["pods"], "pods", "exec", false),
            (vec!["pods/*"], "pods", "exec", true),
            (vec!["pods/*"], "pods", "", true),
            (vec!["pods/exec"], "pods", "attach", false),
            (vec!["*"], "nodes", "", true),
            (vec!["*"], "pods", "status", false),
            (vec!["*/status"], "pods", "status", true),
            (vec!["*/*"], "pods", "exec", true),
            (vec!["services", "pods"], "pods", "", true),
        ];
        for (resources, resource, subresource, want) in cases {
            assert_eq!(
                matches(&resources, resource, subresource),
                want,
                "{resources:?} {resource}/{subresource}"
            );
        }
    }

    #[test]
    fn operations_groups_versions_and_scope_all_count() {
        let rule = json!({"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"],
            "resources": ["deployments"], "scope": "Namespaced"});
        let asked = Asked {
            operation: Operation::Create,
            group: "apps",
            version: "v1",
            resource: "deployments",
            subresource: "",
            namespaced: true,
        };
        assert!(Rule::read(&rule).matches(&asked));
        assert!(!Rule::read(&rule).matches(&Asked { operation: Operation::Update, ..asked }));
        assert!(!Rule::read(&rule).matches(&Asked { group: "", ..asked }));
        assert!(!Rule::read(&rule).matches(&Asked { version: "v2", ..asked }));
        assert!(!Rule::read(&rule).matches(&Asked { namespaced: false, ..asked }));
    }
}
