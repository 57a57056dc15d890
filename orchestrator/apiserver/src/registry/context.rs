//! Who asks, for what, and how strictly: the parts of a request the registry needs.
//!
//! The server fills these from HTTP; controllers in the same process go through the server as well. Nothing here
//! knows a header or a query parameter's spelling.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// An authenticated caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The control plane acting for itself; member of `system:masters`.
    pub fn system(name: &str) -> Self {
        Self {
            name: name.to_string(),
            groups: vec!["system:masters".into(), "system:authenticated".into()],
            ..Self::default()
        }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// What to do about unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// Notes about one request for whoever audits it, shared by all that work on it.
pub type Annotations = Arc<Mutex<BTreeMap<String, String>>>;

/// One request's circumstances. Shared by reference through admission, strategy and store.
#[derive(Debug, Default)]
pub struct Context {
    pub user: User,
    /// Nothing is stored; the answer is what would have been.
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    /// `?fieldManager=`, else the prefix of the user agent.
    pub field_manager: Option<String>,
    /// `?force=` of an apply patch.
    pub force: bool,
    /// The caller was authorised for another verb: whether they may create is asked when it comes to that.
    pub create_is_unauthorized: bool,
    /// The server's own write (bootstrap, conditions it keeps): webhooks are not asked about it, or one that does not
    /// answer could keep the server from starting.
    pub is_own: bool,
    /// Become `Warning: 299` headers, in order. At most 64 are kept.
    pub warnings: Mutex<Vec<String>>,
    /// What admission noted of the request for whoever audits it. At most 64 are kept.
    pub annotations: Annotations,
}

impl Context {
    const WARNINGS_MAX: usize = 64;
    const ANNOTATIONS_MAX: usize = 64;

    pub fn new(user: User) -> Self {
        Self { user, ..Self::default() }
    }

    /// The API server's own requests (bootstrap, repair).
    pub fn system() -> Self {
        let manager = Some("kube-apiserver".to_owned());
        Self { field_manager: manager, is_own: true, ..Self::new(User::system("system:apiserver")) }
    }

    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock();
        if warnings.len() < Self::WARNINGS_MAX && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Notes something for the audit. The first value of a key is kept.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        let mut annotations = self.annotations.lock();
        if annotations.len() < Self::ANNOTATIONS_MAX {
            annotations.entry(key.into()).or_insert_with(|| value.into());
        }
    }

    pub fn manager(&self) -> &str {
        match self.field_manager.as_deref() {
            Some(manager) if !manager.is_empty() => manager,
            _ => "unknown",
        }
    }
}

/// What a request's path names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// `None` for cluster-scoped kinds, and for lists over all namespaces.
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// `status`, `scale`, `binding` ...
    pub subresource: Option<String>,
}

impl Target {
    pub fn named(namespace: Option<&str>, name: &str) -> Self {
        Self { namespace: namespace.map(Into::into), name: Some(name.into()), subresource: None }
    }

    pub fn collection(namespace: Option<&str>) -> Self {
        Self { namespace: namespace.map(Into::into), name: None, subresource: None }
    }

    pub fn with_subresource(mut self, subresource: &str) -> Self {
        self.subresource = Some(subresource.into());
        self
    }

    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }
}

/// A request body in the encoding it arrived in. The protobuf form includes its envelope.
#[derive(Debug, Clone)]
pub enum Body {
    Json(Bytes),
    Yaml(Bytes),
    Protobuf(Bytes),
}

/// The four ways to patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
    /// `application/apply-patch+yaml`: server-side apply.
    Apply,
}
