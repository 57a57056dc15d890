//! PersistentVolumeClaim: storage somebody asks for. Once made it may grow and little else.

use penstock_schema::Quantity;
use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::field_rules::{self, Check, Fixed, Rule, at, is_same, quantity, within};
use crate::registry::kinds::rules::labels::validate_selector;
use crate::registry::kinds::rules::volume_modes::{ACCESS_MODES, VOLUME_MODES};
use crate::registry::meta::{self, names};
use crate::registry::object::str_at;
use crate::registry::strategy::Strategy;
use crate::tables::core::CLAIMS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
        .columns(CLAIMS)
        .short(&["pvc"])
        .returns_deleted()
        .subresources(&[STATUS])
        .rules(RULES)
        .fixed(&[Fixed::Field("spec.volumeMode")])
        .status_rules(STATUS_RULES)
        .strategy(Claim)
}

const RULES: &[Rule] = &[at("spec", Check::Judge(validate_spec))];

const STATUS_RULES: &[Rule] = &[
    at("status.capacity{}", Check::NotNegative),
    at("status.allocatedResources{}", Check::NotNegative),
    at(
        "status.allocatedResourceStatuses{}",
        Check::OneOf(&[
            "ControllerResizeInProgress",
            "ControllerResizeInfeasible",
            "NodeResizeInProgress",
            "NodeResizeInfeasible",
            "NodeResizePending",
        ]),
    ),
];

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const REQUEST: &str = "/spec/resources/requests/storage";

const SPEC: &[Rule] = &[
    at("accessModes", Check::Required("at least 1 access mode is required")),
    at("accessModes", Check::Judge(ACCESS_MODES)),
    at("selector", Check::Judge(validate_selector)),
    at("resources", Check::Judge(request)),
    at("storageClassName", Check::Name(names::subdomain)),
    at("volumeMode", Check::OneOf(VOLUME_MODES)),
    within("dataSource", SOURCE),
    within("dataSourceRef", SOURCE),
    at("dataSourceRef.namespace", Check::Name(names::label)),
    at("", Check::Judge(sources)),
    at("volumeAttributesClassName", Check::Name(names::subdomain)),
];

const SOURCE: &[Rule] = &[
    at("name", Check::Required("")),
    at("kind", Check::Required("")),
    at("apiGroup", Check::Name(names::subdomain)),
    at("", Check::Judge(core_source)),
];

/// The spec of a claim, wherever it stands (claim templates of StatefulSets and pods).
pub(crate) fn validate_spec(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    field_rules::judge(SPEC, spec, path, errors);
}

/// Metadata and spec of a template for a claim.
pub(crate) fn validate_template(template: &Value, path: &str, errors: &mut Vec<FieldError>) {
    meta::validate_template(template, &format!("{path}.metadata"), errors);
    validate_spec(&template["spec"], &format!("{path}.spec"), errors);
}

fn request(resources: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let amount = &resources["requests"]["storage"];
    let at = format!("{path}[storage]");
    if amount.is_null() {
        errors.push(FieldError::required(at, ""));
    } else if quantity(amount).is_some_and(|it| it <= Quantity::ZERO) {
        errors.push(FieldError::invalid(at, amount.clone(), "must be greater than zero"));
    }
}

fn core_source(source: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let kind = str_at(source, "/kind");
    if str_at(source, "/apiGroup").is_empty() && kind != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(path, kind, why));
    }
}

/// Both ways to name a source name the same, or only the newer can name another namespace's.
fn sources(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let (old, new) = (&spec["dataSource"], &spec["dataSourceRef"]);
    if old.is_null() || new.is_null() {
        return;
    }
    let why = if !str_at(new, "/namespace").is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if ["apiGroup", "kind", "name"].iter().any(|field| !is_same(&old[*field], &new[*field])) {
        "must match dataSourceRef"
    } else {
        return;
    };
    errors.push(FieldError::invalid(path, format!("{path}.dataSource"), why));
}

struct Claim;

impl Strategy for Claim {
    fn prepare_create(&self, _context: &Context, new: &mut Value) {
        new["status"] = json!({"phase": "Pending"});
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if !is_same(&compared(new, old), &old["spec"]) {
            errors.push(FieldError::forbidden(
                "spec",
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
            ));
        }
        let beta = |claim: &Value| claim["metadata"]["annotations"][BETA_CLASS].clone();
        if beta(new) != beta(old) && !(beta(new).is_null() && new["spec"]["storageClassName"] == beta(old)) {
            let at = format!("metadata.annotations[{BETA_CLASS}]");
            errors.push(FieldError::invalid(at, beta(new), "field is immutable"));
        }
        let amount = |claim: &Value, pointer: &str| claim.pointer(pointer).and_then(quantity);
        if let (Some(is), Some(was)) = (amount(new, REQUEST), amount(old, REQUEST))
            && is < was
            && is <= amount(old, "/status/capacity/storage").unwrap_or(Quantity::ZERO)
        {
            let why = "field can not be less than status.capacity";
            errors.push(FieldError::forbidden("spec.resources.requests.storage", why));
        }
        let class = &new["spec"]["volumeAttributesClassName"];
        if class != &old["spec"]["volumeAttributesClassName"]
            && !old["status"]["currentVolumeAttributesClassName"].is_null()
            && class.as_str().is_none_or(str::is_empty)
        {
            let to = if class.is_null() { "nil" } else { "empty string" };
            let why = format!(
                "update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil"
            );
            errors.push(FieldError::forbidden("spec.volumeAttributesClassName", why));
        }
        errors
    }
}

/// The new spec, but for what may differ from the old one.
fn compared(new: &Value, old: &Value) -> Value {
    let mut spec = new["spec"].clone();
    let mut restore = |field: &str| {
        if let Some(map) = spec.as_object_mut() {
            map.insert(field.into(), old["spec"][field].clone());
        }
    };
    if str_at(old, "/spec/volumeName").is_empty() {
        restore("volumeName");
    }
    // A claim without a class may be given one, also the one its older annotation named.
    let beta = &old["metadata"]["annotations"][BETA_CLASS];
    if old["spec"]["storageClassName"].is_null()
        && (beta.is_null() || *beta == new["spec"]["storageClassName"])
    {
        restore("storageClassName");
    }
    if str_at(new, "/status/phase") == "Bound" {
        restore("volumeAttributesClassName");
        if spec["resources"]["requests"].is_object() {
            spec["resources"]["requests"]["storage"] = old.pointer(REQUEST).cloned().unwrap_or_default();
        }
    }
    spec
}
