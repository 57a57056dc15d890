//! Tokens in Secrets of type `kubernetes.io/service-account-token`: they have no end, and are good while their Secret is
//! there and holds them. Claims: kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Claims, Issuer, Reference, TOKEN_BYTES_MAX, TokenError};

/// Who such tokens say has issued them, whatever the issuer of requested ones is called.
const ISSUER: &str = "kubernetes/serviceaccount";

/// A token's payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretClaims {
    pub iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    /// The Secret's name.
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub account_uid: String,
    pub sub: String,
}

/// Whether a token says it is one of these. Nobody has checked what it says.
pub fn claims_to_be_one(token: &str) -> bool {
    token.len() <= TOKEN_BYTES_MAX
        && jsonwebtoken::dangerous::insecure_decode::<Value>(token)
            .is_ok_and(|decoded| decoded.claims["iss"] == ISSUER)
}

impl Issuer {
    /// A signed token without an end for a Secret of a service account.
    pub fn issue_for_secret(
        &self,
        namespace: &str,
        secret: &str,
        account: &Reference,
    ) -> Result<String, TokenError> {
        let claims = SecretClaims {
            iss: ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.name.clone(),
            account_uid: account.uid.clone(),
            sub: Claims::subject(namespace, &account.name),
        };
        jsonwebtoken::encode(&self.header, &claims, &self.encoding)
            .map_err(|source| TokenError::Sign { source })
    }

    /// Checks signature, issuer and subject. Whether the Secret still holds the token is the caller's to ask.
    pub fn verify_of_secret(&self, token: &str) -> Result<SecretClaims, TokenError> {
        let claims: SecretClaims = self.genuine(token)?;
        if claims.iss != ISSUER {
            return Err(TokenError::Issuer { issuer: claims.iss });
        }
        if claims.sub != Claims::subject(&claims.namespace, &claims.account) {
            return Err(TokenError::Subject);
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer() -> Issuer {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        Issuer::new(key.as_bytes(), "https://issuer", &["api".to_owned()]).unwrap()
    }

    #[test]
    fn a_token_names_its_secret_and_account() {
        let (issuer, account) = (issuer(), Reference { name: "bot".to_owned(), uid: "7".to_owned() });
        let token = issuer.issue_for_secret("a", "bot-token", &account).unwrap();
        assert!(claims_to_be_one(&token));
        let claims = issuer.verify_of_secret(&token).unwrap();
        assert_eq!((claims.namespace.as_str(), claims.secret.as_str()), ("a", "bot-token"));
        assert_eq!((claims.account.as_str(), claims.account_uid.as_str()), ("bot", "7"));
        assert_eq!(claims.sub, "system:serviceaccount:a:bot");
    }

    #[test]
    fn neither_kind_of_token_passes_for_the_other_nor_one_of_another_key() {
        let (issuer_one, account) = (issuer(), Reference { name: "bot".to_owned(), uid: "7".to_owned() });
        let token = issuer_one.issue_for_secret("a", "bot-token", &account).unwrap();
        assert!(issuer_one.verify(&token, &["api".to_owned()], 0).is_err());
        assert!(matches!(issuer().verify_of_secret(&token), Err(TokenError::Signature { .. })));
        let kubernetes = crate::KubernetesClaims {
            namespace: "a".to_owned(),
            serviceaccount: account,
            pod: None,
            secret: None,
            node: None,
        };
        let requested = issuer_one.issue(kubernetes, vec!["api".to_owned()], 0, 600).unwrap();
        assert!(!claims_to_be_one(&requested));
        assert!(issuer_one.verify_of_secret(&requested).is_err());
    }
}
