//! One JSON document for another: how webhooks and converters are asked.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::{CallError, Identity, Outbound, Target};
use crate::registry::Registry;

/// The longest text of a refusal that is passed on.
const REFUSAL_BYTES_MAX: usize = 16 * 1024;

/// How long an answer may take and how large it may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub timeout: Duration,
    pub answer_bytes_max: usize,
}

/// As whom a server is asked; by default as nobody.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller {
    pub identity: Option<Arc<Identity>>,
    /// The `Authorization` header.
    pub authorization: Option<HeaderValue>,
}

impl Outbound {
    /// As [`Outbound::exchange_as`], as nobody.
    pub(crate) async fn exchange(
        &self,
        registry: &Registry,
        target: &Target,
        path: &str,
        question: &Value,
        limits: Limits,
    ) -> Result<Value, CallError> {
        self.exchange_as(&Caller::default(), registry, target, path, question, limits).await
    }

    /// Posts `question` to `path`. Redirects are refused like any other answer that is no success: who follows one
    /// sends an object to somebody the configuration does not name.
    pub(crate) async fn exchange_as(
        &self,
        caller: &Caller,
        registry: &Registry,
        target: &Target,
        path: &str,
        question: &Value,
        limits: Limits,
    ) -> Result<Value, CallError> {
        let mark = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{mark}timeout={}s", limits.timeout.as_secs().max(1));
        // Errors name the request as clients of Go name theirs, which is what people search for.
        let named = |error: CallError| match error {
            error @ (CallError::Refused { .. } | CallError::NotJson { .. } | CallError::TooLarge { .. }) => {
                error
            }
            other => CallError::Connection {
                why: format!("Post \"https://{}{path}\": {other}", target.authority()),
            },
        };
        let asking = self.ask(caller, registry, target, &path, question, limits.answer_bytes_max);
        match tokio::time::timeout(limits.timeout, asking).await {
            Ok(answered) => answered.map_err(named),
            Err(_) => Err(named(CallError::Deadline)),
        }
    }

    async fn ask(
        &self,
        caller: &Caller,
        registry: &Registry,
        target: &Target,
        path: &str,
        question: &Value,
        answer_bytes_max: usize,
    ) -> Result<Value, CallError> {
        let mut request = Request::new(Body::from(question.to_string()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() =
            path.parse().map_err(|e: http::uri::InvalidUri| CallError::Connection { why: e.to_string() })?;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json.clone());
        request.headers_mut().insert(header::ACCEPT, json);
        if let Some(authorization) = &caller.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        let answer = self.send(registry, target, caller.identity.as_ref(), request).await?;
        let body = read(answer, answer_bytes_max).await?;
        serde_json::from_slice(&body).map_err(|e| CallError::NotJson { why: e.to_string() })
    }
}

/// The whole body of an answer that is a success.
pub(crate) async fn read(answer: Response<Body>, bytes_max: usize) -> Result<Bytes, CallError> {
    let code = answer.status();
    if !code.is_success() {
        let text = match Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
            Err(_) => String::new(),
        };
        return Err(CallError::Refused { code: code.as_u16(), text });
    }
    match Limited::new(answer.into_body(), bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(CallError::TooLarge { bytes_max }),
        Err(error) => Err(CallError::Connection { why: super::transport::reason(error.as_ref()) }),
    }
}
