//! Every role and binding, indexed by who they bind.
//!
//! Authorisation happens on every request, so a look-up costs one hash per name the user goes by, whatever the
//! number of bindings. Objects come and go one at a time. Pure; must not know where objects come from.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::rules::PolicyRule;
use crate::registry::User;

/// Who a binding binds. Service accounts are users by their full name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Debug, Clone)]
struct Binding {
    subjects: Vec<Subject>,
    /// `Role` or `ClusterRole`.
    role_kind: String,
    role: String,
}

/// Bindings of one namespace, or those of the cluster.
#[derive(Debug, Default)]
struct Scope {
    bindings: HashMap<String, Binding>,
    by_subject: HashMap<Subject, BTreeSet<String>>,
}

/// The index.
#[derive(Debug, Default)]
pub struct Policy {
    /// By namespace and name; ClusterRoles have an empty namespace.
    roles: HashMap<(String, String), Arc<[PolicyRule]>>,
    /// By namespace; ClusterRoleBindings are under the empty one.
    scopes: HashMap<String, Scope>,
}

/// A rule that applies to a user, and why.
pub struct Grant<'a> {
    pub rule: &'a PolicyRule,
    namespace: &'a str,
    binding_name: &'a str,
    binding: &'a Binding,
    subject: &'a Subject,
}

// === impl Subject ===

impl Subject {
    fn from_value(value: &Value, binding_namespace: &str) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let name = text("name").to_owned();
        match text("kind") {
            "User" => Some(Self::User(name)),
            "Group" => Some(Self::Group(name)),
            "ServiceAccount" => {
                let namespace =
                    if text("namespace").is_empty() { binding_namespace } else { text("namespace") };
                Some(Self::User(format!("system:serviceaccount:{namespace}:{name}")))
            }
            _ => None,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::User(name) => {
                match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
                    Some((namespace, name)) => format!("ServiceAccount \"{name}/{namespace}\""),
                    None => format!("User {name:?}"),
                }
            }
            Self::Group(name) => format!("Group {name:?}"),
        }
    }
}

// === impl Scope ===

impl Scope {
    fn put(&mut self, name: &str, binding: Binding) {
        self.remove(name);
        for subject in &binding.subjects {
            self.by_subject.entry(subject.clone()).or_default().insert(name.to_owned());
        }
        self.bindings.insert(name.to_owned(), binding);
    }

    fn remove(&mut self, name: &str) {
        let Some(old) = self.bindings.remove(name) else {
            return;
        };
        for subject in old.subjects {
            if let Some(names) = self.by_subject.get_mut(&subject) {
                names.remove(name);
                if names.is_empty() {
                    self.by_subject.remove(&subject);
                }
            }
        }
    }
}

// === impl Grant ===

impl Grant<'_> {
    /// The sentence upstream puts in `SubjectAccessReview.status.reason`.
    pub fn reason(&self) -> String {
        let (kind, name) = if self.namespace.is_empty() {
            ("ClusterRoleBinding", format!("{:?}", self.binding_name))
        } else {
            ("RoleBinding", format!("\"{}/{}\"", self.binding_name, self.namespace))
        };
        format!(
            "RBAC: allowed by {kind} {name} of {} {:?} to {}",
            self.binding.role_kind,
            self.binding.role,
            self.subject.describe()
        )
    }
}

// === impl Policy ===

impl Policy {
    /// Adds or replaces a Role, or a ClusterRole when the object has no namespace.
    pub fn put_role(&mut self, object: &Value) {
        if let Some(key) = key_of(object) {
            self.roles.insert(key, PolicyRule::all_of(object).into());
        }
    }

    /// Forgets a Role, or a ClusterRole when `namespace` is empty.
    pub fn remove_role(&mut self, namespace: &str, name: &str) {
        self.roles.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Adds or replaces a RoleBinding, or a ClusterRoleBinding when the object has no namespace.
    pub fn put_binding(&mut self, object: &Value) {
        let Some((namespace, name)) = key_of(object) else {
            return;
        };
        let text =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let subjects =
            object.get("subjects").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let binding = Binding {
            subjects: subjects.iter().filter_map(|s| Subject::from_value(s, &namespace)).collect(),
            role_kind: text("/roleRef/kind"),
            role: text("/roleRef/name"),
        };
        self.scopes.entry(namespace).or_default().put(&name, binding);
    }

    /// Forgets a RoleBinding, or a ClusterRoleBinding when `namespace` is empty.
    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        if let Some(scope) = self.scopes.get_mut(namespace) {
            scope.remove(name);
            if scope.bindings.is_empty() {
                self.scopes.remove(namespace);
            }
        }
    }

