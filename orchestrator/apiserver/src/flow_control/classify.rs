//! Which FlowSchema a request falls under, and which flow of it: pure functions of the request and compiled schemas.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::registry::User;
use crate::registry::object::{items_at, meta_str, str_at};
use crate::server::request_info::RequestInfo;

/// A FlowSchema as it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowSchema {
    pub name: String,
    pub uid: String,
    /// The smaller, the earlier it is asked.
    pub precedence: i64,
    /// The PriorityLevelConfiguration it leads to.
    pub level: String,
    distinguisher: Option<Distinguisher>,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distinguisher {
    ByUser,
    ByNamespace,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    User(Names),
    Group(Names),
    ServiceAccount { namespace: String, name: Names },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ResourceRule {
    verbs: Names,
    groups: Names,
    /// `pods`, `pods/status`.
    resources: Names,
    namespaces: Names,
    cluster_scope: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PathRule {
    verbs: Names,
    /// `None`: all. Otherwise paths, those that stand for what is below them without their asterisk.
    paths: Option<Vec<String>>,
}

/// A list of names, or all there are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Names {
    All,
    These(Vec<String>),
}

const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// A flow's hash: of its schema's name and what tells it from others of the schema.
pub fn flow_hash(schema: &str, flow: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(schema.as_bytes());
    // No name has a zero byte in it.
    hash.update([0]);
    hash.update(flow.as_bytes());
    let digest = hash.finalize();
    digest.iter().take(8).rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

// === impl FlowSchema ===

impl FlowSchema {
    /// Reads a stored object. What validation would refuse matches nothing.
    pub fn read(object: &Value) -> Self {
        let distinguisher = match str_at(object, "/spec/distinguisherMethod/type") {
            "ByUser" => Some(Distinguisher::ByUser),
            "ByNamespace" => Some(Distinguisher::ByNamespace),
            _ => None,
        };
        Self {
            name: meta_str(object, "name").to_owned(),
            uid: meta_str(object, "uid").to_owned(),
            precedence: object.pointer("/spec/matchingPrecedence").and_then(Value::as_i64).unwrap_or(1000),
            level: str_at(object, "/spec/priorityLevelConfiguration/name").to_owned(),
            distinguisher,
            rules: items_at(object, "/spec/rules").iter().map(Rule::read).collect(),
        }
    }

    pub fn matches(&self, user: &User, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|subject| subject.is(user))
                && match info.is_resource {
                    true => rule.resources.iter().any(|resource| resource.covers(info)),
                    false => rule.paths.iter().any(|path| path.covers(info)),
                }
        })
    }

    /// What tells a request's flow from others under this schema.
    pub fn flow<'r>(&self, user: &'r User, info: &'r RequestInfo) -> &'r str {
        match self.distinguisher {
            Some(Distinguisher::ByUser) => &user.name,
            Some(Distinguisher::ByNamespace) => &info.namespace,
            None => "",
        }
    }
}

// === impl Rule ===

impl Rule {
    fn read(rule: &Value) -> Self {
        Self {
            subjects: items_at(rule, "/subjects").iter().filter_map(Subject::read).collect(),
            resources: items_at(rule, "/resourceRules").iter().map(ResourceRule::read).collect(),
            paths: items_at(rule, "/nonResourceRules").iter().map(PathRule::read).collect(),
        }
    }
}

// === impl Subject ===

impl Subject {
    fn read(subject: &Value) -> Option<Self> {
        let name =
            |pointer| Some(Names::one(str_at(subject, pointer))).filter(|name| *name != Names::one(""));
        match str_at(subject, "/kind") {
            "User" => Some(Self::User(name("/user/name")?)),
            "Group" => Some(Self::Group(name("/group/name")?)),
            "ServiceAccount" => Some(Self::ServiceAccount {
                namespace: str_at(subject, "/serviceAccount/namespace").to_owned(),
                name: name("/serviceAccount/name")?,
            }),
            _ => None,
        }
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Self::User(names) => names.have(&user.name),
            Self::Group(Names::All) => true,
            Self::Group(names) => user.groups.iter().any(|group| names.have(group)),
            Self::ServiceAccount { namespace, name } => user
                .name
                .strip_prefix(SERVICE_ACCOUNT)
                .and_then(|rest| rest.split_once(':'))
                .is_some_and(|(of, account)| of == namespace && name.have(account)),
        }
    }
}

// === impl ResourceRule ===

impl ResourceRule {
    fn read(rule: &Value) -> Self {
        Self {
            verbs: Names::read(rule, "/verbs"),
            groups: Names::read(rule, "/apiGroups"),
            resources: Names::read(rule, "/resources"),
            namespaces: Names::read(rule, "/namespaces"),
            cluster_scope: rule["clusterScope"] == true,
        }
    }

    fn covers(&self, info: &RequestInfo) -> bool {
        let resource = match info.subresource.is_empty() {
            true => self.resources.have(&info.resource),
            false => self.resources.have_joined(&info.resource, &info.subresource),
        };
        let place = match info.namespace.is_empty() {
            true => self.cluster_scope,
            false => self.namespaces.have(&info.namespace),
        };
        resource && place && self.verbs.have(&info.verb) && self.groups.have(&info.group)
    }
}

// === impl PathRule ===

impl PathRule {
    fn read(rule: &Value) -> Self {
        let paths = match Names::read(rule, "/nonResourceURLs") {
            Names::All => None,
            Names::These(paths) => Some(paths),
        };
        Self { verbs: Names::read(rule, "/verbs"), paths }
    }

