//! APIService: who serves a version of a group. What it does is `aggregation`'s business.

use async_trait::async_trait;
use serde_json::Value;

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::kinds::rules::port_number;
use crate::registry::meta::NameRule;
use crate::registry::meta::names;
use crate::registry::object::{items_at, meta_str, str_at};
use crate::registry::strategy::Strategy;
use crate::tables::cluster::API_SERVICES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("apiregistration.k8s.io", "v1", "APIService", "apiservices")
        .columns(API_SERVICES)
        .categories(&["api-extensions"])
        .cluster_scoped()
        .name_rule(NameRule::PathSegment)
        .conditional_update()
        .subresources(&[STATUS])
        .strategy(ApiService)
}

struct ApiService;

#[async_trait]
impl Strategy for ApiService {
    fn prepare_create(&self, _context: &Context, new: &mut Value) {
        if new["spec"]["service"].is_object() && new["spec"]["service"].get("port").is_none_or(Value::is_null)
        {
            new["spec"]["service"]["port"] = 443.into();
        }
    }

    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = &new["spec"];
        let (group, version) = (str_at(spec, "/group"), str_at(spec, "/version"));
        let (name, wanted) = (meta_str(new, "name"), format!("{version}.{group}"));
        if name != wanted {
            let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            errors.push(FieldError::invalid("metadata.name", name, why));
        }
        if group.is_empty() && version != "v1" {
            let why = "only v1 may have an empty group and it better be legacy kube";
            errors.push(FieldError::required("spec.group", why));
        }
        if let Some(why) = names::subdomain(group).filter(|_| !group.is_empty()) {
            errors.push(FieldError::invalid("spec.group", group, why));
        }
        if let Some(why) = names::label_1035(version) {
            errors.push(FieldError::invalid("spec.version", version, why));
        }
        for (field, max) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
            let priority = spec[field].as_i64().unwrap_or(0);
            if !(1..=max).contains(&priority) {
                let why = format!("must be positive and less than {max}");
                errors.push(FieldError::invalid(format!("spec.{field}"), priority, why));
            }
        }
        let bundle = str_at(spec, "/caBundle");
        let insecure = spec["insecureSkipTLSVerify"] == true;
        let Some(service) = spec.get("service").filter(|service| service.is_object()) else {
            if !bundle.is_empty() {
                let why = "local APIServices may not have a caBundle";
                errors.push(FieldError::invalid(
                    "spec.caBundle",
                    format!("{} bytes", bundle.len() / 4 * 3),
                    why,
                ));
            }
            if insecure {
                let why = "local APIServices may not have insecureSkipTLSVerify";
                errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, why));
            }
            return errors;
        };
        for field in ["namespace", "name"] {
            if str_at(service, &format!("/{field}")).is_empty() {
                errors.push(FieldError::required(format!("spec.service.{field}"), ""));
            }
        }
        let port = service["port"].as_i64().unwrap_or(443);
        if let Some(why) = port_number(port) {
            errors.push(FieldError::invalid("spec.service.port", port, format!("port is not valid: {why}")));
        }
        if insecure && !bundle.is_empty() {
            let why = "may not be true if caBundle is present";
            errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, why));
        }
        errors
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (i, condition) in items_at(new, "/status/conditions").iter().enumerate() {
            let status = str_at(condition, "/status");
            if !["True", "False", "Unknown"].contains(&status) {
                let path = format!("status.conditions[{i}].status");
                errors.push(FieldError::not_supported(path, status, &["True", "False", "Unknown"]));
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_is_made_of_version_and_group() {
        let sound = json!({"metadata": {"name": "v1.g.example.com"}, "spec": {"group": "g.example.com",
            "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
            "service": {"namespace": "n", "name": "s", "port": 443}}});
        assert!(ApiService.validate(&sound).is_empty());
        let mut other = sound.clone();
        other["metadata"]["name"] = "other".into();
        other["spec"]["versionPriority"] = 0.into();
        let told: Vec<String> = ApiService.validate(&other).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "metadata.name: Invalid value: \"other\": must be `spec.version+\".\"+spec.group`: \"v1.g.example.com\"",
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000"
            ]
        );
    }
}
