//! What expressions of admission may say (policies, conditions of webhooks), and what the names in them mean.

use std::sync::Weak;

use futures::FutureExt;
use penstock_expressions::{
    AUTHORIZER, Access, AccessRequest, Authorize, Budget, Decision, Environment, Program, RESOURCE_CHECK,
    Record, Type, Value as Term, Variables,
};
use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::authz::{self, Authorizer};
use crate::registry::User;
use crate::registry::definition::Definition;

/// Which names an expression has beside those that all have.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Offers {
    pub params: bool,
    pub authorizer: bool,
    /// Objects may be made.
    pub objects: bool,
}

/// The names of an expression whose object is of a type.
pub(crate) fn environment(offers: Offers, object: &Type) -> Environment {
    let mut environment = Environment::default()
        .variable("object", object.clone())
        .variable("oldObject", object.clone())
        .variable("namespaceObject", namespace_type())
        .variable("request", request_type());
    if offers.params {
        environment = environment.variable("params", Type::Dyn);
    }
    if offers.authorizer {
        environment = environment
            .variable("authorizer", Type::Opaque(AUTHORIZER))
            .variable("authorizer.requestResource", Type::Opaque(RESOURCE_CHECK));
    }
    if offers.objects { environment.with_objects() } else { environment }
}

/// A source that gives one of these types (any, if there are none); or what to tell its author.
pub(crate) fn compile(source: &str, environment: &Environment, wanted: &[Type]) -> Result<Program, String> {
    let program = penstock_expressions::compile(source, environment)
        .map_err(|error| format!("compilation failed: {error}"))?;
    if !wanted.is_empty() {
        program.must_give(wanted)?;
    }
    Ok(program)
}

