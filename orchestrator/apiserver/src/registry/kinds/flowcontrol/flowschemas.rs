//! FlowSchema: which requests belong to a priority level, and what tells their flows apart.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::bootstrap::flow_control::{EXEMPT, mandatory};
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::meta::names;
use crate::registry::object::{items_at, meta_str, str_at};
use crate::registry::strategy::Strategy;
use crate::tables::flow_control::FLOW_SCHEMAS;

use super::errors_of_conditions;

const PRECEDENCE_MAX: i64 = 10_000;
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub(crate) fn declaration() -> Declaration {
    Declaration::new("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas")
        .cluster_scoped()
        .generation()
        .subresources(&[STATUS])
        .columns(FLOW_SCHEMAS)
        .strategy(FlowSchema)
}

struct FlowSchema;

impl Strategy for FlowSchema {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (name, spec) = (meta_str(new, "name"), &new["spec"]);
        errors_of_precedence(name, spec, &mut errors);
        if let Some(method) = spec.get("distinguisherMethod").filter(|method| !method.is_null()) {
            let allowed = ["ByNamespace", "ByUser"];
            let kind = str_at(method, "/type");
            if !allowed.contains(&kind) {
                errors.push(FieldError::not_supported("spec.distinguisherMethod.type", kind, &allowed));
            }
        }
        let (level, path) =
            (str_at(spec, "/priorityLevelConfiguration/name"), "spec.priorityLevelConfiguration.name");
        if level.is_empty() {
            errors.push(FieldError::required(path, "must reference a priority level"));
        } else if let Some(why) = names::subdomain(level) {
            errors.push(FieldError::invalid(path, level, why));
        }
        for (index, rule) in items_at(spec, "/rules").iter().enumerate() {
            errors_of_rule(rule, &format!("spec.rules[{index}]"), &mut errors);
        }
        if mandatory("FlowSchema", name).is_some_and(|want| want["spec"] != *spec) {
            let why = format!("spec of '{name}' must equal the fixed value");
            errors.push(FieldError::invalid("spec", spec.clone(), why));
        }
        errors.extend(errors_of_conditions(new));
        errors
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        errors_of_conditions(new)
    }
}

fn errors_of_precedence(name: &str, spec: &Value, errors: &mut Vec<FieldError>) {
    let precedence = spec["matchingPrecedence"].as_i64().unwrap_or(0);
    let why = match precedence {
        ..=0 => "must be a positive value".to_owned(),
        1 if name != EXEMPT => "only the schema named 'exempt' may have matchingPrecedence 1".to_owned(),
        n if n > PRECEDENCE_MAX => format!("must not be greater than {PRECEDENCE_MAX}"),
        _ => return,
    };
    errors.push(FieldError::invalid("spec.matchingPrecedence", precedence, why));
}

fn errors_of_rule(rule: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let (subjects, resources, paths) =
        (items_at(rule, "/subjects"), items_at(rule, "/resourceRules"), items_at(rule, "/nonResourceRules"));
    if subjects.is_empty() {
        errors.push(FieldError::required(
            format!("{path}.subjects"),
            "subjects must contain at least one value",
        ));
    }
    for (index, subject) in subjects.iter().enumerate() {
        errors_of_subject(subject, &format!("{path}.subjects[{index}]"), errors);
    }
    if resources.is_empty() && paths.is_empty() {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, why));
    }
    for (index, rule) in resources.iter().enumerate() {
        errors_of_resources(rule, &format!("{path}.resourceRules[{index}]"), errors);
    }
    for (index, rule) in paths.iter().enumerate() {
        errors_of_paths(rule, &format!("{path}.nonResourceRules[{index}]"), errors);
    }
}

