//! Whether the requester may do something: `authorizer.group('apps').resource('deployments').check('get').allowed()`.
//!
//! Who answers is given with the variables ([`Authorize`]).

use std::fmt;
use std::sync::Arc;

use super::no_overload;
use crate::evaluate::Evaluated;
use crate::signatures as names;
use crate::value::{Opaque, Value};

/// Who may do what. Called during evaluation, so it answers from memory.
pub trait Authorize: Send + Sync {
    fn authorize(&self, request: &AccessRequest) -> Decision;
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRequest {
    /// Namespace and name, when it is asked for a service account instead of the requester.
    pub service_account: Option<(String, String)>,
    pub verb: String,
    /// Set for requests that are on no resource.
    pub path: Option<String>,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: Option<String>,
    pub label_selector: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

/// A question that is being put together, or its answer.
#[derive(Clone)]
pub struct Access {
    who: Arc<dyn Authorize>,
    stage: Arc<Stage>,
}

#[derive(Clone, Debug)]
enum Stage {
    Start(AccessRequest),
    Path(AccessRequest),
    Group(AccessRequest),
    Resource(AccessRequest),
    Decided(Arc<Decision>),
}

// === impl Access ===

impl Access {
    /// The variable `authorizer`.
    pub fn of<'a>(who: Arc<dyn Authorize>) -> Value<'a> {
        Value::Opaque(Opaque::Access(Access { who, stage: Arc::new(Stage::Start(AccessRequest::default())) }))
    }

    /// The variable `authorizer.requestResource`.
    pub fn of_resource<'a>(who: Arc<dyn Authorize>, request: AccessRequest) -> Value<'a> {
        Value::Opaque(Opaque::Access(Access { who, stage: Arc::new(Stage::Resource(request)) }))
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match *self.stage {
            Stage::Start(_) => names::AUTHORIZER,
            Stage::Path(_) => names::PATH_CHECK,
            Stage::Group(_) => names::GROUP_CHECK,
            Stage::Resource(_) => names::RESOURCE_CHECK,
            Stage::Decided(_) => names::DECISION,
        }
    }

    fn with<'a>(&self, stage: Stage) -> Evaluated<'a> {
        Ok(Value::Opaque(Opaque::Access(Access { who: self.who.clone(), stage: Arc::new(stage) })))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({:?})", self.stage)
    }
}

pub(super) fn call<'a>(name: &str, access: &Access, args: &[Value<'a>]) -> Evaluated<'a> {
    let texts: Option<Vec<String>> = args[1..].iter().map(|arg| arg.as_str().map(str::to_owned)).collect();
    let texts = texts.unwrap_or_default();
    match (&*access.stage, name, &texts[..]) {
        (Stage::Start(request), "path", [path]) => {
            access.with(Stage::Path(AccessRequest { path: Some(path.clone()), ..request.clone() }))
        }
        (Stage::Start(request), "group", [group]) => {
            access.with(Stage::Group(AccessRequest { group: group.clone(), ..request.clone() }))
        }
        (Stage::Start(request), "serviceAccount", [namespace, name]) => {
            let service_account = Some((namespace.clone(), name.clone()));
            access.with(Stage::Start(AccessRequest { service_account, ..request.clone() }))
        }
        (Stage::Group(request), "resource", [resource]) => {
            access.with(Stage::Resource(AccessRequest { resource: resource.clone(), ..request.clone() }))
        }
        (Stage::Path(request) | Stage::Resource(request), "check", [verb]) => {
            let asked = AccessRequest { verb: verb.clone(), ..request.clone() };
            access.with(Stage::Decided(Arc::new(access.who.authorize(&asked))))
        }
        (Stage::Resource(request), name, [text]) => {
            let mut request = request.clone();
            match name {
                "subresource" => request.subresource = text.clone(),
                "namespace" => request.namespace = text.clone(),
                "name" => request.name = text.clone(),
                "fieldSelector" => request.field_selector = Some(text.clone()),
                "labelSelector" => request.label_selector = Some(text.clone()),
                _ => return Err(no_overload(name, args)),
            }
            access.with(Stage::Resource(request))
        }
        (Stage::Decided(decision), name, []) => match name {
            "allowed" => Ok(Value::Bool(decision.allowed)),
            "reason" => Ok(Value::from(decision.reason.clone())),
            "errored" => Ok(Value::Bool(decision.error.is_some())),
            "error" => Ok(Value::from(decision.error.clone().unwrap_or_default())),
            _ => Err(no_overload(name, args)),
        },
        _ => Err(no_overload(name, args)),
    }
}
