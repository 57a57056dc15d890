//! How long a request may take: a minute, or less if it asks for less.

use std::time::Duration;

use penstock_schema::duration;

use super::query::Query;
use crate::error::ApiError;

/// Requests that are not watches, logs or proxies must be answered within this time.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The time a request has, by its `timeout` parameter (`30s`): it can only ask for less.
pub fn of(query: &Query) -> Result<Duration, ApiError> {
    let Some(text) = query.text("timeout") else { return Ok(REQUEST_TIMEOUT) };
    // Upstream reads a bare number as no duration either.
    let nanos = duration::parse(text).filter(|nanos| *nanos >= 0).ok_or_else(|| {
        ApiError::bad_request(format!(
            "invalid timeout specified in the request URL - {text:?} is not a duration such as 30s"
        ))
    })?;
    let asked = Duration::from_nanos(nanos.unsigned_abs());
    Ok(if asked.is_zero() { REQUEST_TIMEOUT } else { asked.min(REQUEST_TIMEOUT) })
}

/// How long of it a request may wait to be worked on.
pub fn waiting_part(time: Duration) -> Duration {
    time / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_ask_for_less_time_and_not_for_more() {
        let seconds = |query: &str| of(&Query::parse(query)).map(|time| time.as_secs());
        assert_eq!(seconds("").ok(), Some(60));
        assert_eq!(seconds("timeout=32s").ok(), Some(32));
        assert_eq!(seconds("timeout=10m").ok(), Some(60));
        assert_eq!(seconds("timeout=0s").ok(), Some(60));
        assert_eq!(seconds("timeout=soon").map_err(|error| error.code), Err(400));
        assert_eq!(seconds("timeout=-1s").map_err(|error| error.code), Err(400));
    }
}
