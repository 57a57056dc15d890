//! `Impersonate-*` headers: acting as someone else, when one may.
//!
//! Every part of the borrowed identity (user, each group, uid, each extra) needs the `impersonate` verb on it.

use http::HeaderMap;

use super::front_proxy::{all, extra, remove_with_prefix, text};
use super::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED};
use crate::authz::{Attributes, Authorizer};
use crate::error::ApiError;
use crate::registry::User;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// The identity the headers ask for; None when they ask for none.
pub fn requested(headers: &HeaderMap) -> Result<Option<User>, ApiError> {
    let wanted = User {
        name: text(headers, USER),
        uid: text(headers, UID),
        groups: all(headers, GROUP),
        extra: extra(headers, EXTRA_PREFIX),
    };
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted == User::default() {
        return Ok(None);
    }
    Err(ApiError::bad_request(
        "requested groups, a uid or extra to be impersonated without impersonating a user",
    ))
}

/// The user a request acts as: the caller, or whom the headers name if the caller may.
pub async fn acting_user(
    caller: User,
    headers: &HeaderMap,
    authorizer: &Authorizer,
) -> Result<User, ApiError> {
    let Some(wanted) = requested(headers)? else {
        return Ok(caller);
    };
    for request in needed(&wanted) {
        authorizer.authorize(&caller, &request).await?;
    }
    Ok(completed(wanted))
}

/// Takes the headers off a request.
pub fn strip(headers: &mut HeaderMap) {
    remove_with_prefix(headers, "impersonate-");
}

fn service_account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')
}

fn needed(wanted: &User) -> Vec<Attributes> {
    let on = |group: &str, resource: &str, namespace: &str, name: &str| Attributes {
        version: "v1".to_owned(),
        ..Attributes::on("impersonate", group, resource, namespace, name)
    };
    let mut needed = vec![match service_account(&wanted.name) {
        Some((namespace, name)) => on("", "serviceaccounts", namespace, name),
        None => on("", "users", "", &wanted.name),
    }];
    needed.extend(wanted.groups.iter().map(|group| on("", "groups", "", group)));
    if !wanted.uid.is_empty() {
        needed.push(on(AUTHENTICATION, "uids", "", &wanted.uid));
    }
    for (key, values) in &wanted.extra {
        needed.extend(values.iter().map(|value| Attributes {
            subresource: key.clone(),
            ..on(AUTHENTICATION, "userextras", "", value)
        }));
    }
    needed
}

/// Adds the groups the user would have had, had they authenticated themselves.
fn completed(mut user: User) -> User {
    if user.groups.is_empty()
        && let Some((namespace, _)) = service_account(&user.name)
    {
        user.groups =
            vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let group = if user.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !user.is_in(AUTHENTICATED) && !user.is_in(UNAUTHENTICATED) {
        user.groups.push(group.to_owned());
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn each_part_of_the_identity_needs_its_own_permission() {
        let headers = headers(&[
            (USER, "bob"),
            (GROUP, "a"),
            (GROUP, "b"),
            (UID, "7"),
            ("impersonate-extra-team", "red"),
        ]);
        let wanted = requested(&headers).unwrap().unwrap();
        let told: Vec<_> = needed(&wanted)
            .into_iter()
            .map(|a| format!("{}/{} {} {}", a.group, a.resource, a.subresource, a.name))
            .collect();
        assert_eq!(
            told,
            [
                "/users  bob",
                "/groups  a",
                "/groups  b",
                "authentication.k8s.io/uids  7",
                "authentication.k8s.io/userextras team red"
            ]
        );
    }

    #[test]
    fn a_service_account_brings_its_groups() {
        let wanted = requested(&headers(&[(USER, "system:serviceaccount:a:bot")])).unwrap().unwrap();
        assert_eq!(
            needed(&wanted)[0],
            Attributes {
                version: "v1".into(),
                ..Attributes::on("impersonate", "", "serviceaccounts", "a", "bot")
            }
        );
        assert_eq!(
            completed(wanted).groups,
            ["system:serviceaccounts", "system:serviceaccounts:a", AUTHENTICATED]
        );
    }

    #[test]
    fn groups_without_a_user_are_an_error() {
        assert!(requested(&headers(&[(GROUP, "a")])).is_err());
        assert_eq!(requested(&HeaderMap::new()).unwrap(), None);
    }
}
