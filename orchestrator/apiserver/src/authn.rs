//! Authentication: who is asking?
//!
//! The order is front proxy → client certificate → bearer token → anonymous. Credentials that are present and wrong
//! are refused (401) rather than passed over. Must not know what the request is for.

pub mod bearer;
pub mod certificate;
pub mod front_proxy;
pub mod impersonation;

use std::sync::Arc;

use http::{HeaderMap, header};
use jiff::Timestamp;

use crate::error::ApiError;
use crate::registry::{Registry, User};
use crate::server::config::ServerConfig;
use crate::tokens::Issuer;
use bearer::BearerTokens;
use certificate::Peer;

pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";

/// All ways to prove who one is.
pub struct Authenticator {
    bearer: BearerTokens,
    front_proxy_names: Vec<String>,
    anonymous: bool,
}

// === impl Authenticator ===

impl Authenticator {
    pub fn new(registry: Arc<Registry>, issuer: Arc<Issuer>, config: &ServerConfig) -> Self {
        Self {
            bearer: BearerTokens::new(registry, issuer, &config.static_tokens),
            front_proxy_names: config.front_proxy_names.clone(),
            anonymous: config.anonymous,
        }
    }

    /// The user of a request that came from `peer` with these headers.
    pub async fn authenticate(&self, peer: &Peer, headers: &HeaderMap) -> Result<User, ApiError> {
        let now = Timestamp::now().as_second();
        if let Some(user) = front_proxy::user(peer, headers, &self.front_proxy_names, now) {
            return Ok(authenticated(user));
        }
        let by_certificate = peer.user(now).map_err(|error| {
            tracing::debug!(%error, "client certificate refused");
            ApiError::unauthorized()
        })?;
        if let Some(user) = by_certificate {
            return Ok(authenticated(user));
        }
        if let Some(token) = bearer::token_of(headers) {
            let user = self.bearer.user(&token, now).await.map_err(|error| {
                tracing::debug!(%error, "bearer token refused");
                ApiError::unauthorized()
            })?;
            return Ok(authenticated(user));
        }
        // Another scheme than Bearer proves nothing; upstream treats it as no credentials at all.
        if self.anonymous {
            return Ok(anonymous());
        }
        Err(ApiError::unauthorized())
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
