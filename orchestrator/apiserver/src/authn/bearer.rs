//! Bearer tokens: fixed ones, service accounts' (requested, or in Secrets), those of machines that join, other issuers', and
//! those a webhook knows, asked in this order.
//!
//! A service-account token is good while its signature, its times and every object it is bound to are. Signature
//! checks are remembered for a few seconds (they cost more than the rest of a small read); bound objects are looked
//! up each time.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};
use jiff::Timestamp;
use parking_lot::Mutex;
use penstock_tokens::{Claims, Issuer, KubernetesClaims, Reference, TokenError};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::bootstrap_tokens::{BootstrapTokenError, BootstrapTokens};
use super::jwt::{JwtAuthenticators, JwtError};
use super::secret_tokens::{SecretTokenError, SecretTokens};
use super::webhook::{TokenWebhook, TokenWebhookError};
use crate::registry::{CachedObject, Context, Registry, Target, User};
use crate::server::config::StaticToken;

/// How long a checked signature is remembered.
const REMEMBER_SECONDS: i64 = 10;
/// Checked signatures remembered at most; at the limit all are forgotten.
const REMEMBERED_MAX: usize = 4096;
/// A bound pod may still use its token this long after its deletion time.
const DELETION_LEEWAY_SECONDS: i64 = 60;
/// Prefix of the WebSocket subprotocol by which browsers send a token.
const SUBPROTOCOL_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

type Fingerprint = [u8; 32];

