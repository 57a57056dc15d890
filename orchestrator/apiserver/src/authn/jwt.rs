//! Tokens of other issuers (OpenID Connect): genuine, current, for us, and then a user by the issuer's rules.
//!
//! [`settings`] is what an administrator wrote, [`claims`] what it makes of a payload, [`keys`] what signatures are
//! checked with. Signatures and times are checked here.

pub mod claims;
pub mod keys;
pub mod settings;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::error::FieldError;
use crate::registry::{Registry, User};
use claims::{ClaimError, Rules};
use keys::{KeySet, Keys, KeysError};
use settings::{ALGORITHMS, JwtSettings};

/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// A token may say it is not valid before a time this far ahead: clocks differ (as upstream's library has it).
const NOT_BEFORE_LEEWAY_SECONDS: i64 = 5 * 60;
/// How often an issuer that was not there at start is asked again.
const PRIME_INTERVAL: Duration = Duration::from_secs(10);

/// Why a token of a known issuer is refused.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    #[error("the token's header cannot be read: {why}")]
    Header { why: String },
    #[error("the token is signed with {algorithm:?}, which is not accepted")]
    Algorithm { algorithm: Algorithm },
    #[error("no key of the issuer has made the token's signature (key {id:?}): {why}")]
    Signature { id: Option<String>, why: String },
    #[error("the keys of the issuer are not known")]
    Keys(#[source] KeysError),
    #[error("the token has expired, or does not say when it does")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token is for {is:?}, and has to be for one of {wanted:?}")]
    Audience { is: Vec<String>, wanted: Vec<String> },
    #[error(transparent)]
    Claims(#[from] ClaimError),
}

/// One issuer.
struct JwtAuthenticator {
    issuer: String,
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    rules: Rules,
    keys: Keys,
}

/// All issuers.
#[derive(Default)]
pub struct JwtAuthenticators {
    by_issuer: Vec<Arc<JwtAuthenticator>>,
}

// === impl JwtAuthenticators ===

impl JwtAuthenticators {
    /// Checks and compiles what an administrator wrote. `taken` are issuers whose tokens others check.
    ///
    /// # Errors
    /// Everything that is wrong with any entry.
    pub fn new(
        registry: &Arc<Registry>,
        settings: &[JwtSettings],
        taken: &[&str],
    ) -> Result<Self, Vec<FieldError>> {
        let (mut by_issuer, mut errors) = (Vec::new(), Vec::new());
        for (index, entry) in settings.iter().enumerate() {
            let at = format!("jwt[{index}]");
            let JwtSettings { issuer, algorithms, .. } = entry;
            issuer.check(&format!("{at}.issuer"), taken, &mut errors);
            let earlier = &settings[..index];
            if earlier.iter().any(|other| other.issuer.url == issuer.url) {
                errors.push(FieldError::duplicate(format!("{at}.issuer.url"), issuer.url.as_str()));
            }
            let discovery = &issuer.discovery_url;
            if !discovery.is_empty() && earlier.iter().any(|other| other.issuer.discovery_url == *discovery) {
                errors.push(FieldError::duplicate(format!("{at}.issuer.discoveryURL"), discovery.as_str()));
            }
            match Rules::compile(entry, &at) {
                Err(wrong) => errors.extend(wrong),
                Ok(rules) => by_issuer.push(Arc::new(JwtAuthenticator {
                    issuer: issuer.url.clone(),
                    audiences: issuer.audiences.clone(),
                    algorithms: if algorithms.is_empty() { ALGORITHMS.to_vec() } else { algorithms.clone() },
                    rules,
                    keys: Keys::new(
                        registry.clone(),
                        &issuer.url,
                        &issuer.discovery_url,
                        &issuer.certificate_authority,
                    ),
                })),
            }
        }
        if errors.is_empty() { Ok(Self { by_issuer }) } else { Err(errors) }
    }

    /// Reads every issuer's keys before anybody asks, again and again until it is there.
    pub fn prime(&self, stop: &CancellationToken) {
        for authenticator in &self.by_issuer {
            let (authenticator, stop) = (authenticator.clone(), stop.clone());
            tokio::spawn(stop.run_until_cancelled_owned(async move {
                while let Err(error) = authenticator.keys.current().await {
                    if !matches!(error, KeysError::TooSoon) {
                        tracing::warn!(issuer = authenticator.issuer, %error, "tokens of an issuer are refused until its keys can be read");
                    }
                    tokio::time::sleep(PRIME_INTERVAL).await;
                }
            }));
        }
    }

    /// The user of a token at `now` (seconds since 1970); `None` when no issuer here issued it.
    ///
    /// # Errors
    /// One of them did, and it is no good.
    pub async fn user(&self, token: &str, now: i64) -> Result<Option<User>, JwtError> {
        if self.by_issuer.is_empty() {
            return Ok(None);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwtError::TooLong);
        }
        let Some(issuer) = untrusted_issuer(token) else { return Ok(None) };
        match self.by_issuer.iter().find(|authenticator| authenticator.issuer == issuer) {
            None => Ok(None),
            Some(authenticator) => authenticator.user(token, now).await.map(Some),
        }
    }
}

