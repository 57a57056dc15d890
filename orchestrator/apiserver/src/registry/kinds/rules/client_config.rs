//! `clientConfig`: whom the server asks, of webhooks and of conversions.

use http::Uri;
use serde_json::Value;

use crate::error::FieldError;
use crate::registry::meta::names;
use crate::registry::object::str_at;

const FORM: &str = "; desired format: https://host[/path]";

pub(crate) fn validate(client: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let given = |field: &str| client.get(field).filter(|value| !value.is_null());
    match (given("url"), given("service")) {
        (Some(url), None) => validate_url(url.as_str().unwrap_or_default(), &format!("{path}.url"), errors),
        (None, Some(service)) => validate_service(service, &format!("{path}.service"), errors),
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
}

fn validate_url(url: &str, path: &str, errors: &mut Vec<FieldError>) {
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let uri: Uri = match rest.parse() {
        Ok(uri) => uri,
        Err(e) => {
            errors.push(FieldError::required(path, format!("url must be a valid URL: {e}{FORM}")));
            return;
        }
    };
    let scheme = uri.scheme_str().unwrap_or_default();
    if scheme != "https" {
        let why = format!("'https' is the only allowed URL scheme{FORM}");
        errors.push(FieldError::invalid(path, scheme, why));
    }
    if uri.host().unwrap_or_default().is_empty() {
        errors.push(FieldError::invalid(path, "", format!("host must be specified{FORM}")));
    }
    if let Some((user, _)) = uri.authority().and_then(|a| a.as_str().rsplit_once('@')) {
        errors.push(FieldError::invalid(path, user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        errors.push(FieldError::invalid(path, fragment, "fragments are not permitted in the URL"));
    }
    if let Some(query) = uri.query().filter(|query| !query.is_empty()) {
        errors.push(FieldError::invalid(path, query, "query parameters are not permitted in the URL"));
    }
}

fn validate_service(service: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for field in ["name", "namespace"] {
        if str_at(service, &format!("/{field}")).is_empty() {
            errors.push(FieldError::required(format!("{path}.{field}"), ""));
        }
    }
    if let Some(port) = service["port"].as_i64()
        && let Some(why) = super::port_number(port)
    {
        errors.push(FieldError::invalid(format!("{path}.port"), port, format!("port is not valid: {why}")));
    }
    let url_path = str_at(service, "/path");
    let mut refuse = |why: String| errors.push(FieldError::invalid(format!("{path}.path"), url_path, why));
    if matches!(url_path, "" | "/") {
        return;
    }
    if url_path == "//" {
        refuse("segment[0] may not be empty".into());
        return;
    }
    let Some(rest) = url_path.strip_prefix('/') else {
        refuse("must start with a '/'".into());
        return;
    };
    for (i, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            refuse(format!("segment[{i}] may not be empty"));
        } else if let Some(why) = names::subdomain(segment) {
            refuse(format!("segment[{i}]: {why}"));
        }
    }
}
