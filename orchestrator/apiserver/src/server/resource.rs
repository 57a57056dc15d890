//! A request on an API resource: finds its definition, reads its options and body, calls the registry, writes the
//! answer.
//!
//! The few resources and subresources that are no stored objects branch off at the top of [`serve`].

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::{Value, json};

use super::chain::{Call, accept, takes_gzip};
use super::list_body::{ListBody, list_meta};
use super::negotiate::{self, Encoding, Negotiated, Shape};
use super::options::{delete_options, list_options, write_context};
use super::{Inner, intake, respond, transform, watch};
use crate::error::ApiError;
use crate::registry::{
    CachedObject, Context, Definition, DeleteOptions, DeleteOutcome, ListResult, PatchKind, Target,
};
use crate::{proxy, reviews, token_request};

/// How the answer is to be written.
#[derive(Clone, Copy)]
pub(crate) struct Reply {
    pub negotiated: Negotiated,
    pub gzip: bool,
}

/// Serves a call on a resource.
pub(crate) async fn serve(inner: &Arc<Inner>, call: Call, body: Body) -> Result<Response<Body>, ApiError> {
    if let Some(review) = reviews::kind_of(&call.info) {
        return reviews::serve(inner, call, body, review).await;
    }
    let info = &call.info;
    let definition =
        inner.registry.find(&info.group, &info.version, &info.resource).ok_or_else(ApiError::no_such_path)?;
    let target = target(&call, &definition)?;
    if let Some(kind) = proxy::kind_of(&definition, &info.subresource) {
        return proxy::serve(inner, call, body, &definition, kind).await;
    }
    allow_verb(&call, &definition)?;
    if definition.group.is_empty() && definition.plural == "serviceaccounts" && info.subresource == "token" {
        return token_request::serve(inner, call, body, &target).await;
    }
    // Custom resources have no protobuf form of their own; their metadata and their Scale have one.
    let custom = definition.custom.clone().filter(|_| info.subresource != "scale");
    let can_be_made =
        |n: &Negotiated| custom.is_none() || (n.encoding, n.shape) != (Encoding::Protobuf, Shape::Object);
    let pretty = call.query.flag("pretty");
    let negotiated = negotiate::negotiate_among(accept(&call.parts.headers), pretty, can_be_made);
    let reply = Reply {
        negotiated: negotiated.ok_or_else(respond::not_acceptable)?,
        gzip: takes_gzip(&call.parts.headers),
    };
    let answered = answer(inner, &call, body, &definition, &target, reply).await;
    let deprecation = definition.custom.as_ref().and_then(|custom| custom.deprecation.clone());
    match (answered, deprecation) {
        (Ok(mut response), Some(warning)) => {
            respond::add_warnings(response.headers_mut(), &[warning]);
            Ok(response)
        }
        (answered, _) => answered,
    }
}

async fn answer(
    inner: &Arc<Inner>,
    call: &Call,
    body: Body,
    definition: &Arc<Definition>,
    target: &Target,
    reply: Reply,
) -> Result<Response<Body>, ApiError> {
    match call.info.verb.as_str() {
        "get" => {
            let context = Context::new(call.user.clone());
            let object = inner.registry.get(&context, definition, target).await?;
            written(inner, call, definition, &object, 200, reply, &context)
        }
        "list" => list(inner, call, definition, target, reply).await,
        "watch" => watch::serve(inner, call, definition, target, reply).await,
        "create" | "update" | "patch" => write(inner, call, body, definition, target, reply).await,
        "delete" | "deletecollection" => delete(inner, call, body, definition, target, reply).await,
        _ => Err(ApiError::method_not_allowed(&definition.group, &definition.plural, &call.info.verb)),
    }
}

/// What the path names, checked against the kind's scope.
fn target(call: &Call, definition: &Definition) -> Result<Target, ApiError> {
    let info = &call.info;
    let is_namespace_itself = definition.group.is_empty() && definition.plural == "namespaces";
    let namespace = (!info.namespace.is_empty() && !is_namespace_itself).then(|| info.namespace.clone());
    let name = info.path_name().map(str::to_owned);
    let subresource = (!info.subresource.is_empty()).then(|| info.subresource.clone());
    let misplaced = match (definition.namespaced, &namespace) {
        (false, Some(_)) => true,
        (true, None) => name.is_some(),
        _ => false,
    };
    if misplaced {
        return Err(ApiError::no_such_path());
    }
    if definition.namespaced
        && namespace.is_none()
        && matches!(info.verb.as_str(), "create" | "deletecollection")
    {
        return Err(method_not_allowed());
    }
    Ok(Target { namespace, name, subresource })
}

