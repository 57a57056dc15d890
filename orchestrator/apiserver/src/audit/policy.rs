//! The policy: rules in order, the first that fits a request says how much of it is noted.

use serde::Deserialize;
use serde_json::Value;

use super::AuditError;
use crate::registry::User;
use crate::server::request_info::RequestInfo;

/// How much is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

/// When it is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: Value,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What the policy wants of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub level: Level,
    omitted: Vec<Stage>,
    pub omit_managed_fields: bool,
}

impl Wanted {
    pub fn has(&self, stage: Stage) -> bool {
        self.level > Level::None && !self.omitted.contains(&stage)
    }
}

// === impl Policy ===

impl Policy {
    /// Reads `audit.k8s.io/v1` from YAML or JSON. `file` is for whoever reads the error.
    pub fn parse(file: &str, text: &[u8]) -> Result<Self, AuditError> {
        let refuse = |why: String| AuditError::Policy { file: file.to_owned(), why };
        let policy: Self = serde_yaml::from_slice(text).map_err(|e| refuse(e.to_string()))?;
        if (&*policy.api_version, &*policy.kind) != ("audit.k8s.io/v1", "Policy") {
            return Err(refuse(format!(
                "it is {} of {}; write `kind: Policy` of `apiVersion: audit.k8s.io/v1`",
                policy.kind, policy.api_version
            )));
        }
        if policy.rules.is_empty() {
            return Err(refuse("it has no rules: one of `level: Metadata` notes every request".to_owned()));
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            if of_resources && !rule.non_resource_urls.is_empty() {
                let both = "rules cannot apply to both regular resources and non-resource URLs";
                return Err(refuse(format!("rules[{index}]: {both}")));
            }
            let bad = rule.non_resource_urls.iter().find(|url| {
                let stars = url.matches('*').count();
                **url != "*" && (!url.starts_with('/') || stars > usize::from(url.ends_with('*')))
            });
            if let Some(url) = bad {
                let why = "non-resource URLs begin with a '/' and have '*' only at their end";
                return Err(refuse(format!("rules[{index}].nonResourceURLs: {url}: {why}")));
            }
            if let Some(unnamed) =
                rule.resources.iter().find(|it| it.resources.is_empty() && !it.resource_names.is_empty())
            {
                let why = "using resourceNames requires at least one resource";
                return Err(refuse(format!(
                    "rules[{index}].resources: {}: {why}",
                    unnamed.resource_names.join(",")
                )));
            }
        }
        Ok(policy)
    }

    pub fn judge(&self, user: &User, info: &RequestInfo) -> Wanted {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(user, info)) else {
            return Wanted { level: Level::None, omitted: Vec::new(), omit_managed_fields: false };
        };
        Wanted {
            level: rule.level,
            omitted: [&self.omit_stages[..], &rule.omit_stages].concat(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

// === impl Rule ===

impl Rule {
    fn fits(&self, user: &User, info: &RequestInfo) -> bool {
        let listed = |list: &[String], item: &str| list.is_empty() || list.iter().any(|it| it == item);
        if !listed(&self.users, &user.name)
            || !(self.user_groups.is_empty() || self.user_groups.iter().any(|group| user.is_in(group)))
            || !listed(&self.verbs, &info.verb)
        {
            return false;
        }
        if !info.is_resource {
            let of_resources = !self.namespaces.is_empty() || !self.resources.is_empty();
            let urls = &self.non_resource_urls;
            return !of_resources && (urls.is_empty() || urls.iter().any(|url| matches_url(url, &info.path)));
        }
        self.non_resource_urls.is_empty()
            && listed(&self.namespaces, &info.namespace)
            && (self.resources.is_empty() || self.resources.iter().any(|it| it.has(info)))
    }
}

fn matches_url(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => path == pattern,
    }
}

impl GroupResources {
    fn has(&self, info: &RequestInfo) -> bool {
        let with_sub = format!("{}/{}", info.resource, info.subresource);
        let combined = if info.subresource.is_empty() { &info.resource } else { &with_sub };
        let fits = |resource: &String| {
            resource == combined
                || resource.strip_suffix("/*").is_some_and(|it| it == info.resource)
                || resource.strip_prefix("*/").is_some_and(|it| it == info.subresource)
                || resource == "*"
        };
        self.group == info.group
            && (self.resources.is_empty() || self.resources.iter().any(fits))
            && (self.resource_names.is_empty() || self.resource_names.contains(&info.name))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::server::query::Query;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:kube-proxy]
- level: RequestResponse
  omitManagedFields: true
  resources: [{group: "", resources: [secrets/*, pods/status]}]
- level: None
  nonResourceURLs: ["/healthz*"]
- level: Metadata
"#;

    fn judged(user: &str, path: &str) -> Wanted {
        let policy = Policy::parse("policy.yaml", POLICY.as_bytes()).unwrap();
        let user = User { name: user.to_owned(), ..User::default() };
        policy.judge(&user, &RequestInfo::parse(&Method::GET, path, &Query::parse("")))
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        assert_eq!(judged("system:kube-proxy", "/api/v1/pods").level, Level::None);
        let secret = judged("u", "/api/v1/namespaces/d/secrets/s");
        assert_eq!((secret.level, secret.omit_managed_fields), (Level::RequestResponse, true));
        assert!(secret.has(Stage::ResponseComplete) && !secret.has(Stage::RequestReceived));
        assert_eq!(judged("u", "/api/v1/namespaces/d/pods/p").level, Level::Metadata);
        assert_eq!(judged("u", "/api/v1/namespaces/d/pods/p/status").level, Level::RequestResponse);
        assert_eq!(judged("u", "/healthz/etcd").level, Level::None);
        assert_eq!(judged("u", "/version").level, Level::Metadata);
    }

    #[test]
    fn what_is_no_policy_is_refused_with_where_and_why() {
        let refused = |text: &str| Policy::parse("p.yaml", text.as_bytes()).unwrap_err().to_string();
        assert!(refused("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: []").contains("no rules"));
        assert!(refused("kind: Pod\napiVersion: v1\nrules: [{level: None}]").contains("it is Pod of v1"));
        let unknown = "kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: Loud}]";
        assert!(refused(unknown).contains("Loud"));
        let both = "kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: None, namespaces: [a], nonResourceURLs: [/x]}]";
        assert!(refused(both).contains("rules[0]: rules cannot apply to both"));
        assert!(refused("{").contains("p.yaml"));
    }
}
