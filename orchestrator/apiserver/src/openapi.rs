//! OpenAPI: what the API looks like, for clients that check before they send.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, Response};

use crate::error::ApiError;
use crate::registry::Registry;
use crate::server::Inner;
use crate::server::query::Query;

/// The documents, built when asked for.
pub struct OpenApi {
    #[allow(dead_code)]
    registry: Arc<Registry>,
}

impl OpenApi {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }
}

pub(crate) fn answer(_: &Inner, _: &HeaderMap, _: &Query, _: &[&str]) -> Result<Response<Body>, ApiError> {
    Err(ApiError::no_such_path())
}
