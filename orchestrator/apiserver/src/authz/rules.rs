//! RBAC policy rules: matching a request, and whether one set of rules covers another.
//!
//! Pure. Must not know bindings or where rules are stored.

use serde_json::Value;

use super::Attributes;

/// One `PolicyRule`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyRule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
    pub non_resource_urls: Vec<String>,
}

// === impl PolicyRule ===

impl PolicyRule {
    /// Reads a rule of a Role or ClusterRole; what is not a list of strings counts as empty.
    pub fn from_value(value: &Value) -> Self {
        let list = |key: &str| strings(value.get(key));
        Self {
            verbs: list("verbs"),
            api_groups: list("apiGroups"),
            resources: list("resources"),
            resource_names: list("resourceNames"),
            non_resource_urls: list("nonResourceURLs"),
        }
    }

    /// The rules of a Role or ClusterRole object.
    pub fn all_of(role: &Value) -> Vec<Self> {
        role.get("rules")
            .and_then(Value::as_array)
            .map(|rules| rules.iter().map(Self::from_value).collect())
            .unwrap_or_default()
    }

    /// Whether the rule allows the request.
    pub fn allows(&self, request: &Attributes) -> bool {
        if !has(&self.verbs, &request.verb) {
            return false;
        }
        if !request.is_resource {
            return self.non_resource_urls.iter().any(|url| url_matches(url, &request.path));
        }
        has(&self.api_groups, &request.group)
            && self.resources.iter().any(|r| resource_matches(r, &request.resource, &request.subresource))
            && (self.resource_names.is_empty() || self.resource_names.contains(&request.name))
    }

    /// Whether this rule alone allows everything `narrow` does. `narrow` must be an atom (see [`atoms`]).
    fn covers_atom(&self, narrow: &Self) -> bool {
        let verbs = narrow.verbs.iter().all(|v| has(&self.verbs, v));
        if !narrow.non_resource_urls.is_empty() {
            return verbs
                && narrow
                    .non_resource_urls
                    .iter()
                    .all(|url| self.non_resource_urls.iter().any(|u| url_matches(u, url)));
        }
        verbs
            && narrow.api_groups.iter().all(|g| has(&self.api_groups, g))
            && narrow.resources.iter().all(|r| self.covers_resource(r))
            && (self.resource_names.is_empty()
                || (!narrow.resource_names.is_empty()
                    && narrow.resource_names.iter().all(|n| self.resource_names.contains(n))))
    }

    fn covers_resource(&self, wanted: &str) -> bool {
        self.resources.iter().any(|have| {
            have == "*"
                || have == wanted
                || matches!((have.strip_prefix("*/"), wanted.split_once('/')), (Some(h), Some((_, w))) if h == w)
        })
    }

    /// The rule as upstream prints it in refusals.
    pub fn describe(&self) -> String {
        let mut parts = Vec::new();
        for (name, list) in [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.resource_names),
            ("NonResourceURLs", &self.non_resource_urls),
            ("Verbs", &self.verbs),
        ] {
            if !list.is_empty() {
                parts.push(format!("{name}:{list:?}"));
            }
        }
        format!("{{{}}}", parts.join(", "))
    }
}

/// The parts of `wanted` that `held` does not cover, each as small as a rule can be.
pub fn uncovered(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted.iter().flat_map(atoms).filter(|atom| !held.iter().any(|rule| rule.covers_atom(atom))).collect()
}

/// A rule split into one verb, group, resource and name each.
fn atoms(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut atoms = Vec::new();
    for verb in &rule.verbs {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let atom = PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..PolicyRule::default()
                };
                if rule.resource_names.is_empty() {
                    atoms.push(atom);
                } else {
                    atoms.extend(
                        rule.resource_names
                            .iter()
                            .map(|n| PolicyRule { resource_names: vec![n.clone()], ..atom.clone() }),
                    );
                }
            }
        }
        atoms.extend(rule.non_resource_urls.iter().map(|url| PolicyRule {
            verbs: vec![verb.clone()],
            non_resource_urls: vec![url.clone()],
            ..PolicyRule::default()
        }));
    }
    atoms
}

/// The strings of a JSON array.
pub fn strings(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

/// `*` and `*/scale` are wildcards; `pods/log` names a subresource; `pods` is the resource without subresources.
fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    match (pattern.split_once('/'), subresource.is_empty()) {
        (None, true) => pattern == resource,
        (Some((head, tail)), false) => tail == subresource && (head == "*" || head == resource),
        _ => false,
    }
}

fn url_matches(pattern: &str, path: &str) -> bool {
    pattern == "*"
        || pattern == path
        || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(value: Value) -> PolicyRule {
        PolicyRule::from_value(&value)
    }

    fn asks(verb: &str, group: &str, resource: &str, subresource: &str, name: &str) -> Attributes {
        Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            is_resource: true,
            ..Attributes::default()
        }
    }

    #[test]
    fn rules_match_like_upstreams() {
        let pods = rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}));
        let logs = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}));
        let scales = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]}));
        let named = rule(
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}),
        );
        let all = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        let table = [
            (&pods, asks("get", "", "pods", "", "x"), true),
            (&pods, asks("delete", "", "pods", "", "x"), false),
            (&pods, asks("get", "", "pods", "log", "x"), false),
            (&pods, asks("get", "metrics.k8s.io", "pods", "", "x"), false),
            (&logs, asks("get", "", "pods", "log", "x"), true),
            (&logs, asks("get", "", "pods", "", "x"), false),
            (&scales, asks("patch", "apps", "deployments", "scale", "x"), true),
            (&scales, asks("patch", "apps", "deployments", "", "x"), false),
            (&named, asks("get", "", "secrets", "", "a"), true),
            (&named, asks("get", "", "secrets", "", "b"), false),
            (&named, asks("list", "", "secrets", "", ""), false),
            (&all, asks("patch", "apps", "deployments", "scale", "x"), true),
        ];
        for (rule, request, want) in table {
            assert_eq!(rule.allows(&request), want, "{} {request:?}", rule.describe());
        }
    }

    #[test]
    fn plain_paths_match_exactly_or_by_prefix() {
        let rule = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/openapi/*"]}));
        let path = |path: &str| Attributes { verb: "get".into(), path: path.into(), ..Attributes::default() };
        assert!(rule.allows(&path("/healthz")));
        assert!(!rule.allows(&path("/healthz/etcd")));
        assert!(rule.allows(&path("/openapi/v3/api/v1")));
    }

    #[test]
    fn what_is_not_held_is_told_apart() {
        let held = [
            rule(
                json!({"verbs": ["get", "list"], "apiGroups": ["", "apps"], "resources": ["pods", "deployments"]}),
            ),
            rule(
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}),
            ),
        ];
        let fine = rule(json!({"verbs": ["list"], "apiGroups": ["apps"], "resources": ["deployments"]}));
        assert!(uncovered(&held, &[fine]).is_empty());
        let wide = rule(json!({"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}));
        let missing = uncovered(&held, &[wide]);
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].describe(), r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}"#);
        let unnamed = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}));
        assert_eq!(uncovered(&held, &[unnamed]).len(), 1);
    }

    #[test]
    fn everything_covers_everything() {
        let all = [
            rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})),
            rule(json!({"verbs": ["*"], "nonResourceURLs": ["*"]})),
        ];
        assert!(uncovered(&all, &all).is_empty());
    }
}
