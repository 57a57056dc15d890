//! URLs.

use std::collections::BTreeMap;
use std::sync::Arc;

use url::Url;

use super::no_overload;
use crate::error::EvaluationError;
use crate::evaluate::Evaluated;
use crate::value::{Key, Map, Opaque, Value};

/// `url` and `isURL`.
pub(super) fn parse<'a>(name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text)] = args else { return Err(no_overload(name, args)) };
    let parsed = of_text(text);
    if name == "isURL" {
        return Ok(Value::Bool(parsed.is_some()));
    }
    match parsed {
        Some(url) => Ok(Value::Opaque(Opaque::Url(Arc::new(url)))),
        None => Err(EvaluationError::function(format!(
            "URL parse error during conversion from string: parse {:?}: invalid URI for request",
            &**text
        ))),
    }
}

/// An absolute URI, or an absolute path, which has neither scheme nor host.
fn of_text(text: &str) -> Option<Url> {
    match Url::parse(text) {
        Ok(url) => Some(url),
        Err(_) if text.starts_with('/') => Url::parse(&format!("{PATH_ONLY}{text}")).ok(),
        Err(_) => None,
    }
}

/// What stands before a path that is all there is.
const PATH_ONLY: &str = "path-only://";

pub(super) fn call<'a>(name: &str, url: &Url, args: &[Value<'a>]) -> Evaluated<'a> {
    if args.len() != 1 {
        return Err(no_overload(name, args));
    }
    let path_only = url.as_str().starts_with(PATH_ONLY);
    let port = url.port().map(|port| port.to_string()).unwrap_or_default();
    let host = url.host_str().unwrap_or_default();
    let text = match name {
        "getScheme" if path_only => "",
        "getScheme" => url.scheme(),
        "getHost" if port.is_empty() => host,
        "getHost" => return Ok(Value::from(format!("{host}:{port}"))),
        "getHostname" => host.trim_start_matches('[').trim_end_matches(']'),
        "getPort" => &port,
        "getEscapedPath" => url.path(),
        "getQuery" => {
            let mut found: BTreeMap<Key, Vec<Value<'a>>> = BTreeMap::new();
            for (key, value) in url.query_pairs() {
                found.entry(Key::String(key.as_ref().into())).or_default().push(Value::text(value.as_ref()));
            }
            let made = found.into_iter().map(|(key, values)| (key, Value::list(values))).collect();
            return Ok(Value::Map(Map::Made(Arc::new(made))));
        }
        _ => return Err(no_overload(name, args)),
    };
    Ok(Value::text(text))
}
