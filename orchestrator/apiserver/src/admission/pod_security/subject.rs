//! The pod or template that is judged, and the words for what is found in it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::registry::object::items_at;

pub struct Subject<'a> {
    pub metadata: &'a Value,
    pub spec: &'a Value,
}

/// Why a pod is beyond a standard.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub reason: String,
    pub detail: String,
}

impl Finding {
    pub fn new(reason: &str, detail: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), detail: detail.into() }
    }
}

impl<'a> Subject<'a> {
    pub fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        ["/initContainers", "/containers", "/ephemeralContainers"]
            .into_iter()
            .flat_map(|list| items_at(spec, list))
    }

    /// Names of the containers that `is_bad`.
    pub fn containers_that(&self, mut is_bad: impl FnMut(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|it| is_bad(it)).map(name).collect()
    }

    /// Who says something bad in a security context: the pod, and the containers.
    pub fn setters(&self, mut is_bad: impl FnMut(&Value) -> bool) -> Vec<String> {
        let mut setters = Vec::new();
        if self.spec["securityContext"].is_object() && is_bad(&self.spec["securityContext"]) {
            setters.push("pod".to_owned());
        }
        let containers =
            self.containers_that(|it| it["securityContext"].is_object() && is_bad(&it["securityContext"]));
        if !containers.is_empty() {
            setters.push(containers_named(&containers));
        }
        setters
    }

    pub fn is_for_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    /// Root in a user namespace of its own is nobody outside.
    pub fn has_own_users(&self) -> bool {
        self.spec["hostUsers"] == false
    }
}

fn name(container: &Value) -> &str {
    container["name"].as_str().unwrap_or_default()
}

/// `container "a"`, `containers "a", "b"`.
pub fn containers_named(names: &[&str]) -> String {
    format!("{} {}", one_or_more("container", names.len()), quoted(names))
}

pub fn quoted<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    let each: Vec<String> = items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect();
    each.join(", ")
}

/// The word, with an `s` unless there is one.
pub fn one_or_more(word: &str, count: usize) -> String {
    format!("{word}{}", if count == 1 { "" } else { "s" })
}

/// `uses` of one, `use` of several.
pub fn uses(count: usize) -> &'static str {
    if count == 1 { "uses" } else { "use" }
}

/// Bad values as they are met, each once and in order.
pub type Values = BTreeSet<String>;
