//! The paths of one group and version: every operation the router serves, told in OpenAPI v3.
//!
//! Pure: definitions in, JSON out. What kubectl reads of it are the parameters of PATCH (`fieldValidation`, `dryRun`),
//! the patch media types and `x-kubernetes-*`; other clients generate code from all of it.

use serde_json::{Map, Value, json};

use super::parameters;
use crate::discovery::{Entry, SubresourceEntry};

const PATCHES: [&str; 5] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+cbor",
];
const BODIES: [&str; 3] = ["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Group, version and kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gvk {
    pub group: String,
    pub version: String,
    pub kind: String,
}

/// Looks up the component name of a kind, e.g. `io.k8s.api.core.v1.Pod`.
pub type NameOf<'a> = &'a dyn Fn(&Gvk) -> Option<String>;

/// All paths of `entries` under `root` (`/api/v1`, `/apis/apps/v1`).
pub fn paths(
    root: &str,
    group: &str,
    version: &str,
    entries: &[Entry],
    name_of: NameOf<'_>,
) -> Map<String, Value> {
    let mut paths = Map::new();
    for entry in entries {
        let gvk = Gvk { group: group.to_owned(), version: version.to_owned(), kind: entry.kind.clone() };
        let base = if entry.namespaced {
            format!("{root}/namespaces/{{namespace}}/{}", entry.plural)
        } else {
            format!("{root}/{}", entry.plural)
        };
        let scope = Scope { tag: tag(group, version), namespaced: entry.namespaced, gvk, name_of };
        put(&mut paths, base.clone(), scope.collection(entry));
        put(&mut paths, format!("{base}/{{name}}"), scope.object(entry));
        for sub in &entry.subresources {
            put(&mut paths, format!("{base}/{{name}}/{}", sub.name), scope.subresource(entry, sub));
        }
        if entry.namespaced && entry.verbs.iter().any(|v| v == "list") {
            put(&mut paths, format!("{root}/{}", entry.plural), scope.everywhere(entry));
        }
    }
    paths
}

struct Scope<'a> {
    tag: String,
    namespaced: bool,
    gvk: Gvk,
    name_of: NameOf<'a>,
}

// === impl Scope ===

impl Scope<'_> {
    fn collection(&self, entry: &Entry) -> Map<String, Value> {
        let mut item = self.item(false);
        let list = Gvk { kind: entry.list_kind.clone(), ..self.gvk.clone() };
        for verb in &entry.verbs {
            match verb.as_str() {
                "list" => {
                    let operation = self.operation("list", entry, "", None, &list, &parameters::LIST);
                    item.insert("get".into(), operation);
                }
                "create" => {
                    let operation =
                        self.operation("post", entry, "", Some(&self.gvk), &self.gvk, &parameters::WRITE);
                    item.insert("post".into(), operation);
                }
                "deletecollection" => {
                    let operation =
                        self.operation("deletecollection", entry, "", None, &status(), &parameters::LIST);
                    item.insert("delete".into(), operation);
                }
                _ => {}
            }
        }
        item
    }

    fn everywhere(&self, entry: &Entry) -> Map<String, Value> {
        let mut item = Map::new();
        let list = Gvk { kind: entry.list_kind.clone(), ..self.gvk.clone() };
        item.insert(
            "get".into(),
            self.operation("list", entry, "ForAllNamespaces", None, &list, &parameters::LIST),
        );
        item
    }

    fn object(&self, entry: &Entry) -> Map<String, Value> {
        let mut item = self.item(true);
        for verb in &entry.verbs {
            self.put_verb(&mut item, verb, entry, "", &self.gvk);
        }
        if item.keys().all(|k| k == "parameters") { Map::new() } else { item }
    }

    fn subresource(&self, entry: &Entry, sub: &SubresourceEntry) -> Map<String, Value> {
        let mut item = self.item(true);
        let gvk = Gvk { group: sub.group.clone(), version: sub.version.clone(), kind: sub.kind.clone() };
        let suffix = capitalised(&sub.name);
        for verb in &sub.verbs {
            match verb.as_str() {
                "create" => {
                    let operation =
                        self.operation("post", entry, &suffix, Some(&gvk), &gvk, &parameters::WRITE);
                    item.insert("post".into(), operation);
                }
                other => self.put_verb(&mut item, other, entry, &suffix, &gvk),
            }
        }
        item
    }

    fn put_verb(&self, item: &mut Map<String, Value>, verb: &str, entry: &Entry, suffix: &str, gvk: &Gvk) {
        let (method, operation) = match verb {
            "get" => ("get", self.operation("get", entry, suffix, None, gvk, &[])),
            "update" => ("put", self.operation("put", entry, suffix, Some(gvk), gvk, &parameters::WRITE)),
            "delete" => {
                ("delete", self.operation("delete", entry, suffix, None, &status(), &parameters::DELETE))
            }
            "patch" => {
                let mut operation = self.operation("patch", entry, suffix, None, gvk, &parameters::PATCH);
                let body = reference(&format!("{META}.Patch"));
                // Custom resources know no strategic merge.
                let known = |media: &&&str| entry.fingerprint.is_empty() || !media.contains("strategic");
                let content: Map<String, Value> = PATCHES
                    .iter()
                    .filter(known)
                    .map(|media| ((*media).to_owned(), json!({ "schema": body })))
                    .collect();
                operation["requestBody"] = json!({"content": content, "required": true});
                ("patch", operation)
            }
            _ => return,
        };
        item.insert(method.to_owned(), operation);
    }

    /// The parameters of a path itself.
    fn item(&self, named: bool) -> Map<String, Value> {
        let mut list = Vec::new();
        if named {
            list.push(parameters::in_path("name", &format!("name of the {}", self.gvk.kind)));
        }
        if self.namespaced {
            list.push(parameters::in_path(
                "namespace",
                "object name and auth scope, such as for teams and projects",
            ));
        }
        list.push(parameters::query("pretty"));
        Map::from_iter([("parameters".to_owned(), Value::Array(list))])
    }

    fn operation(
        &self,
        action: &str,
        entry: &Entry,
        suffix: &str,
        body: Option<&Gvk>,
        answer: &Gvk,
        query: &[&str],
    ) -> Value {
        let verb = match action {
            "get" => "read",
            "post" => "create",
            "put" => "replace",
            "deletecollection" => "deleteCollection",
            other => other,
        };
        let scope = if self.namespaced && suffix != "ForAllNamespaces" { "Namespaced" } else { "" };
        let id = format!("{verb}{}{scope}{}{suffix}", camel(&self.tag), entry.kind);
        let mut operation = json!({
            "tags": [self.tag],
            "operationId": id,
            "responses": {"200": self.response(answer), "401": {"description": "Unauthorized"}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk_value(body.unwrap_or(&self.gvk)),
        });
        if matches!(action, "get" | "put" | "patch")
            && answer.kind != self.gvk.kind
            && answer.kind != "Status"
        {
            operation["x-kubernetes-group-version-kind"] = gvk_value(answer);
        }
        if action == "post" {
            operation["responses"]["201"] = self.response(answer);
            operation["responses"]["202"] = self.response(answer);
        }
        if matches!(action, "put" | "patch") {
            operation["responses"]["201"] = self.response(answer);
        }
        if action == "delete" {
            operation["responses"]["202"] = self.response(answer);
        }
        if !query.is_empty() {
            operation["parameters"] = query.iter().map(|name| parameters::query(name)).collect();
        }
        if let Some(schema) = body.and_then(|gvk| (self.name_of)(gvk)) {
            operation["requestBody"] =
                json!({"content": {"*/*": {"schema": reference(&schema)}}, "required": true});
        } else if matches!(action, "delete" | "deletecollection") {
            let schema = reference(&format!("{META}.DeleteOptions"));
            operation["requestBody"] = json!({"content": {"*/*": {"schema": schema}}});
        }
        operation
    }

    fn response(&self, gvk: &Gvk) -> Value {
        let Some(name) = (self.name_of)(gvk) else {
            return json!({"description": "OK"});
        };
        let schema = reference(&name);
        let content: Map<String, Value> =
            BODIES.iter().map(|media| ((*media).to_owned(), json!({ "schema": schema }))).collect();
        json!({"description": "OK", "content": content})
    }
}

