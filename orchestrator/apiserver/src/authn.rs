//! Authentication: who is asking?
//!
//! The order is front proxy → client certificate → bearer token → anonymous. A credential that proves nobody leaves the
//! word to the next; one that was shown and is no good to anybody is refused (401, once), never taken for no
//! credential. Must not know what the request is for.

pub mod bearer;
pub(crate) mod bootstrap_tokens;
pub mod certificate;
pub mod configuration;
pub mod front_proxy;
pub mod impersonation;
pub mod jwt;
pub(crate) mod secret_tokens;
pub mod webhook;

use std::sync::Arc;

use http::{HeaderMap, header};
use jiff::Timestamp;
use penstock_tokens::Issuer;

use crate::error::{ApiError, FieldError};
use crate::registry::{Registry, User};
use crate::server::config::ServerConfig;
use bearer::BearerTokens;
use certificate::Peer;
use configuration::{Anonymous, AuthenticationConfig};
use jwt::JwtAuthenticators;
use webhook::TokenWebhook;

pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";

/// All ways to prove who one is.
pub struct Authenticator {
    bearer: BearerTokens,
    front_proxy_names: Vec<String>,
    anonymous: Anonymous,
}

// === impl Authenticator ===

impl Authenticator {
    /// # Errors
    /// What is wrong with the issuers of the configuration.
    pub fn new(
        registry: Arc<Registry>,
        issuer: Arc<Issuer>,
        config: &ServerConfig,
    ) -> Result<Self, Vec<FieldError>> {
        let AuthenticationConfig { jwt, anonymous, token_webhook } = &config.authentication;
        Ok(Self {
            bearer: BearerTokens::new(
                registry.clone(),
                issuer,
                &config.static_tokens,
                config.bootstrap_tokens,
                JwtAuthenticators::new(&registry, jwt, &[&config.service_account_issuer])?,
                token_webhook.clone().map(|webhook| TokenWebhook::new(registry, webhook)),
            ),
            front_proxy_names: config.front_proxy_names.clone(),
            anonymous: anonymous.clone(),
        })
    }

    /// The user of a request on `path` that came from `peer` with these headers.
    pub async fn authenticate(&self, peer: &Peer, headers: &HeaderMap, path: &str) -> Result<User, ApiError> {
        let now = Timestamp::now().as_second();
        if let Some(user) = front_proxy::user(peer, headers, &self.front_proxy_names, now) {
            return Ok(authenticated(user));
        }
        let mut refused: Vec<String> = Vec::new();
        match peer.user(now) {
            Ok(Some(user)) => return Ok(authenticated(user)),
            Ok(None) => {}
            Err(error) => refused.push(error.to_string()),
        }
        if let Some(token) = bearer::token_of(headers) {
            match self.bearer.user(&token, now).await {
                Ok(user) => return Ok(authenticated(user)),
                Err(error) => refused.push(error.to_string()),
            }
        }
        if !refused.is_empty() {
            tracing::warn!(path, why = refused.join("; "), "a request's credentials are refused");
            return Err(ApiError::unauthorized());
        }
        // Another scheme than Bearer proves nothing; upstream treats it as no credentials at all.
        if self.anonymous.allows(path) { Ok(anonymous()) } else { Err(ApiError::unauthorized()) }
    }

    /// The bearer tokens, for token reviews.
    pub fn bearer(&self) -> &BearerTokens {
        &self.bearer
    }
}

/// The user of requests without credentials.
pub fn anonymous() -> User {
    User { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..User::default() }
}

/// Adds the group of everyone who proved who they are.
pub fn authenticated(mut user: User) -> User {
    if user.name != ANONYMOUS && !user.is_in(AUTHENTICATED) && !user.is_in(UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    user
}

/// Takes the credentials off a request, so that nothing behind the API server sees them.
pub fn strip_credentials(headers: &mut HeaderMap) {
    headers.remove(header::AUTHORIZATION);
    front_proxy::strip(headers);
    impersonation::strip(headers);
}