fn request_type() -> Type {
    let text = || Type::String;
    let kind =
        Record::of("kubernetes.GroupVersionKind", [("group", text()), ("version", text()), ("kind", text())]);
    let resource = Record::of(
        "kubernetes.GroupVersionResource",
        [("group", text()), ("version", text()), ("resource", text())],
    );
    let user = Record::of(
        "kubernetes.UserInfo",
        [
            ("username", text()),
            ("uid", text()),
            ("groups", Type::list(text())),
            ("extra", Type::map(text(), Type::list(text()))),
        ],
    );
    Record::of(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

fn namespace_type() -> Type {
    let text = || Type::String;
    let texts = || Type::map(text(), text());
    let metadata = Record::of(
        "kubernetes.NamespaceMetadata",
        [
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", texts()),
            ("annotations", texts()),
            ("UID", text()),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", text()),
            ("finalizers", Type::list(text())),
        ],
    );
    let condition = Record::of(
        "kubernetes.NamespaceCondition",
        [
            ("status", text()),
            ("type", text()),
            ("lastTransitionTime", Type::Timestamp),
            ("message", text()),
            ("reason", text()),
        ],
    );
    let spec = Record::of("kubernetes.NamespaceSpec", [("finalizers", Type::list(text()))]);
    let status =
        Record::of("kubernetes.NamespaceStatus", [("conditions", Type::list(condition)), ("phase", text())]);
    Record::of("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
}

/// The values the names have for one request.
pub(crate) struct Subject<'a> {
    /// Null for deletes.
    pub object: &'a Value,
    /// Null for creates.
    pub old: &'a Value,
    /// See [`request_of`].
    pub request: &'a Value,
    /// Null for what is in no namespace.
    pub namespace: &'a Value,
    pub params: Option<&'a Value>,
    pub attributes: &'a Attributes<'a>,
    pub authorizer: Weak<Authorizer>,
}

// === impl Subject ===

impl<'a> Subject<'a> {
    pub fn variables<'v>(&self) -> Variables<'v>
    where
        'a: 'v,
    {
        let mut variables = Variables::default()
            .with("object", Term::of(self.object))
            .with("oldObject", Term::of(self.old))
            .with("request", Term::of(self.request))
            .with("namespaceObject", Term::of(self.namespace));
        if let Some(params) = self.params {
            variables = variables.with("params", Term::of(params));
        }
        let a = self.attributes;
        let who = std::sync::Arc::new(Requester {
            authorizer: self.authorizer.clone(),
            user: a.context.user.clone(),
        });
        let resource = AccessRequest {
            group: a.definition.group.to_string(),
            resource: a.definition.plural.to_string(),
            subresource: a.subresource.to_owned(),
            namespace: a.namespace.to_owned(),
            name: a.name.to_owned(),
            ..AccessRequest::default()
        };
        variables
            .with("authorizer", Access::of(who.clone()))
            .with("authorizer.requestResource", Access::of_resource(who, resource))
    }
}

/// What `request` is: the request under the kind it is matched as.
pub(crate) fn request_of(a: &Attributes<'_>, matched: &Definition) -> Value {
    let of = |definition: &Definition| -> (Value, Value) {
        let (group, version) = (&definition.group, &definition.version);
        let (kind, in_group, in_version) = match definition.subresource(a.subresource) {
            Some(sub) if !sub.kind.is_empty() => (sub.kind, sub.group, sub.version),
            _ => (&*definition.kind, &**group, &**version),
        };
        (
            json!({"group": in_group, "version": in_version, "kind": kind}),
            json!({"group": group, "version": version, "resource": definition.plural}),
        )
    };
    let ((kind, resource), (request_kind, request_resource)) = (of(matched), of(a.definition));
    let user = &a.context.user;
    json!({
        "kind": kind, "resource": resource, "subResource": a.subresource,
        "requestKind": request_kind, "requestResource": request_resource, "requestSubResource": a.subresource,
        "name": a.name, "namespace": a.namespace,
        "operation": word(a.operation),
        "userInfo": {"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra},
        "dryRun": a.context.dry_run,
        "options": null,
    })
}

/// An operation as rules and requests name it.
pub(crate) fn word(operation: Operation) -> &'static str {
    operation.name()
}

/// The user behind a request, as `authorizer` asks for them.
struct Requester {
    authorizer: Weak<Authorizer>,
    user: User,
}

// === impl Requester ===

impl Authorize for Requester {
    fn authorize(&self, request: &AccessRequest) -> Decision {
        let failed =
            |why: &str| Decision { allowed: false, reason: String::new(), error: Some(why.to_owned()) };
        let Some(authorizer) = self.authorizer.upgrade() else { return failed("there is no authorizer") };
        let user = match &request.service_account {
            None => self.user.clone(),
            Some((namespace, name)) => User {
                name: format!("system:serviceaccount:{namespace}:{name}"),
                groups: vec![
                    "system:serviceaccounts".into(),
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated".into(),
                ],
                ..User::default()
            },
        };
        let asked = authz::Attributes {
            verb: request.verb.clone(),
            namespace: request.namespace.clone(),
            group: request.group.clone(),
            version: "*".into(),
            resource: request.resource.clone(),
            subresource: request.subresource.clone(),
            name: request.name.clone(),
            path: request.path.clone().unwrap_or_default(),
            is_resource: request.path.is_none(),
        };
        // Policies are in memory. Only what a node may do can need more, and evaluation cannot wait for it.
        match authorizer.decide(&user, &asked).now_or_never() {
            Some(authz::Decision::Allow { reason }) => Decision { allowed: true, reason, error: None },
            Some(authz::Decision::Deny { reason } | authz::Decision::NoOpinion { reason }) => {
                Decision { allowed: false, reason, error: None }
            }
            None => failed("the decision takes too long"),
        }
    }
}

/// A longer message of an expression does not count.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// What an expression says instead of a fixed message: one line of text, or nothing.
pub(crate) fn message<'v>(
    program: Option<&'v Program>,
    variables: &Variables<'v>,
    budget: &mut Budget,
) -> Option<String> {
    let value = program?.evaluate(variables, budget).ok()?;
    let text = value.as_str().map(str::trim)?;
    let counts = !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n');
    counts.then(|| text.to_owned())
}