fn errors_of_subject(subject: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let kinds = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = str_at(subject, "/kind");
    let Some((_, own)) = kinds.iter().find(|(name, _)| *name == kind) else {
        errors.push(FieldError::not_supported(
            format!("{path}.kind"),
            kind,
            &["Group", "ServiceAccount", "User"],
        ));
        return;
    };
    let at = format!("{path}.{own}");
    match subject.get(*own).filter(|part| !part.is_null()) {
        None => {
            errors.push(FieldError::required(at, format!("{own} is required when subject kind is '{kind}'")))
        }
        Some(part) => {
            let name = str_at(part, "/name");
            if name.is_empty() {
                errors.push(FieldError::required(format!("{at}.name"), ""));
            }
            if *own == "serviceAccount" {
                errors_of_account(part, name, &at, errors);
            }
        }
    }
    for (other_kind, other) in kinds.iter().filter(|(_, other)| other != own) {
        if subject.get(*other).is_some_and(|part| !part.is_null()) {
            let why = format!("{other} is forbidden when subject kind is not '{other_kind}'");
            errors.push(FieldError::forbidden(format!("{path}.{other}"), why));
        }
    }
}

fn errors_of_account(account: &Value, name: &str, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(why) = Some(name).filter(|name| !matches!(*name, "" | "*")).and_then(names::subdomain) {
        errors.push(FieldError::invalid(format!("{path}.name"), name, why));
    }
    let (namespace, path) = (str_at(account, "/namespace"), format!("{path}.namespace"));
    if namespace.is_empty() {
        errors.push(FieldError::required(path, "must specify namespace for service account"));
    } else if let Some(why) = names::label(namespace) {
        errors.push(FieldError::invalid(path, namespace, why));
    }
}

/// Whether a list stands for everything; an error if it names something beside.
fn is_all(rule: &Value, field: &str, others: &str, path: &str, errors: &mut Vec<FieldError>) -> bool {
    let items = items_at(rule, &format!("/{field}"));
    let all = items.iter().any(|item| item == "*");
    if all && items.len() > 1 {
        let why = format!("if '*' is present, must not specify other {others}");
        errors.push(FieldError::invalid(format!("{path}.{field}"), rule[field].clone(), why));
    }
    all
}

fn errors_of_verbs(rule: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let verbs = items_at(rule, "/verbs");
    if verbs.is_empty() {
        errors.push(FieldError::required(format!("{path}.verbs"), "verbs must contain at least one value"));
    } else if !is_all(rule, "verbs", "verbs", path, errors)
        && !verbs.iter().all(|verb| verb.as_str().is_some_and(|verb| VERBS.contains(&verb)))
    {
        errors.push(FieldError::not_supported(format!("{path}.verbs"), rule["verbs"].clone(), &VERBS));
    }
}

fn errors_of_resources(rule: &Value, path: &str, errors: &mut Vec<FieldError>) {
    errors_of_verbs(rule, path, errors);
    for (field, others, one) in
        [("apiGroups", "api groups", "api group"), ("resources", "resources", "resource")]
    {
        if items_at(rule, &format!("/{field}")).is_empty() {
            let why = format!("resource rules must supply at least one {one}");
            errors.push(FieldError::required(format!("{path}.{field}"), why));
        }
        is_all(rule, field, others, path, errors);
    }
    let namespaces = items_at(rule, "/namespaces");
    if namespaces.is_empty() && rule["clusterScope"] != true {
        let why = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(FieldError::required(format!("{path}.namespaces"), why));
    } else if !is_all(rule, "namespaces", "namespaces", path, errors) {
        for (index, namespace) in namespaces.iter().enumerate() {
            if let Some(why) = names::label(namespace.as_str().unwrap_or_default()) {
                let why = format!("each member of this list must be '*' or a DNS-1123 label; {why}");
                let path = format!("{path}.namespaces[{index}]");
                errors.push(FieldError::invalid(path, namespace.clone(), why));
            }
        }
    }
}

