//! The query string and percent-encoded path segments of a request.
//!
//! Exists so that every reader of options sees the same decoding rules (Go's `url.Values`: repeated keys keep
//! their order, `+` is a space). Must not know what any option means.

use std::fmt::Write;

/// Decoded `key=value` pairs in the order they arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

// === impl Query ===

impl Query {
    /// Parses the part of a URL after `?`. Malformed escapes are kept literally: no input is an error.
    pub fn parse(raw: &str) -> Self {
        let pairs = raw
            .split('&')
            .filter(|piece| !piece.is_empty())
            .map(|piece| {
                let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
                (decode(key, true), decode(value, true))
            })
            .collect();
        Self { pairs }
    }

    /// First value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// First value of `key`, when it is there and not empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    /// Every value of `key`, in order.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.pairs.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Booleans as upstream's query conversion reads them: absent, `false` and `0` are false, anything else is true.
    pub fn flag(&self, key: &str) -> bool {
        self.optional_flag(key).unwrap_or(false)
    }

    /// Like [`Query::flag`], with absence told apart.
    pub fn optional_flag(&self, key: &str) -> Option<bool> {
        self.get(key).map(|value| !matches!(value, "false" | "0" | "False" | "FALSE"))
    }

    /// All pairs, in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

/// Percent-decodes `raw`; with `plus_is_space`, as a query component. Malformed escapes stay as they are, and bytes
/// that are not UTF-8 become U+FFFD (no name or option of the API may contain either).
pub fn decode(raw: &str, plus_is_space: bool) -> String {
    if !raw.bytes().any(|b| b == b'%' || (plus_is_space && b == b'+')) {
        return raw.to_owned();
    }
    let bytes = raw.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => match (hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    at += 2;
                }
                _ => out.push(b'%'),
            },
            b'+' if plus_is_space => out.push(b' '),
            other => out.push(other),
        }
        at += 1;
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// Percent-encodes everything but unreserved characters, for use as a query value or a path segment.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn hex(byte: Option<&u8>) -> Option<u8> {
    byte.and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_keys_keep_their_order() {
        let query = Query::parse("command=sh&command=-c&command=echo+a%2Bb&tty");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "echo a+b"]);
        assert!(query.flag("tty"));
    }

    #[test]
    fn booleans_read_like_upstreams() {
        for (raw, want) in
            [("", false), ("w", true), ("w=true", true), ("w=1", true), ("w=false", false), ("w=0", false)]
        {
            assert_eq!(Query::parse(raw).flag("w"), want, "{raw}");
        }
    }

    #[test]
    fn malformed_escapes_stay_literal() {
        assert_eq!(decode("%zz%4", false), "%zz%4");
        assert_eq!(decode("a+b%2fc", false), "a+b/c");
    }

    #[test]
    fn encoding_then_decoding_is_identity() {
        for text in ["sh -c 'a|b' & ü", "plain", "a/b?c=d"] {
            assert_eq!(decode(&encode(text), true), text);
        }
    }
}
