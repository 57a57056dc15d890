//! A request passed on to an extension server, in the name of the user who made it.

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use super::Aggregation;
use super::remote::Remote;
use crate::error::ApiError;
use crate::proxy::location::with_query;
use crate::proxy::relay::Passage;
use crate::registry::User;
use crate::server::chain::Call;
use crate::server::query::encode;

/// Passes a request on and relays the answer, upgrades included.
pub(crate) async fn serve(
    aggregation: &Aggregation,
    call: Call,
    body: Body,
    remote: &Remote,
) -> Result<Response<Body>, ApiError> {
    let unavailable = || ApiError::unavailable("service unavailable");
    if !remote.available {
        return Err(unavailable());
    }
    let Call { user, parts, .. } = call;
    let path = with_query(parts.uri.path(), parts.uri.query());
    let (passage, mut request) = Passage::begin(parts, body, &path)?;
    speak_for(&user, request.headers_mut());
    let registry = &aggregation.registry;
    let identity = aggregation.identity();
    let identity = identity.as_ref();
    let answer = registry.outbound().send(registry, &remote.target, identity, request).await;
    let answer = answer.map_err(|error| {
        tracing::warn!(apiservice = remote.name, %error, "an extension server could not be reached");
        ApiError::unavailable(format!("error trying to reach service: {error}"))
    })?;
    if answer.status().is_redirection() && answer.headers().contains_key(http::header::LOCATION) {
        let why = "the backend attempted to redirect this request, which is not permitted";
        return Err(ApiError::new(502, "", why));
    }
    passage.end(answer, ())
}

/// Names the user as front proxies do. What a client put there is taken off before.
pub(super) fn speak_for(user: &User, headers: &mut HeaderMap) {
    let mut put = |name: &str, value: &str| {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    };
    put("x-remote-user", &user.name);
    if !user.uid.is_empty() {
        put("x-remote-uid", &user.uid);
    }
    user.groups.iter().for_each(|group| put("x-remote-group", group));
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", encode(&key.to_ascii_lowercase()));
        values.iter().for_each(|value| put(&name, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_told_with_groups_and_extra() {
        let user = User {
            name: "ann".into(),
            uid: "7".into(),
            groups: vec!["a".into(), "b".into()],
            extra: [("example.com/team".to_owned(), vec!["x".to_owned()])].into(),
        };
        let mut headers = HeaderMap::new();
        speak_for(&user, &mut headers);
        let told: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert!(told.contains(&("x-remote-user", "ann")) && told.contains(&("x-remote-uid", "7")));
        assert_eq!(headers.get_all("x-remote-group").iter().count(), 2);
        assert_eq!(headers["x-remote-extra-example.com%2fteam"], "x");
    }
}
