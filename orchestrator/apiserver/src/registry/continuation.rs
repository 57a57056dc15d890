//! Continue tokens: where a paged list goes on, and at which revision.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::error::ApiError;

/// A decoded token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// The snapshot; `None` for one that outlived its snapshot and goes on with the present.
    pub revision: Option<u64>,
    /// The last key given out, relative to the list's prefix.
    pub after: String,
    /// How many objects of the snapshot follow that key, where it is known: the next page then need not count them.
    pub remaining: Option<u64>,
}

impl Continuation {
    pub fn encode(&self) -> String {
        let revision = self.revision.map_or(-1, |r| r as i64);
        let mut token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": format!("{}\0", self.after)});
        if let Some(remaining) = self.remaining {
            token["remaining"] = remaining.into();
        }
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    pub fn decode(token: &str) -> Result<Self, ApiError> {
        let refuse = |why: &str| ApiError::bad_request(format!("continue key is not valid: {why}"));
        let bytes =
            URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|e| refuse(&e.to_string()))?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| refuse(&e.to_string()))?;
        if value["v"] != "meta.k8s.io/v1" {
            return Err(refuse("incorrect version"));
        }
        let start = value["start"].as_str().unwrap_or_default();
        let after = start.strip_suffix('\0').unwrap_or(start);
        if after.is_empty() || after.starts_with('/') || after.split('/').any(|p| p == "..") {
            return Err(refuse("incorrect start"));
        }
        let revision = match value["rv"].as_i64() {
            Some(-1) => None,
            Some(n) if n > 0 => Some(n as u64),
            _ => return Err(refuse("incorrect encoded start resourceVersion")),
        };
        Ok(Self { revision, after: after.to_string(), remaining: value["remaining"].as_u64() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_encoding() {
        for (revision, remaining) in [(Some(7), None), (Some(7), Some(3)), (None, None)] {
            let c = Continuation { revision, after: "default/a".into(), remaining };
            assert_eq!(Continuation::decode(&c.encode()).unwrap(), c);
        }
    }

    #[test]
    fn forged_tokens_are_refused() {
        let forged = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for bad in [
            "%%".to_string(),
            forged("{}"),
            forged(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#),
            forged(r#"{"v":"meta.k8s.io/v1","rv":5,"start":"../secrets/x"}"#),
        ] {
            assert_eq!(Continuation::decode(&bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