fn allow_verb(call: &Call, definition: &Definition) -> Result<(), ApiError> {
    let info = &call.info;
    let verbs = if info.subresource.is_empty() {
        definition.verbs
    } else {
        definition.subresource(&info.subresource).ok_or_else(ApiError::no_such_path)?.verbs
    };
    // POST to an object that exists only as a collection element has no handler upstream either.
    let named_create = info.verb == "create" && info.subresource.is_empty() && !info.name.is_empty();
    let nameless_write = matches!(info.verb.as_str(), "update" | "patch") && info.name.is_empty();
    if verbs.contains(&info.verb.as_str()) && !named_create && !nameless_write {
        Ok(())
    } else {
        Err(method_not_allowed())
    }
}

fn method_not_allowed() -> ApiError {
    ApiError::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
}

async fn list(
    inner: &Arc<Inner>,
    call: &Call,
    definition: &Definition,
    target: &Target,
    reply: Reply,
) -> Result<Response<Body>, ApiError> {
    let context = Context::new(call.user.clone());
    let options = list_options(&call.query)?;
    let result = inner.registry.list(&context, definition, target, &options).await?;
    write_list(inner, call, definition, result, reply)
}

fn write_list(
    inner: &Inner,
    call: &Call,
    definition: &Definition,
    result: ListResult,
    reply: Reply,
) -> Result<Response<Body>, ApiError> {
    let encoding = reply.negotiated.encoding;
    let (api_version, kind) = (definition.api_version(), format!("{}List", &definition.kind));
    let body = match reply.negotiated.shape {
        Shape::Table => {
            let include = transform::include_object(&call.query)?;
            let table = transform::table(definition, &result.items, include, list_meta(&result), true);
            return respond::value(200, inner.registry.schema(), &table, encoding, reply.gzip);
        }
        // One object's metadata is not a form a collection has.
        Shape::Partial => return Err(respond::not_acceptable()),
        Shape::PartialList => {
            let (api_version, kind) = ("meta.k8s.io/v1", "PartialObjectMetadataList");
            let meta = list_meta(&result);
            let partials = result.items.iter().map(|object| transform::partial(object));
            if encoding == Encoding::Protobuf {
                let ty = inner.registry.schema().kind("meta.k8s.io", "v1", "PartialObjectMetadata");
                let ty = ty.ok_or_else(respond::not_acceptable)?;
                let items = partials
                    .map(|value| penstock_schema::protobuf::encode(&ty, &value).map(Into::into))
                    .collect::<Result<_, _>>()
                    .map_err(ApiError::internal)?;
                ListBody::protobuf(api_version, kind, &meta, items)?
            } else {
                ListBody::json_items(
                    api_version,
                    kind,
                    &meta,
                    partials.map(|v| v.to_string().into()).collect(),
                )
            }
        }
        Shape::Object if encoding == Encoding::Protobuf => {
            let items = result.items.iter().map(|object| object.protobuf()).collect::<Result<_, _>>()?;
            ListBody::protobuf(&api_version, &kind, &list_meta(&result), items)?
        }
        Shape::Object => ListBody::json(&api_version, &kind, result),
    };
    write_list_body(body, reply)
}

fn write_list_body(mut body: ListBody, reply: Reply) -> Result<Response<Body>, ApiError> {
    let encoding = reply.negotiated.encoding;
    if matches!(encoding, Encoding::Yaml | Encoding::PrettyJson) {
        // For people, who read short lists: laid out from the whole.
        let value: Value = serde_json::from_slice(&body.collect()).map_err(ApiError::internal)?;
        let text = match encoding {
            Encoding::Yaml => penstock_schema::yaml::encode(&value).map_err(ApiError::internal)?,
            _ => serde_json::to_string_pretty(&value).map_err(ApiError::internal)?,
        };
        return Ok(respond::bytes(200, encoding.content_type(), text.into(), reply.gzip));
    }
    let compressed = reply.gzip && body.compress_if_large();
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(encoding.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if compressed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    Ok(response)
}

async fn write(
    inner: &Arc<Inner>,
    call: &Call,
    body: Body,
    definition: &Definition,
    target: &Target,
    reply: Reply,
) -> Result<Response<Body>, ApiError> {
    let Call { user, info, query, parts, .. } = call;
    let options_kind = match info.verb.as_str() {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        _ => "PatchOptions",
    };
    let agent = parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok());
    let mut context = write_context(user.clone(), query, options_kind, agent)?;
    context.annotations = call.annotations.clone();
    context.create_is_unauthorized = info.verb != "create";
    let outcome = match info.verb.as_str() {
        "create" => {
            let body = intake::read_object(&parts.headers, body).await?;
            inner.registry.create(&context, definition, target, body).await?
        }
        "update" => {
            let body = intake::read_object(&parts.headers, body).await?;
            inner.registry.update(&context, definition, target, body).await?
        }
        _ => {
            let kind = patch_kind(&parts.headers)?;
            check_patch_options(kind, query)?;
            let patch = intake::read(body).await?;
            inner.registry.patch(&context, definition, target, kind, patch).await?
        }
    };
    let code = if outcome.created { 201 } else { 200 };
    written(inner, call, definition, &outcome.object, code, reply, &context)
}

