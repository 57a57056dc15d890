//! Reviews: resources that are answered, not stored (`kubectl auth can-i`, `whoami`, token checks).
//!
//! [`RESOURCES`] is the list discovery and OpenAPI read too. Each answer is the posted object with a status.

mod access;
mod identity;

use std::sync::Arc;

use axum::body::Body;
use http::Response;
use penstock_schema::TypeRef;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::registry;
use crate::server::chain::{Call, accept, takes_gzip};
use crate::server::negotiate::Shape;
use crate::server::request_info::RequestInfo;
use crate::server::{Inner, intake, negotiate, respond};

/// Which review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Token,
    SelfSubject,
    SubjectAccess,
    SelfSubjectAccess,
    LocalSubjectAccess,
    SelfSubjectRules,
}

/// A review as discovery shows it.
#[derive(Debug)]
pub struct Review {
    pub what: Kind,
    pub group: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub namespaced: bool,
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

const fn review(what: Kind, group: &'static str, kind: &'static str, plural: &'static str) -> Review {
    Review { what, group, kind, plural, namespaced: matches!(what, Kind::LocalSubjectAccess) }
}

/// All of them; every one is version v1 and only created.
pub const RESOURCES: [Review; 6] = [
    review(Kind::SelfSubject, AUTHENTICATION, "SelfSubjectReview", "selfsubjectreviews"),
    review(Kind::Token, AUTHENTICATION, "TokenReview", "tokenreviews"),
    review(Kind::LocalSubjectAccess, AUTHORIZATION, "LocalSubjectAccessReview", "localsubjectaccessreviews"),
    review(Kind::SelfSubjectAccess, AUTHORIZATION, "SelfSubjectAccessReview", "selfsubjectaccessreviews"),
    review(Kind::SelfSubjectRules, AUTHORIZATION, "SelfSubjectRulesReview", "selfsubjectrulesreviews"),
    review(Kind::SubjectAccess, AUTHORIZATION, "SubjectAccessReview", "subjectaccessreviews"),
];

/// The review a request is about.
pub fn kind_of(info: &RequestInfo) -> Option<&'static Review> {
    RESOURCES.iter().find(|r| {
        r.group == info.group
            && info.version == "v1"
            && r.plural == info.resource
            && info.subresource.is_empty()
    })
}

/// Answers a review.
pub(crate) async fn serve(
    inner: &Arc<Inner>,
    call: Call,
    body: Body,
    review: &Review,
) -> Result<Response<Body>, ApiError> {
    let Call { user, info, query, parts, .. } = call;
    if info.verb != "create" || !info.name.is_empty() {
        return Err(ApiError::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ));
    }
    let negotiated = negotiate::negotiate(accept(&parts.headers), query.flag("pretty"))
        .filter(|negotiated| negotiated.shape == Shape::Object)
        .ok_or_else(respond::not_acceptable)?;
    let gzip = takes_gzip(&parts.headers);
    let body = intake::read_object(&parts.headers, body).await?;
    let ty =
        inner.registry.schema().kind(review.group, "v1", review.kind).ok_or_else(ApiError::no_such_path)?;
    let mut object = decode(&ty, &body)?;
    let status = match review.what {
        Kind::SelfSubject => json!({"userInfo": identity::user_info(&user)}),
        Kind::Token => identity::review_token(inner, &object).await?,
        Kind::SelfSubjectAccess => access::review_own(inner, &user, &object).await?,
        Kind::SubjectAccess => access::review_subject(inner, review.kind, &object).await?,
        Kind::LocalSubjectAccess => access::review_local(inner, &info.namespace, &object).await?,
        Kind::SelfSubjectRules => access::rules(inner, &user, &object)?,
    };
    object["apiVersion"] = format!("{}/v1", review.group).into();
    object["kind"] = review.kind.into();
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["status"] = status;
    respond::value(201, inner.registry.schema(), &object, negotiated.encoding, gzip)
}

/// Decodes a body of a known type; unknown fields are dropped.
pub(crate) fn decode(ty: &TypeRef, body: &registry::Body) -> Result<Value, ApiError> {
    let bad = |e: penstock_schema::DecodeError| ApiError::bad_request(e.to_string());
    let object = match body {
        registry::Body::Json(bytes) => penstock_schema::json::decode(ty, bytes).map_err(bad)?.object,
        registry::Body::Yaml(bytes) => penstock_schema::yaml::decode(ty, bytes).map_err(bad)?.object,
        registry::Body::Protobuf(bytes) => {
            let envelope = penstock_schema::protobuf::open_envelope(bytes).map_err(bad)?;
            penstock_schema::protobuf::decode(ty, &envelope.raw).map_err(bad)?
        }
    };
    if object.is_object() { Ok(object) } else { Err(ApiError::bad_request("the body is not an object")) }
}