/// Why a token was refused.
#[derive(Debug, thiserror::Error)]
pub enum BearerError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the {kind} {name:?} the token is bound to is gone")]
    Unbound { kind: &'static str, name: String },
    #[error(transparent)]
    OfSecret(#[from] SecretTokenError),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapTokenError),
    #[error(transparent)]
    Jwt(#[from] JwtError),
    #[error(transparent)]
    Webhook(#[from] TokenWebhookError),
    #[error("the token is for {is:?}, not for {wanted:?}")]
    Audience { is: Vec<String>, wanted: Vec<String> },
}

/// Nobody knows a token.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("invalid bearer token")]
    Unknown,
    #[error("[invalid bearer token, {}]", listed(.0))]
    Because(Vec<BearerError>),
}

fn listed(errors: &[BearerError]) -> String {
    let mut texts = Vec::new();
    for error in errors {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        texts.push(text);
    }
    texts.join(", ")
}

/// Turns tokens into users.
pub struct BearerTokens {
    registry: Arc<Registry>,
    issuer: Arc<Issuer>,
    fixed: HashMap<Fingerprint, User>,
    of_secrets: SecretTokens,
    bootstrap: Option<BootstrapTokens>,
    jwt: JwtAuthenticators,
    webhook: Option<TokenWebhook>,
    checked: Mutex<HashMap<Fingerprint, (Arc<Claims>, i64)>>,
}

// === impl BearerTokens ===

impl BearerTokens {
    pub fn new(
        registry: Arc<Registry>,
        issuer: Arc<Issuer>,
        fixed: &[StaticToken],
        with_bootstrap_tokens: bool,
        jwt: JwtAuthenticators,
        webhook: Option<TokenWebhook>,
    ) -> Self {
        let fixed = fixed.iter().map(|t| (fingerprint(&t.token), t.user.clone())).collect();
        let of_secrets = SecretTokens::new(registry.clone(), issuer.clone());
        let bootstrap = with_bootstrap_tokens.then(|| BootstrapTokens::new(registry.clone()));
        Self { registry, issuer, fixed, of_secrets, bootstrap, jwt, webhook, checked: Mutex::default() }
    }

    /// Reads what other issuers sign with, until `stop`.
    pub fn prime(&self, stop: &CancellationToken) {
        self.jwt.prime(stop);
    }

    /// The user of a token presented to the API server at `now` (seconds).
    ///
    /// # Errors
    /// Nobody knows it; whoever should have says why not.
    pub async fn user(&self, token: &str, now: i64) -> Result<User, Refused> {
        self.known(token, self.issuer.audiences(), now).await.map(|(user, _)| user)
    }

    /// The user of a token presented to someone else, and those of `audiences` it is good for.
    ///
    /// # Errors
    /// As for [`BearerTokens::user`].
    pub async fn review(
        &self,
        token: &str,
        audiences: &[String],
        now: i64,
    ) -> Result<(User, Vec<String>), Refused> {
        self.known(token, audiences, now).await
    }

    async fn known(
        &self,
        token: &str,
        audiences: &[String],
        now: i64,
    ) -> Result<(User, Vec<String>), Refused> {
        let own = self.issuer.audiences();
        let mut errors = Vec::new();
        // Who knows of no audiences speaks for this server's.
        let for_us = |user: User| -> Result<(User, Vec<String>), BearerError> {
            let good: Vec<String> = audiences.iter().filter(|a| own.contains(a)).cloned().collect();
            if good.is_empty() {
                return Err(BearerError::Audience { is: own.to_vec(), wanted: audiences.to_vec() });
            }
            Ok((user, good))
        };
        if let Some(user) = self.fixed.get(&fingerprint(token)) {
            match for_us(user.clone()) {
                Ok(known) => return Ok(known),
                Err(error) => errors.push(error),
            }
        }
        match self.of_service_account(token, audiences, now).await {
            Ok(known) => return Ok(known),
            // Not a token of ours at all.
            Err(BearerError::Token(TokenError::Issuer { .. } | TokenError::Signature { .. }))
                if !self.issuer.claims_to_be_ours(token) => {}
            Err(error) => errors.push(error),
        }
        match self.of_secrets.user(token).await {
            Ok(Some(user)) => match for_us(user) {
                Ok(known) => return Ok(known),
                Err(error) => errors.push(error),
            },
            Ok(None) => {}
            Err(error) => errors.push(error.into()),
        }
        if let Some(bootstrap) = &self.bootstrap {
            match bootstrap.user(token, now).await {
                Ok(Some(user)) => match for_us(user) {
                    Ok(known) => return Ok(known),
                    Err(error) => errors.push(error),
                },
                Ok(None) => {}
                Err(error) => errors.push(error.into()),
            }
        }
        match self.jwt.user(token, now).await {
            Ok(Some(user)) => match for_us(user) {
                Ok(known) => return Ok(known),
                Err(error) => errors.push(error),
            },
            Ok(None) => {}
            Err(error) => errors.push(error.into()),
        }
        if let Some(webhook) = &self.webhook {
            match webhook.user(token, audiences, own).await {
                Ok(Some(known)) => return Ok(known),
                Ok(None) => {}
                Err(error) => errors.push(error.into()),
            }
        }
        Err(if errors.is_empty() { Refused::Unknown } else { Refused::Because(errors) })
    }

    async fn of_service_account(
        &self,
        token: &str,
        audiences: &[String],
        now: i64,
    ) -> Result<(User, Vec<String>), BearerError> {
        let claims = if audiences == self.issuer.audiences() {
            self.check(token, now)?
        } else {
            Arc::new(self.issuer.verify(token, audiences, now)?)
        };
        self.confirm_bound(&claims.kubernetes, now).await?;
        let good = audiences.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        Ok((user_of(&claims), good))
    }

    fn check(&self, token: &str, now: i64) -> Result<Arc<Claims>, TokenError> {
        let key = fingerprint(token);
        if let Some((claims, until)) = self.checked.lock().get(&key)
            && *until > now
        {
            return Ok(claims.clone());
        }
        let claims = Arc::new(self.issuer.verify(token, self.issuer.audiences(), now)?);
        let until = claims.exp.min(now + REMEMBER_SECONDS);
        let mut checked = self.checked.lock();
        if checked.len() >= REMEMBERED_MAX {
            checked.clear();
        }
        checked.insert(key, (claims.clone(), until));
        Ok(claims)
    }

    async fn confirm_bound(&self, claims: &KubernetesClaims, now: i64) -> Result<(), BearerError> {
        let namespace = Some(claims.namespace.as_str());
        self.confirm("serviceaccounts", "service account", namespace, &claims.serviceaccount, now).await?;
        let node_of_pod = claims.pod.is_some();
        for (plural, kind, namespace, reference) in [
            ("pods", "pod", namespace, &claims.pod),
            ("secrets", "secret", namespace, &claims.secret),
            // A pod's token names its node only for information.
            ("nodes", "node", None, if node_of_pod { &None } else { &claims.node }),
        ] {
            if let Some(reference) = reference {
                self.confirm(plural, kind, namespace, reference, now).await?;
            }
        }
        Ok(())
    }

    async fn confirm(
        &self,
        plural: &str,
        kind: &'static str,
        namespace: Option<&str>,
        reference: &Reference,
        now: i64,
    ) -> Result<(), BearerError> {
        let gone = || BearerError::Unbound { kind, name: reference.name.clone() };
        let definition = self.registry.find("", "v1", plural).ok_or_else(gone)?;
        let target = Target::named(namespace, &reference.name);
        let object = self.registry.get(&Context::system(), &definition, &target).await.map_err(|_| gone())?;
        if object.uid != reference.uid || deleted_before(&object, now - DELETION_LEEWAY_SECONDS) {
            return Err(gone());
        }
        Ok(())
    }
}

/// The bearer token of a request, from its Authorization header or a WebSocket subprotocol.
pub fn token_of(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()) {
        let (scheme, token) = value.split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let encoded = offered.split(',').find_map(|p| p.trim().strip_prefix(SUBPROTOCOL_PREFIX))?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

fn fingerprint(token: &str) -> Fingerprint {
    Sha256::digest(token.as_bytes()).into()
}

fn deleted_before(object: &CachedObject, limit: i64) -> bool {
    let value = object.value();
    let deleted = value.pointer("/metadata/deletionTimestamp").and_then(Value::as_str);
    deleted.and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at.as_second() < limit)
}

fn user_of(claims: &Claims) -> User {
    let kubernetes = &claims.kubernetes;
    let mut user = User {
        name: claims.sub.clone(),
        uid: kubernetes.serviceaccount.uid.clone(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", kubernetes.namespace),
        ],
        ..User::default()
    };
    let mut add = |key: &str, value: String| {
        user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
    };
    if !claims.jti.is_empty() {
        add("credential-id", format!("JTI={}", claims.jti));
    }
    if let Some(pod) = &kubernetes.pod {
        add("pod-name", pod.name.clone());
        add("pod-uid", pod.uid.clone());
    }
    if let Some(node) = &kubernetes.node {
        add("node-name", node.name.clone());
        add("node-uid", node.uid.clone());
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_where_clients_put_them() {
        let mut headers = HeaderMap::new();
        assert_eq!(token_of(&headers), None);
        let offered =
            format!("v5.channel.k8s.io, {SUBPROTOCOL_PREFIX}{}", URL_SAFE_NO_PAD.encode("from-browser"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
        assert_eq!(token_of(&headers).as_deref(), Some("from-browser"));
        headers.insert(header::AUTHORIZATION, "Bearer  abc ".parse().unwrap());
        assert_eq!(token_of(&headers).as_deref(), Some("abc"));
        headers.insert(header::AUTHORIZATION, "Basic abc".parse().unwrap());
        assert_eq!(token_of(&headers), None);
    }
}
