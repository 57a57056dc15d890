//! One request as the audit follows it, from who asked to the last byte of the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};
use jiff::Timestamp;
use serde_json::Value;

use super::Audit;
use super::event::{Asked, Seen, without_managed_fields, written};
use super::policy::{Level, Stage, Wanted};
use crate::registry::context::Annotations;

/// A larger answer is noted without its object.
const RESPONSE_BYTES_MAX: u64 = 4 * 1024 * 1024;

pub struct Trail {
    audit: Arc<Audit>,
    wanted: Wanted,
    asked: Asked,
    request_object: Option<Value>,
    annotations: Annotations,
}

// === impl Audit ===

impl Audit {
    /// Follows a request, if the policy wants to know of it.
    pub async fn begin(self: &Arc<Self>, asked: Asked, annotations: Annotations) -> Option<Trail> {
        let acting = asked.impersonated.as_ref().unwrap_or(&asked.user);
        let wanted = self.policy.judge(acting, &asked.info);
        if wanted.level == Level::None {
            return None;
        }
        let trail = Trail { audit: self.clone(), wanted, asked, request_object: None, annotations };
        trail.note(Stage::RequestReceived, Seen::default()).await;
        Some(trail)
    }
}

// === impl Trail ===

impl Trail {
    /// Whether what was sent is to be kept.
    pub fn wants_request(&self) -> bool {
        self.wanted.level >= Level::Request
    }

    pub fn set_request(&mut self, object: Option<Value>) {
        self.request_object = object.map(|object| self.kept(object));
    }

    fn kept(&self, object: Value) -> Value {
        if self.wanted.omit_managed_fields { without_managed_fields(object) } else { object }
    }

    /// Notes the answer. Of one that goes on for long, first that it began, and the rest when its last byte is gone.
    pub async fn finish(
        mut self,
        response: Response<Body>,
        failure: Option<Value>,
        long_running: bool,
        read: impl FnOnce(&http::HeaderMap, &[u8]) -> Option<Value>,
    ) -> Response<Body> {
        let code = response.status().as_u16();
        let seen = |trail: &mut Self, response_object| Seen {
            request_object: trail.request_object.take(),
            response_object,
            response: Some((code, failure.clone())),
            annotations: std::mem::take(&mut *trail.annotations.lock()),
        };
        if long_running {
            let started = Seen { response: Some((code, failure.clone())), ..Seen::default() };
            self.note(Stage::ResponseStarted, started).await;
            let seen = seen(&mut self, None);
            let (parts, body) = response.into_parts();
            return Response::from_parts(parts, Body::new(Followed { body, last: Some((self, seen)) }));
        }
        let small = response.body().size_hint().upper().is_some_and(|size| size <= RESPONSE_BYTES_MAX);
        if self.wanted.level < Level::RequestResponse || !small {
            let seen = seen(&mut self, None);
            self.note(Stage::ResponseComplete, seen).await;
            return response;
        }
        let (parts, body) = response.into_parts();
        let (object, body) = match axum::body::to_bytes(body, RESPONSE_BYTES_MAX as usize).await {
            Ok(bytes) => (read(&parts.headers, &bytes).map(|object| self.kept(object)), Body::from(bytes)),
            // Its reader meets the same end as without an audit.
            Err(error) => (None, Body::from_stream(futures::stream::once(async { Err::<Bytes, _>(error) }))),
        };
        let seen = seen(&mut self, object);
        self.note(Stage::ResponseComplete, seen).await;
        Response::from_parts(parts, body)
    }

    async fn note(&self, stage: Stage, seen: Seen) {
        if self.wanted.has(stage) {
            let event = written(&self.asked, self.wanted.level, stage, &seen, Timestamp::now());
            self.audit.log.put(event).await;
        }
    }
}

/// A body whose end is noted, however it comes.
struct Followed {
    body: Body,
    last: Option<(Trail, Seen)>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        if let Some((trail, seen)) = self.last.take()
            && trail.wanted.has(Stage::ResponseComplete)
        {
            let (level, stage) = (trail.wanted.level, Stage::ResponseComplete);
            trail.audit.log.put_later(written(&trail.asked, level, stage, &seen, Timestamp::now()));
        }
    }
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
