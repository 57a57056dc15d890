//! Service-account tokens: what is in them, how they are signed and checked. Requested ones end and are bound to objects;
//! those [`in_secrets`] do not end while their Secret is there. And [`bootstrap`] tokens, of machines that join.
//!
//! Pure but for the random token id. Must not know the API server: whether the objects a token names still exist is
//! checked by its `authn`, and who may have one by its `token_request`.

pub mod bootstrap;
pub mod in_secrets;

use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Why a token is no good.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the service-account key is no EC P-256 private key in PKCS#8 PEM")]
    Key {
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    #[error("the token cannot be signed")]
    Sign {
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    #[error("the token is malformed or its signature is wrong")]
    Signature {
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    #[error("the token was issued by {issuer:?}")]
    Issuer { issuer: String },
    #[error("the token is for {audiences:?}")]
    Audience { audiences: Vec<String> },
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token's subject does not match its claims")]
    Subject,
}

/// An object a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub name: String,
    pub uid: String,
}

/// The private claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    pub namespace: String,
    pub serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
}

/// A token's payload. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub nbf: i64,
    pub iss: String,
    #[serde(default)]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    pub sub: String,
}

/// Signs and checks tokens of one issuer.
pub struct Issuer {
    encoding: EncodingKey,
    decoding: DecodingKey,
    header: Header,
    key: Jwk,
    issuer: String,
    audiences: Vec<String>,
}

// === impl Claims ===

impl Claims {
    /// `system:serviceaccount:<namespace>:<name>`.
    pub fn subject(namespace: &str, name: &str) -> String {
        format!("system:serviceaccount:{namespace}:{name}")
    }
}

// === impl Issuer ===

impl Issuer {
    /// From an EC P-256 private key (PKCS#8 PEM).
    pub fn new(key_pem: &[u8], issuer: &str, audiences: &[String]) -> Result<Self, TokenError> {
        let bad = |source| TokenError::Key { source };
        let encoding = EncodingKey::from_ec_pem(key_pem).map_err(bad)?;
        let mut key = Jwk::from_encoding_key(&encoding, Algorithm::ES256).map_err(bad)?;
        let id = key.thumbprint(ThumbprintHash::SHA256).map_err(bad)?;
        key.common.key_id = Some(id.clone());
        let decoding = DecodingKey::from_jwk(&key).map_err(bad)?;
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(id);
        header.typ = None;
        Ok(Self { encoding, decoding, header, key, issuer: issuer.to_owned(), audiences: audiences.to_vec() })
    }

    /// The audiences the API server answers to.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// A signed token for a service account, valid from `now` for `seconds`.
    pub fn issue(
        &self,
        kubernetes: KubernetesClaims,
        audiences: Vec<String>,
        now: i64,
        seconds: i64,
    ) -> Result<String, TokenError> {
        let claims = Claims {
            aud: audiences,
            exp: now.saturating_add(seconds),
            iat: now,
            nbf: now,
            iss: self.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: Claims::subject(&kubernetes.namespace, &kubernetes.serviceaccount.name),
            kubernetes,
        };
        jsonwebtoken::encode(&self.header, &claims, &self.encoding)
            .map_err(|source| TokenError::Sign { source })
    }

    /// Checks signature, issuer, times, subject, and that the token is for one of `audiences`.
    pub fn verify(&self, token: &str, audiences: &[String], now: i64) -> Result<Claims, TokenError> {
        let claims: Claims = self.genuine(token)?;
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer { issuer: claims.iss });
        }
        if claims.exp <= now {
            return Err(TokenError::Expired);
        }
        if claims.nbf > now {
            return Err(TokenError::NotYetValid);
        }
        if !claims.aud.iter().any(|a| audiences.contains(a)) {
            return Err(TokenError::Audience { audiences: claims.aud });
        }
        if claims.sub != Claims::subject(&claims.kubernetes.namespace, &claims.kubernetes.serviceaccount.name)
        {
            return Err(TokenError::Subject);
        }
        Ok(claims)
    }

    /// The payload of a token that this key has signed. Times and audience are the caller's to check.
    fn genuine<T: serde::de::DeserializeOwned>(&self, token: &str) -> Result<T, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let decoded = jsonwebtoken::decode::<T>(token, &self.decoding, &validation);
        decoded.map(|token| token.claims).map_err(|source| TokenError::Signature { source })
    }

    /// Whether a token says it is of this issuer. Nobody has checked what it says.
    pub fn claims_to_be_ours(&self, token: &str) -> bool {
        token.len() <= TOKEN_BYTES_MAX
            && jsonwebtoken::dangerous::insecure_decode::<Value>(token)
                .is_ok_and(|decoded| decoded.claims["iss"] == self.issuer.as_str())
    }

    /// `/openid/v1/jwks`.
    pub fn key_set(&self) -> Value {
        let mut key = serde_json::to_value(&self.key).unwrap_or_default();
        key["use"] = "sig".into();
        json!({ "keys": [key] })
    }

    /// `/.well-known/openid-configuration`. `base` is the URL clients reach this server by.
    pub fn configuration(&self, base: &str) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{base}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer() -> Issuer {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        Issuer::new(key.as_bytes(), "https://issuer", &["api".to_owned()]).unwrap()
    }

    fn claims() -> KubernetesClaims {
        let reference = |name: &str| Reference { name: name.into(), uid: format!("{name}-uid") };
        KubernetesClaims {
            namespace: "a".into(),
            serviceaccount: reference("bot"),
            pod: Some(reference("p")),
            secret: None,
            node: None,
        }
    }

    #[test]
    fn an_issued_token_verifies_and_says_who_it_is_for() {
        let issuer = issuer();
        let token = issuer.issue(claims(), vec!["api".into()], 1000, 600).unwrap();
        let read = issuer.verify(&token, &["api".to_owned()], 1001).unwrap();
        assert_eq!((read.sub.as_str(), read.exp), ("system:serviceaccount:a:bot", 1600));
        assert_eq!(read.kubernetes, claims());
    }

    #[test]
    fn tokens_of_another_time_key_or_audience_are_refused() {
        let issuer_one = issuer();
        let audiences = ["api".to_owned()];
        let token = issuer_one.issue(claims(), audiences.to_vec(), 1000, 600).unwrap();
        assert!(matches!(issuer_one.verify(&token, &audiences, 1600), Err(TokenError::Expired)));
        assert!(matches!(issuer_one.verify(&token, &audiences, 999), Err(TokenError::NotYetValid)));
        assert!(matches!(
            issuer_one.verify(&token, &["vault".to_owned()], 1001),
            Err(TokenError::Audience { .. })
        ));
        assert!(matches!(issuer().verify(&token, &audiences, 1001), Err(TokenError::Signature { .. })));
        assert!(matches!(issuer_one.verify("a.b.c", &audiences, 1001), Err(TokenError::Signature { .. })));
        assert!(matches!(issuer_one.verify(&"x".repeat(20_000), &audiences, 1001), Err(TokenError::TooLong)));
    }

    #[test]
    fn the_key_set_names_the_key_tokens_are_signed_with() {
        let issuer = issuer();
        let token = issuer.issue(claims(), vec!["api".into()], 1000, 600).unwrap();
        let header = jsonwebtoken::decode_header(&token).unwrap();
        let key = &issuer.key_set()["keys"][0];
        assert_eq!(key["kid"].as_str(), header.kid.as_deref());
        assert_eq!((key["kty"].as_str(), key["alg"].as_str()), (Some("EC"), Some("ES256")));
    }
}
