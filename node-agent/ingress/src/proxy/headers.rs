//! Headers on their way through. Pure.
//!
//! It exists to hold RFC 9110's rules for intermediaries (section 7.6.1) and what backends are told of the client.
//! It must not know connections.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Fields that mean one connection, whether or not `Connection` names them. `Transfer-Encoding` is among them because
/// each side frames its body itself, which is also what keeps a smuggled request from surviving.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    http::header::PROXY_AUTHENTICATE,
    http::header::PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The protocol a message wants to change to, or has changed to.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    has_token(headers, CONNECTION, "upgrade").then(|| protocol.clone())
}

/// Makes a message fit for the next connection: without the fields of this one, and asking for `upgrade`, if any.
pub fn forward_headers(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    // Of two framings the chunks count, and the length must not go on (RFC 9112, section 6.3).
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    let takes_trailers = has_token(headers, TE, "trailers");
    let named: Vec<HeaderName> = tokens(headers, CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        // Without these the message would mean something else; no honest sender names them.
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Tells the backend who asked and for which host. What the client claims about itself is replaced: this is the edge,
/// and a backend that trusts these fields must be able to.
pub fn set_forwarded(headers: &mut HeaderMap, client: IpAddr, host: &HeaderValue) {
    headers.remove(FORWARDED);
    if let Ok(address) = HeaderValue::try_from(client.to_canonical().to_string()) {
        headers.insert(X_FORWARDED_FOR, address.clone());
        headers.insert(X_REAL_IP, address);
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    headers.insert(X_FORWARDED_HOST, host.clone());
    headers.insert(HOST, host.clone());
}

fn has_token(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        of.iter().map(pair).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn fields_of_one_connection_go_no_further() {
        let mut all = headers(&[
            ("connection", "close, X-Mine,, bad name ,content-length"),
            ("connection", "host"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip;q=0.5"),
            ("upgrade", "h2c"),
            ("content-length", "3"),
            ("host", "a.test"),
            ("accept", "*/*"),
        ]);
        forward_headers(&mut all, None);
        assert_eq!(names(&all), ["accept", "content-length", "host"]);
    }

    #[test]
    fn of_two_framings_the_length_goes_no_further() {
        let mut all =
            headers(&[("content-length", "3"), ("transfer-encoding", "chunked"), ("accept", "*/*")]);
        forward_headers(&mut all, None);
        assert_eq!(names(&all), ["accept"]);
    }

    #[test]
    fn an_upgrade_is_asked_for_again_and_trailers_stay_welcome() {
        let mut all = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("te", "trailers, gzip"),
        ]);
        let wanted = upgrade(&all);
        assert_eq!(wanted.as_ref().map(HeaderValue::as_bytes), Some(&b"websocket"[..]));
        forward_headers(&mut all, wanted);
        assert_eq!(all[CONNECTION], "upgrade");
        assert_eq!(all[UPGRADE], "websocket");
        assert_eq!(all[TE], "trailers");
        assert_eq!(upgrade(&headers(&[("upgrade", "websocket")])), None, "Connection does not name it");
    }

    #[test]
    fn what_a_client_claims_about_itself_is_replaced() {
        let mut all = headers(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("forwarded", "for=x"),
        ]);
        let client = "::ffff:192.0.2.7".parse().unwrap();
        set_forwarded(&mut all, client, &HeaderValue::from_static("a.test:8080"));
        assert_eq!(all.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>(), ["192.0.2.7"]);
        assert_eq!(all[X_FORWARDED_HOST], "a.test:8080");
        assert_eq!(all[HOST], "a.test:8080");
        assert!(!all.contains_key(FORWARDED));
    }
}