    /// A path stands for itself and what is below it, with an asterisk or without (as upstream matches, which lets
    /// `/healthz` cover `/healthz/etcd`).
    fn covers(&self, info: &RequestInfo) -> bool {
        let is_below = |path: &String| {
            let stem = path.strip_suffix('*').unwrap_or(path);
            let stem = stem.strip_suffix('/').unwrap_or(stem);
            info.path == *path || info.path.strip_prefix(stem).is_some_and(|rest| rest.starts_with('/'))
        };
        self.verbs.have(&info.verb) && self.paths.as_ref().is_none_or(|paths| paths.iter().any(is_below))
    }
}

// === impl Names ===

impl Names {
    fn one(name: &str) -> Self {
        if name == "*" { Self::All } else { Self::These(vec![name.to_owned()]) }
    }

    fn read(rule: &Value, pointer: &str) -> Self {
        match items_at(rule, pointer) {
            [only] if only == "*" => Self::All,
            names => Self::These(names.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        }
    }

    fn have(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.iter().any(|other| other == name),
        }
    }

    /// Whether `name/below` is among them.
    fn have_joined(&self, name: &str, below: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names
                .iter()
                .any(|other| other.split_once('/').is_some_and(|(of, sub)| of == name && sub == below)),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::server::query::Query;

    fn user(name: &str, groups: &[&str]) -> User {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        User { name: name.to_owned(), groups, ..User::default() }
    }

    fn info(method: Method, path: &str) -> RequestInfo {
        RequestInfo::parse(&method, path, &Query::default())
    }

    fn schema(rule: Value) -> FlowSchema {
        FlowSchema::read(&json!({"metadata": {"name": "s"}, "spec": {"rules": [rule],
            "distinguisherMethod": {"type": "ByNamespace"}}}))
    }

    #[test]
    fn subjects_are_users_groups_and_service_accounts() {
        let everything = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"],
            "clusterScope": true}]);
        let matches = |subject: Value, user: &User| {
            let rule = json!({"subjects": [subject], "resourceRules": everything});
            schema(rule).matches(user, &info(Method::GET, "/api/v1/nodes"))
        };
        let bot = user("system:serviceaccount:kube-system:bot", &["system:serviceaccounts"]);
        let account = |namespace: &str, name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}});
        assert!(matches(account("kube-system", "*"), &bot));
        assert!(matches(account("kube-system", "bot"), &bot));
        assert!(!matches(account("kube-system", "bo"), &bot) && !matches(account("kube", "*"), &bot));
        let ann = user("ann", &["devs"]);
        assert!(matches(json!({"kind": "User", "user": {"name": "ann"}}), &ann));
        assert!(matches(json!({"kind": "User", "user": {"name": "*"}}), &ann));
        assert!(matches(json!({"kind": "Group", "group": {"name": "devs"}}), &ann));
        assert!(!matches(json!({"kind": "Group", "group": {"name": "ops"}}), &ann));
        assert!(!matches(json!({"kind": "User", "group": {"name": "devs"}}), &ann));
    }

    #[test]
    fn rules_name_verbs_groups_resources_and_places() {
        let covered = |rule: Value, path: &str| {
            let rule =
                json!({"subjects": [{"kind": "User", "user": {"name": "*"}}], "resourceRules": [rule]});
            schema(rule).matches(&User::default(), &info(Method::GET, path))
        };
        let rule = |resources: &[&str], namespaces: &[&str], cluster: bool| {
            json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": resources,
                "namespaces": namespaces, "clusterScope": cluster})
        };
        assert!(covered(rule(&["pods"], &["a"], false), "/api/v1/namespaces/a/pods"));
        assert!(!covered(rule(&["pods"], &["a"], false), "/api/v1/namespaces/b/pods"));
        assert!(!covered(rule(&["pods"], &["*"], false), "/api/v1/pods"), "all namespaces is cluster scope");
        assert!(covered(rule(&["pods"], &[], true), "/api/v1/pods"));
        assert!(!covered(rule(&["pods"], &["*"], true), "/api/v1/namespaces/a/pods/p/status"));
        assert!(covered(rule(&["pods/status"], &["*"], true), "/api/v1/namespaces/a/pods/p/status"));
        assert!(!covered(rule(&["*"], &["*"], true), "/apis/apps/v1/deployments"));
    }

    #[test]
    fn a_path_stands_for_what_is_below_it() {
        let covered = |url: &str, path: &str| {
            let rule = json!({"subjects": [{"kind": "User", "user": {"name": "*"}}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": [url]}]});
            schema(rule).matches(&User::default(), &info(Method::GET, path))
        };
        assert!(covered("/healthz", "/healthz") && covered("/healthz", "/healthz/etcd"));
        assert!(covered("/openapi/*", "/openapi/v2") && covered("*", "/anything"));
        assert!(!covered("/healthz", "/healthzz") && !covered("/healthz", "/livez"));
    }

    #[test]
    fn flows_hash_as_upstreams() {
        // The first eight bytes of SHA-256 of "a\0b", the lowest first.
        let digest = Sha256::digest(b"a\0b");
        let bytes: [u8; 8] = digest[..8].try_into().unwrap();
        assert_eq!(flow_hash("a", "b"), u64::from_le_bytes(bytes));
        assert_ne!(flow_hash("a", "b"), flow_hash("a", "c"));
    }
}
