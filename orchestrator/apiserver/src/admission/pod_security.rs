//! PodSecurity: the labels of a namespace say how much its pods may ask of the node.
//!
//! Pods beyond the enforced standard are refused; what makes pods (a Deployment, a Job) is only warned about, since its
//! pods are asked again when they come. The standards are pure functions of a pod's template.
//!
//! Rules: <https://kubernetes.io/docs/concepts/security/pod-security-standards/>.

mod baseline;
mod policy;
mod restricted;
mod standard;
mod subject;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, lifecycle};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::object::{items_at, meta_str};
use policy::{Level, Policy, Standard};
use standard::judge;
use subject::Subject;

/// How many pods of a namespace are looked at when its standard is raised.
const PODS_MAX: usize = 3000;

/// Under which auditors read of it.
const ENFORCED: &str = "pod-security.kubernetes.io/enforce-policy";
const VIOLATIONS: &str = "pod-security.kubernetes.io/audit-violations";

pub struct PodSecurity;

#[async_trait]
impl Plugin for PodSecurity {
    async fn validate(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(object) = object else { return Ok(()) };
        match (&*a.definition.group, &*a.definition.plural, a.subresource) {
            ("", "namespaces", "") => validate_namespace(registry, a, object).await,
            ("", "pods", "" | "ephemeralcontainers" | "resize") => {
                if a.old.is_some_and(|old| !runs_other_images(object, old)) {
                    return Ok(());
                }
                let policy = policy_of(registry, a.namespace).await?;
                let subject = Subject { metadata: &object["metadata"], spec: &object["spec"] };
                a.context.annotate(ENFORCED, policy.enforce.to_string());
                tell_auditors(a, &policy, &subject);
                if let Some(broken) = judge(policy.enforce, &subject) {
                    let detail = broken.detail();
                    return Err(a.forbidden(format!("violates PodSecurity \"{}\": {detail}", policy.enforce)));
                }
                warn(a, &policy, &subject);
                Ok(())
            }
            (_, _, "") => {
                let Some(template) = template_of(a, object) else { return Ok(()) };
                let policy = policy_of(registry, a.namespace).await?;
                let subject = Subject { metadata: &template["metadata"], spec: &template["spec"] };
                tell_auditors(a, &policy, &subject);
                warn(a, &policy, &subject);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

async fn policy_of(registry: &Registry, namespace: &str) -> Result<Policy, ApiError> {
    match lifecycle::namespace(registry, namespace).await {
        Ok(namespace) => Ok(policy::of_labels(&labels_of(&namespace)).0),
        // What was left behind in a namespace that is no more may still be let go.
        Err(gone) if gone.is_not_found() => Ok(Policy::default()),
        Err(error) => Err(error),
    }
}

fn warn(a: &Attributes<'_>, policy: &Policy, subject: &Subject<'_>) {
    if let Some(broken) = judge(policy.warn, subject) {
        a.context.warn(format!("would violate PodSecurity \"{}\": {}", policy.warn, broken.detail()));
    }
}

fn tell_auditors(a: &Attributes<'_>, policy: &Policy, subject: &Subject<'_>) {
    if let Some(broken) = judge(policy.audit, subject) {
        let violation = format!("would violate PodSecurity \"{}\": {}", policy.audit, broken.detail());
        a.context.annotate(VIOLATIONS, violation);
    }
}

/// The template of what makes pods.
fn template_of<'a>(a: &Attributes<'_>, object: &'a Value) -> Option<&'a Value> {
    let pointer = match (&*a.definition.group, &*a.definition.plural) {
        ("", "podtemplates") => "/template",
        ("", "replicationcontrollers") | ("batch", "jobs") => "/spec/template",
        ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets") => "/spec/template",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
        _ => return None,
    };
    object.pointer(pointer)
}

/// What else of a running pod can change does not change what it may do.
fn runs_other_images(new: &Value, old: &Value) -> bool {
    ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"].iter().any(|list| {
        let images = |pod| items_at(pod, list).iter().map(|it| it.get("image").cloned()).collect::<Vec<_>>();
        images(new) != images(old)
    })
}

async fn validate_namespace(registry: &Registry, a: &Attributes<'_>, new: &Value) -> Result<(), ApiError> {
    let (policy, errors) = policy::of_labels(&labels_of(new));
    let Some(old) = a.old.filter(|_| a.operation == Operation::Update) else {
        return if errors.is_empty() { Ok(()) } else { Err(invalid(a, errors)) };
    };
    let (former, former_errors) = policy::of_labels(&labels_of(old));
    let told = |errors: &[crate::error::FieldError]| errors.iter().map(|e| e.body()).collect::<Vec<_>>();
    if !errors.is_empty() && told(&errors) != told(&former_errors) {
        return Err(invalid(a, errors));
    }
    let eased =
        policy.enforce.version == former.enforce.version && policy.enforce.level <= former.enforce.level;
    if eased || policy.enforce.level == Level::Privileged {
        return Ok(());
    }
    for warning in present_pods(registry, a.name, policy.enforce).await? {
        a.context.warn(warning);
    }
    Ok(())
}

fn labels_of(object: &Value) -> BTreeMap<String, String> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn invalid(a: &Attributes<'_>, errors: Vec<crate::error::FieldError>) -> ApiError {
    ApiError::invalid(&a.definition.group, &a.definition.kind, a.name, errors)
}

/// What to say of pods that would not be let in any more; they stay.
async fn present_pods(
    registry: &Registry,
    namespace: &str,
    standard: Standard,
) -> Result<Vec<String>, ApiError> {
    let pods = registry.all("", "pods", Some(namespace)).await?;
    // By what is wrong with them: the first name, and how many.
    let mut broken: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in pods.iter().take(PODS_MAX) {
        let pod = pod.value();
        let subject = Subject { metadata: &pod["metadata"], spec: &pod["spec"] };
        if let Some(found) = judge(standard, &subject) {
            let entry =
                broken.entry(found.reasons()).or_insert_with(|| (meta_str(&pod, "name").to_owned(), 0));
            entry.1 += 1;
        }
    }
    let mut warnings = Vec::new();
    if pods.len() > PODS_MAX {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {PODS_MAX} of {} existing pods",
            pods.len()
        ));
    }
    if !broken.is_empty() {
        warnings.push(format!(
            "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let mut each: Vec<String> = broken
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            more => format!("{name} (and {} other pods): {reasons}", more - 1),
        })
        .collect();
    each.sort();
    warnings.extend(each);
    Ok(warnings)
}