fn put(paths: &mut Map<String, Value>, path: String, item: Map<String, Value>) {
    if item.keys().any(|k| k != "parameters") {
        paths.insert(path, Value::Object(item));
    }
}

fn status() -> Gvk {
    Gvk { group: String::new(), version: "v1".to_owned(), kind: "Status".to_owned() }
}

fn gvk_value(gvk: &Gvk) -> Value {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// `core_v1`, `apps_v1`, `rbacAuthorization_v1`: upstream's tags.
fn tag(group: &str, version: &str) -> String {
    if group.is_empty() {
        return format!("core_{version}");
    }
    let short = group.strip_suffix(".k8s.io").unwrap_or(group);
    let mut words = short.split(['.', '-']);
    let first = words.next().unwrap_or_default().to_owned();
    let rest: String = words.map(capitalised).collect();
    format!("{first}{rest}_{version}")
}

fn camel(tag: &str) -> String {
    tag.split('_').map(capitalised).collect()
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployments() -> Entry {
        let scale = SubresourceEntry {
            name: "scale".into(),
            group: "autoscaling".into(),
            version: "v1".into(),
            kind: "Scale".into(),
            verbs: vec!["get".into(), "patch".into()],
        };
        Entry {
            kind: "Deployment".into(),
            list_kind: "DeploymentList".into(),
            plural: "deployments".into(),
            singular: "deployment".into(),
            namespaced: true,
            verbs: ["create", "delete", "get", "list", "patch", "update"].map(str::to_owned).to_vec(),
            short_names: vec![],
            categories: vec![],
            subresources: vec![scale],
            fingerprint: String::new(),
        }
    }

    fn built() -> Map<String, Value> {
        let name_of = |gvk: &Gvk| Some(format!("x.{}.{}", gvk.version, gvk.kind));
        paths("/apis/apps/v1", "apps", "v1", &[deployments()], &name_of)
    }

    #[test]
    fn patch_says_what_kubectl_looks_for() {
        let paths = built();
        let patch = &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
        let names: Vec<&str> =
            patch["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
        assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
        assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
        assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    }

    #[test]
    fn a_foreign_subresource_carries_its_own_kind() {
        let paths = built();
        let scale = &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"];
        assert_eq!(scale["get"]["x-kubernetes-group-version-kind"]["kind"], "Scale");
        assert_eq!(scale["patch"]["x-kubernetes-group-version-kind"]["group"], "autoscaling");
        assert!(scale.get("put").is_none());
    }

    #[test]
    fn tags_read_like_upstreams() {
        assert_eq!(tag("", "v1"), "core_v1");
        assert_eq!(tag("rbac.authorization.k8s.io", "v1"), "rbacAuthorization_v1");
        assert_eq!(tag("apps", "v1"), "apps_v1");
    }
}