    /// The rules of one role; None when it does not exist.
    pub fn role(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<[PolicyRule]>> {
        let namespace = if kind == "ClusterRole" { "" } else { namespace };
        self.roles.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Every rule that applies to `user` in `namespace` (empty: cluster-wide only), until `found` says it is enough.
    pub fn find<'a>(
        &'a self,
        user: &User,
        namespace: &str,
        mut found: impl FnMut(&Grant<'a>) -> bool,
    ) -> bool {
        let subjects: Vec<Subject> = std::iter::once(Subject::User(user.name.clone()))
            .chain(user.groups.iter().map(|g| Subject::Group(g.clone())))
            .collect();
        let scopes = if namespace.is_empty() { &[""][..] } else { &["", namespace][..] };
        for scope_name in scopes {
            let Some((scope_name, scope)) = self.scopes.get_key_value(*scope_name) else {
                continue;
            };
            for subject in &subjects {
                let Some((subject, names)) = scope.by_subject.get_key_value(subject) else {
                    continue;
                };
                for name in names {
                    let Some(binding) = scope.bindings.get(name) else {
                        continue;
                    };
                    let role_namespace =
                        if binding.role_kind == "ClusterRole" { "" } else { scope_name.as_str() };
                    let Some(rules) = self.roles.get(&(role_namespace.to_owned(), binding.role.clone()))
                    else {
                        continue;
                    };
                    for rule in rules.iter() {
                        if found(&Grant { rule, namespace: scope_name, binding_name: name, binding, subject })
                        {
                            return true;
                        }
                    }
                }
            }
        }
        false
    }

    /// Copies of every rule that applies to `user` in `namespace`.
    pub fn rules_for(&self, user: &User, namespace: &str) -> Vec<PolicyRule> {
        let mut rules = Vec::new();
        self.find(user, namespace, |grant| {
            rules.push(grant.rule.clone());
            false
        });
        rules
    }
}

fn key_of(object: &Value) -> Option<(String, String)> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    Some((text("/metadata/namespace").unwrap_or_default(), text("/metadata/name")?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy() -> Policy {
        let mut policy = Policy::default();
        let pods = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
        policy.put_role(&json!({"metadata": {"name": "reader"}, "rules": pods}));
        policy.put_role(&json!({"metadata": {"name": "local", "namespace": "a"}, "rules": pods}));
        policy.put_binding(&json!({
            "metadata": {"name": "everyone"}, "roleRef": {"kind": "ClusterRole", "name": "reader"},
            "subjects": [{"kind": "Group", "name": "readers"}]}));
        policy.put_binding(&json!({
            "metadata": {"name": "sa", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "local"},
            "subjects": [{"kind": "ServiceAccount", "name": "bot"}]}));
        policy
    }

    fn held(policy: &Policy, name: &str, groups: &[&str], namespace: &str) -> usize {
        let user = User {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..User::default()
        };
        policy.rules_for(&user, namespace).len()
    }

    #[test]
    fn cluster_bindings_reach_every_namespace_and_local_ones_their_own() {
        let policy = policy();
        assert_eq!(held(&policy, "ann", &["readers"], ""), 1);
        assert_eq!(held(&policy, "ann", &["readers"], "b"), 1);
        assert_eq!(held(&policy, "ann", &[], "a"), 0);
        let bot = "system:serviceaccount:a:bot";
        assert_eq!(
            (held(&policy, bot, &[], "a"), held(&policy, bot, &[], "b"), held(&policy, bot, &[], "")),
            (1, 0, 0)
        );
    }

    #[test]
    fn replacing_and_removing_a_binding_forgets_its_old_subjects() {
        let mut policy = policy();
        policy.put_binding(&json!({
            "metadata": {"name": "everyone"}, "roleRef": {"kind": "ClusterRole", "name": "reader"},
            "subjects": [{"kind": "User", "name": "zoe"}]}));
        assert_eq!((held(&policy, "ann", &["readers"], ""), held(&policy, "zoe", &[], "")), (0, 1));
        policy.remove_binding("", "everyone");
        assert_eq!(held(&policy, "zoe", &[], ""), 0);
    }

    #[test]
    fn the_reason_names_binding_role_and_subject() {
        let policy = policy();
        let user = User { name: "ann".into(), groups: vec!["readers".into()], ..User::default() };
        let mut reason = String::new();
        policy.find(&user, "", |grant| {
            reason = grant.reason();
            true
        });
        assert_eq!(
            reason,
            r#"RBAC: allowed by ClusterRoleBinding "everyone" of ClusterRole "reader" to Group "readers""#
        );
    }
}
