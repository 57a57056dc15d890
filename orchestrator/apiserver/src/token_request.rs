//! The `token` subresource of service accounts: hands out bound tokens.

use axum::body::Body;
use http::Response;
use jiff::Timestamp;
use penstock_tokens::{KubernetesClaims, Reference};
use serde_json::{Value, json};

use crate::authz::rules::strings;
use crate::error::{ApiError, FieldError};
use crate::registry::{CachedObject, Context, Target};
use crate::reviews;
use crate::server::chain::{Call, accept};
use crate::server::{Inner, intake, negotiate, respond};

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
const SECONDS_DEFAULT: i64 = 3600;
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;

/// Answers a POST to `serviceaccounts/<name>/token`.
pub(crate) async fn serve(
    inner: &Inner,
    call: Call,
    body: Body,
    target: &Target,
) -> Result<Response<Body>, ApiError> {
    let Call { query, parts, .. } = call;
    let negotiated = negotiate::negotiate(accept(&parts.headers), query.flag("pretty"))
        .ok_or_else(respond::not_acceptable)?;
    let ty = inner.registry.schema().kind(GROUP, "v1", KIND).ok_or_else(ApiError::no_such_path)?;
    let mut object = reviews::decode(&ty, &intake::read_object(&parts.headers, body).await?)?;
    let (namespace, name) = (target.namespace(), target.name());
    let account = find(inner, "serviceaccounts", Some(namespace), name).await?;
    for (pointer, want) in [("/metadata/name", name), ("/metadata/namespace", namespace)] {
        let given = object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if !given.is_empty() && given != want {
            return Err(ApiError::bad_request(format!(
                "the {pointer} of the TokenRequest does not match the URL"
            )));
        }
    }
    let seconds = expiration(&object)?;
    let mut audiences = strings(object.pointer("/spec/audiences"));
    if audiences.is_empty() {
        audiences = inner.issuer.audiences().to_vec();
    }
    let mut claims = KubernetesClaims {
        namespace: namespace.to_owned(),
        serviceaccount: Reference { name: name.to_owned(), uid: account.uid.clone() },
        pod: None,
        secret: None,
        node: None,
    };
    bind(inner, &object, &mut claims).await?;
    let now = Timestamp::now();
    let token = inner
        .issuer
        .issue(claims, audiences.clone(), now.as_second(), seconds)
        .map_err(ApiError::internal)?;
    let expires = Timestamp::from_second(now.as_second() + seconds).map_err(ApiError::internal)?;
    object["apiVersion"] = format!("{GROUP}/v1").into();
    object["kind"] = KIND.into();
    let created = Timestamp::from_second(now.as_second()).map_err(ApiError::internal)?;
    object["metadata"] =
        json!({"name": name, "namespace": namespace, "creationTimestamp": created.to_string()});
    object["spec"]["audiences"] = json!(audiences);
    object["spec"]["expirationSeconds"] = seconds.into();
    object["status"] = json!({"token": token, "expirationTimestamp": expires.to_string()});
    respond::value(201, inner.registry.schema(), &object, negotiated.encoding, false)
}

fn expiration(object: &Value) -> Result<i64, ApiError> {
    let seconds =
        object.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(SECONDS_DEFAULT);
    let why = match seconds {
        ..SECONDS_MIN => "may not specify a duration less than 10 minutes",
        _ if seconds > SECONDS_MAX => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(seconds),
    };
    let wrong = FieldError::invalid("spec.expirationSeconds", seconds, why);
    Err(ApiError::invalid(GROUP, KIND, "", vec![wrong]))
}

/// Binds the token to the object `spec.boundObjectRef` names.
async fn bind(inner: &Inner, object: &Value, claims: &mut KubernetesClaims) -> Result<(), ApiError> {
    let Some(bound) = object.pointer("/spec/boundObjectRef").filter(|v| v.is_object()) else {
        return Ok(());
    };
    let text = |key: &str| bound.get(key).and_then(Value::as_str).unwrap_or_default();
    let (name, uid) = (text("name"), text("uid"));
    let namespace = claims.namespace.clone();
    let plural = match text("kind") {
        "Pod" => "pods",
        "Secret" => "secrets",
        "Node" => "nodes",
        other => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {}, Kind={other}",
                text("apiVersion")
            )));
        }
    };
    let found = find(inner, plural, (plural != "nodes").then_some(namespace.as_str()), name).await?;
    if !uid.is_empty() && uid != found.uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. \
             The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict("", plural, name, why));
    }
    let reference = Reference { name: name.to_owned(), uid: found.uid.clone() };
    match plural {
        "pods" => {
            let pod = found.value();
            let account = pod.pointer("/spec/serviceAccountName").and_then(Value::as_str).unwrap_or_default();
            if account != claims.serviceaccount.name {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    claims.serviceaccount.name
                )));
            }
            claims.pod = Some(reference);
            if let Some(node) =
                pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|n| !n.is_empty())
                && let Ok(found) = find(inner, "nodes", None, node).await
            {
                claims.node = Some(Reference { name: node.to_owned(), uid: found.uid.clone() });
            }
        }
        "secrets" => claims.secret = Some(reference),
        _ => claims.node = Some(reference),
    }
    Ok(())
}

async fn find(
    inner: &Inner,
    plural: &str,
    namespace: Option<&str>,
    name: &str,
) -> Result<std::sync::Arc<CachedObject>, ApiError> {
    let definition = inner.registry.find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
    inner.registry.get(&Context::system(), &definition, &Target::named(namespace, name)).await
}