/// The patch a body is, by its Content-Type.
fn patch_kind(headers: &HeaderMap) -> Result<PatchKind, ApiError> {
    let content_type = intake::content_type(headers).unwrap_or_default();
    match negotiate::media_type(content_type).as_str() {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchKind::Strategic),
        "application/apply-patch+yaml" => Ok(PatchKind::Apply),
        _ => Err(ApiError::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, \
             application/strategic-merge-patch+json",
        )),
    }
}

/// `force` belongs to apply, and apply needs a manager: that is not guessed from the User-Agent.
fn check_patch_options(kind: PatchKind, query: &super::query::Query) -> Result<(), ApiError> {
    use crate::error::FieldError;
    let mut errors = Vec::new();
    if kind == PatchKind::Apply {
        if query.text("fieldManager").is_none() {
            errors.push(FieldError::required("fieldManager", "is required for apply patch"));
        }
    } else if query.get("force").is_some() {
        errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", errors)) }
}

async fn delete(
    inner: &Arc<Inner>,
    call: &Call,
    body: Body,
    definition: &Definition,
    target: &Target,
    reply: Reply,
) -> Result<Response<Body>, ApiError> {
    let Call { user, query, parts, .. } = call;
    let mut options = delete_options(query)?;
    let body = intake::read(body).await?;
    if !body.is_empty() {
        let from_query = options.dry_run;
        options = read_delete_options(inner, &parts.headers, body)?;
        options.dry_run |= from_query;
    }
    options.validate()?;
    let mut context = write_context(user.clone(), query, "DeleteOptions", None)?;
    context.annotations = call.annotations.clone();
    context.dry_run = options.dry_run;
    if call.info.verb == "deletecollection" {
        let list = list_options(&call.query)?;
        let result = inner.registry.delete_collection(&context, definition, target, &options, &list).await?;
        return write_list(inner, call, definition, result, reply);
    }
    match inner.registry.delete(&context, definition, target, &options).await? {
        DeleteOutcome::Object { object, accepted } => {
            let code = if accepted { 202 } else { 200 };
            written(inner, call, definition, &object, code, reply, &context)
        }
        DeleteOutcome::Status(status) => {
            let mut response =
                respond::value(200, inner.registry.schema(), &status, reply.negotiated.encoding, false)?;
            respond::add_warnings(response.headers_mut(), &context.warnings.lock());
            Ok(response)
        }
    }
}

fn read_delete_options(
    inner: &Inner,
    headers: &HeaderMap,
    body: bytes::Bytes,
) -> Result<DeleteOptions, ApiError> {
    let format = negotiate::body_format(intake::content_type(headers));
    let ty = inner.registry.schema().kind("", "v1", "DeleteOptions");
    let value = match (format, ty) {
        (Some(negotiate::BodyFormat::Protobuf), Some(ty)) => {
            let envelope = penstock_schema::protobuf::open_envelope(&body)
                .map_err(|e| ApiError::bad_request(e.to_string()))?;
            penstock_schema::protobuf::decode(&ty, &envelope.raw)
                .map_err(|e| ApiError::bad_request(e.to_string()))?
        }
        (Some(negotiate::BodyFormat::Yaml), Some(ty)) => {
            penstock_schema::yaml::decode(&ty, &body)
                .map_err(|e| ApiError::bad_request(e.to_string()))?
                .object
        }
        (Some(_), _) => serde_json::from_slice(&body)
            .map_err(|e| ApiError::bad_request(format!("invalid DeleteOptions: {e}")))?,
        (None, _) => {
            return Err(ApiError::unsupported_media_type("the body of the request was in an unknown format"));
        }
    };
    DeleteOptions::from_value(&value)
}

/// Writes one object in the shape and encoding asked for, with the warnings gathered on the way.
fn written(
    inner: &Inner,
    call: &Call,
    definition: &Definition,
    object: &Arc<CachedObject>,
    code: u16,
    reply: Reply,
    context: &Context,
) -> Result<Response<Body>, ApiError> {
    let schema = inner.registry.schema();
    let encoding = reply.negotiated.encoding;
    let mut response = match reply.negotiated.shape {
        Shape::Object => respond::object(code, object, encoding, reply.gzip)?,
        Shape::Partial => respond::value(code, schema, &transform::partial(object), encoding, reply.gzip)?,
        Shape::PartialList => return Err(respond::not_acceptable()),
        Shape::Table => {
            let include = transform::include_object(&call.query)?;
            let meta = json!({"resourceVersion": object.resource_version.to_string()});
            let table = transform::table(definition, std::slice::from_ref(object), include, meta, true);
            respond::value(code, schema, &table, encoding, reply.gzip)?
        }
    };
    respond::add_warnings(response.headers_mut(), &context.warnings.lock());
    Ok(response)
}
