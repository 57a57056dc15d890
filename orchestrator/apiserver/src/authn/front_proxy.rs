//! `X-Remote-*` headers of a front proxy that authenticated the user itself.
//!
//! Believed only from a peer whose certificate the front-proxy CA signed. Must not know other credentials.

use std::collections::BTreeMap;

use http::HeaderMap;

use super::certificate::Peer;
use crate::registry::User;
use crate::server::query::decode;

const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA_PREFIX: &str = "x-remote-extra-";

/// The user a trusted proxy speaks for. `names` restricts which proxies are trusted; empty means all.
pub fn user(peer: &Peer, headers: &HeaderMap, names: &[String], now: i64) -> Option<User> {
    let proxy = peer.front_proxy(now)?;
    if !names.is_empty() && !names.iter().any(|name| name == proxy) {
        return None;
    }
    let name = headers.get(USER)?.to_str().ok()?.to_owned();
    Some(User {
        name,
        uid: text(headers, UID),
        groups: all(headers, GROUP),
        extra: extra(headers, EXTRA_PREFIX),
    })
}

/// Takes the headers off a request.
pub fn strip(headers: &mut HeaderMap) {
    remove_with_prefix(headers, "x-remote-");
}

/// Every header whose name starts with `prefix`, by the decoded rest of its name.
pub(super) fn extra(headers: &HeaderMap, prefix: &str) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(prefix), value.to_str()) {
            extra.entry(decode(key, false)).or_default().push(value.to_owned());
        }
    }
    extra
}

pub(super) fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
}

pub(super) fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

pub(super) fn remove_with_prefix(headers: &mut HeaderMap, prefix: &str) {
    let names: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(prefix)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_a_stranger_are_not_believed() {
        let mut headers = HeaderMap::new();
        headers.insert(USER, "admin".parse().unwrap());
        assert_eq!(user(&Peer::default(), &headers, &[], 0), None);
    }

    #[test]
    fn extra_headers_are_collected_by_decoded_key() {
        let mut headers = HeaderMap::new();
        headers.append("x-remote-extra-example.com%2fteam", "a".parse().unwrap());
        headers.append("x-remote-extra-example.com%2fteam", "b".parse().unwrap());
        assert_eq!(extra(&headers, EXTRA_PREFIX)["example.com/team"], ["a", "b"]);
        strip(&mut headers);
        assert!(headers.is_empty());
    }
}
