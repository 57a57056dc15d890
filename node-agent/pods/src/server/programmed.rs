//! How far this node's data plane is, for nodes whose pods end.
//!
//! Answers late on purpose: when this node is as far as was asked for, or the time is over. Any node may ask, for what is
//! told is a number and names; nobody else needs to. It must not know what is programmed.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use http::StatusCode;
use tokio::sync::Semaphore;

use super::Refusal;
use crate::context::Context;
use crate::rotation::{self, Answer};

/// How many questions are kept at once; who asks one more asks another node, or does not wait.
const QUESTIONS_MAX: usize = 512;
static PERMITS: Semaphore = Semaphore::const_new(QUESTIONS_MAX);

/// `GET /programmed?upTo=RESOURCE_VERSION&withinMs=N&nodes=NAME,..`
pub async fn programmed(
    State(context): State<Arc<Context>>,
    Query(query): Query<rotation::Query>,
) -> Result<Json<Answer>, Refusal> {
    let question = query.question().map_err(|why| Refusal(StatusCode::BAD_REQUEST, why))?;
    let busy =
        |_| Refusal(StatusCode::TOO_MANY_REQUESTS, format!("{QUESTIONS_MAX} nodes ask already; ask again"));
    let _permit = PERMITS.try_acquire().map_err(busy)?;
    let answer = match &context.rotation {
        Some(rotation) => rotation.answer(&question).await,
        None => None,
    };
    let nothing = || Refusal(StatusCode::NOT_FOUND, "this agent programs no Services".to_owned());
    answer.map(Json).ok_or_else(nothing)
}