fn errors_of_paths(rule: &Value, path: &str, errors: &mut Vec<FieldError>) {
    errors_of_verbs(rule, path, errors);
    let urls = items_at(rule, "/nonResourceURLs");
    if urls.is_empty() {
        let why = "nonResourceURLs must contain at least one value";
        errors.push(FieldError::required(format!("{path}.nonResourceURLs"), why));
    } else if !is_all(rule, "nonResourceURLs", "non-resource URLs", path, errors) {
        for (index, url) in urls.iter().enumerate() {
            if let Some(why) = wrong_path(url.as_str().unwrap_or_default()) {
                let path = format!("{path}.nonResourceURLs[{index}]");
                errors.push(FieldError::invalid(path, url.clone(), why));
            }
        }
    }
}

/// Why a path is none; an asterisk only stands for what follows the last slash.
fn wrong_path(path: &str) -> Option<&'static str> {
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        path if !path.starts_with('/') => Some("must start with slash"),
        path if path.contains(' ') => Some("must not contain white-space"),
        path if path.contains("//") => Some("must not contain double slash"),
        path if path.strip_suffix("/*").unwrap_or(path).contains('*') => {
            Some("wildcard can only do suffix matching")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::bootstrap::flow_control::objects;

    fn refused(name: &str, spec: Value) -> Vec<String> {
        let object = json!({"metadata": {"name": name}, "spec": spec});
        FlowSchema.validate(&object).iter().map(ToString::to_string).collect()
    }

    fn with_rule(rule: Value) -> Vec<String> {
        refused(
            "a",
            json!({"matchingPrecedence": 2, "priorityLevelConfiguration": {"name": "l"}, "rules": [rule]}),
        )
    }

    #[test]
    fn those_every_cluster_has_are_valid() {
        for object in objects().iter().filter(|object| object["kind"] == "FlowSchema") {
            assert_eq!(FlowSchema.validate(object), []);
        }
    }

    #[test]
    fn a_schema_names_a_level_and_a_place_in_the_order() {
        assert_eq!(
            refused("a", json!({"matchingPrecedence": 1, "distinguisherMethod": {"type": "ByLuck"}})),
            [
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                "spec.distinguisherMethod.type: Unsupported value: \"ByLuck\": supported values: \"ByNamespace\", \"ByUser\"",
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
            ]
        );
        let spec = json!({"matchingPrecedence": 10_001, "priorityLevelConfiguration": {"name": "l"}});
        assert_eq!(refused("a", spec).len(), 1);
        let exempt = json!({"matchingPrecedence": 1, "priorityLevelConfiguration": {"name": "exempt"}});
        assert!(refused("exempt", exempt)[0].contains("spec of 'exempt' must equal the fixed value"));
    }

    #[test]
    fn rules_say_who_and_what() {
        assert_eq!(with_rule(json!({})).len(), 2);
        let subject = |subject: Value| {
            with_rule(json!({"subjects": [subject],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/a"]}]}))
        };
        assert!(subject(json!({"kind": "User", "user": {"name": "ann"}})).is_empty());
        assert_eq!(subject(json!({"kind": "User", "group": {"name": "g"}})).len(), 2);
        assert_eq!(subject(json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*"}})).len(), 1);
        assert_eq!(subject(json!({"kind": "Robot"})).len(), 1);
    }

    #[test]
    fn an_asterisk_stands_alone() {
        let rules = |part: &str, rule: Value| {
            with_rule(json!({"subjects": [{"kind": "User", "user": {"name": "*"}}], part: [rule]}))
        };
        let paths =
            |urls: &[&str]| rules("nonResourceRules", json!({"verbs": ["get"], "nonResourceURLs": urls}));
        assert!(paths(&["/a", "/b/*", "/"]).is_empty() && paths(&["*"]).is_empty());
        assert_eq!(paths(&["a", "/a b", "/a//b", "/a*", "/*/b", ""]).len(), 6);
        assert_eq!(paths(&["*", "/a"]).len(), 1);
        let resources = json!({"verbs": ["get", "dance"], "apiGroups": ["*", "apps"], "resources": []});
        assert_eq!(rules("resourceRules", resources).len(), 4);
    }
}