// === impl JwtAuthenticator ===

impl JwtAuthenticator {
    async fn user(&self, token: &str, now: i64) -> Result<User, JwtError> {
        let header =
            jsonwebtoken::decode_header(token).map_err(|e| JwtError::Header { why: e.to_string() })?;
        if !self.algorithms.contains(&header.alg) {
            return Err(JwtError::Algorithm { algorithm: header.alg });
        }
        let claims = self.genuine(token, &header).await?;
        check_times(&claims, now)?;
        self.check_audience(&claims)?;
        Ok(self.rules.user(&claims)?)
    }

    /// The payload, once a key of the issuer has been found to have signed it.
    async fn genuine(&self, token: &str, header: &Header) -> Result<Value, JwtError> {
        let known = self.keys.current().await.map_err(JwtError::Keys)?;
        let refused = match signed(token, header, &known) {
            Ok(claims) => return Ok(claims),
            Err(why) => JwtError::Signature { id: header.kid.clone(), why },
        };
        // A key of another name, or another key of the name: the issuer may have changed them.
        match self.keys.newer(Some(&known)).await {
            Ok(newer) => signed(token, header, &newer)
                .map_err(|why| JwtError::Signature { id: header.kid.clone(), why }),
            Err(KeysError::TooSoon) => Err(refused),
            Err(error) => {
                tracing::warn!(issuer = self.issuer, %error, "the issuer's keys could not be read again");
                Err(refused)
            }
        }
    }

    fn check_audience(&self, claims: &Value) -> Result<(), JwtError> {
        let is: Vec<String> = match &claims["aud"] {
            Value::String(one) => vec![one.clone()],
            Value::Array(several) => several.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        if is.iter().any(|audience| self.audiences.contains(audience)) {
            Ok(())
        } else {
            Err(JwtError::Audience { is, wanted: self.audiences.clone() })
        }
    }
}

fn signed(token: &str, header: &Header, keys: &KeySet) -> Result<Value, String> {
    let mut validation = Validation::new(header.alg);
    // Times and audience are checked by us, against the caller's clock and the issuer's list.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let mut why = "the issuer has no such key".to_owned();
    for key in keys.of(header.kid.as_deref()) {
        match jsonwebtoken::decode::<Value>(token, key, &validation) {
            Ok(decoded) if decoded.claims.is_object() => return Ok(decoded.claims),
            Ok(_) => why = "the payload is no object".to_owned(),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

fn check_times(claims: &Value, now: i64) -> Result<(), JwtError> {
    let time = |name: &str| {
        let value = &claims[name];
        // Some issuers write fractions.
        value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
    };
    match time("exp") {
        Some(expires) if now <= expires => {}
        _ => return Err(JwtError::Expired),
    }
    match time("nbf") {
        Some(begins) if begins > now.saturating_add(NOT_BEFORE_LEEWAY_SECONDS) => Err(JwtError::NotYetValid),
        _ => Ok(()),
    }
}

/// `iss` of a payload nobody has checked: it only says whose rules the token is to be checked by.
fn untrusted_issuer(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let payload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    payload["iss"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_says_an_issuer_is_looked_at() {
        let token = |payload: &str| format!("e30.{}.x", URL_SAFE_NO_PAD.encode(payload));
        assert_eq!(untrusted_issuer(&token(r#"{"iss": "https://i"}"#)).as_deref(), Some("https://i"));
        for other in ["", "a.b", "a.b.c", "a.b.c.d", &token("7"), &token(r#"{"iss": 7}"#)] {
            assert_eq!(untrusted_issuer(other), None, "{other}");
        }
    }

    #[test]
    fn signatures_are_those_of_rfc_7515() {
        // Its appendix A.2, the key without its private half.
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
        let keys = KeySet::parse(br#"{"keys": [{"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]}"#);
        let header = jsonwebtoken::decode_header(token).unwrap();
        assert_eq!(header.alg, Algorithm::RS256);
        assert_eq!(signed(token, &header, &keys).unwrap()["iss"], "joe");
        let forged = token.replace("eyJpc3MiOiJqb2Ui", "eyJpc3MiOiJqYW5l");
        assert!(signed(&forged, &header, &keys).is_err());
    }

    #[test]
    fn times_have_the_leeway_of_upstream() {
        let check = |claims: Value| check_times(&claims, 1000).map_err(|error| error.to_string());
        assert!(check(json!({"exp": 1000})).is_ok());
        assert!(check(json!({"exp": 1000.9, "nbf": 1300})).is_ok());
        assert!(check(json!({"exp": 999})).unwrap_err().contains("expired"));
        assert!(check(json!({})).unwrap_err().contains("expired"));
        assert!(check(json!({"exp": "2000"})).unwrap_err().contains("expired"));
        assert!(check(json!({"exp": 2000, "nbf": 1301})).unwrap_err().contains("not valid yet"));
        assert!(check(json!({"exp": i64::MAX, "nbf": i64::MIN})).is_ok());
    }
}
