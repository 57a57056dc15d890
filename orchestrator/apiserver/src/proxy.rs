//! Proxies: to kubelets, pods and services.

use std::sync::Arc;

use axum::body::Body;
use http::Response;

use crate::error::ApiError;
use crate::registry::{Definition, Registry};
use crate::server::chain::Call;
use crate::server::{Inner, ServerError};
use crate::server::config::ServerConfig;

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Log,
}

pub struct Proxies {}

impl Proxies {
    pub fn new(_: Arc<Registry>, _: &ServerConfig) -> Result<Self, ServerError> {
        Ok(Self {})
    }
}

pub fn kind_of(_: &Definition, _: &str) -> Option<Kind> {
    None
}

pub(crate) async fn serve(_: &Arc<Inner>, _: Call, _: Body, _: Kind) -> Result<Response<Body>, ApiError> {
    Err(ApiError::no_such_path())
}
