//! The plain limit on requests at once, for servers without priority and fairness.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::request_info::RequestInfo;
use crate::error::ApiError;
use crate::registry::User;

/// Who bypasses every limit (upstream's exception, so that an administrator can still look).
const PRIVILEGED: &str = "system:masters";

/// How many requests are being answered.
pub struct InFlight {
    reading: Arc<Semaphore>,
    mutating: Arc<Semaphore>,
}

// === impl InFlight ===

impl InFlight {
    pub fn new(reading_max: u32, mutating_max: u32) -> Self {
        let room = |max: u32| Arc::new(Semaphore::new(max as usize));
        Self { reading: room(reading_max), mutating: room(mutating_max) }
    }

    /// Room for a request, as long as what it gives is kept; 429 if there is none.
    pub fn enter(&self, user: &User, info: &RequestInfo) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        if user.is_in(PRIVILEGED) {
            return Ok(None);
        }
        let room = if info.is_mutating() { &self.mutating } else { &self.reading };
        let entered = room.clone().try_acquire_owned();
        entered.map(Some).map_err(|_| ApiError::overloaded(1))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::query::Query;
    use super::*;

    #[test]
    fn reads_and_writes_have_room_of_their_own_and_administrators_need_none() {
        let limit = InFlight::new(1, 1);
        let info =
            |method: Method| RequestInfo::parse(&method, "/api/v1/namespaces/a/pods", &Query::default());
        let (read, write) = (info(Method::GET), info(Method::POST));
        let user = User::default();
        let held = limit.enter(&user, &read).unwrap();
        let refused = limit.enter(&user, &read).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_seconds), (429, Some(1)));
        assert!(limit.enter(&user, &write).is_ok());
        assert!(limit.enter(&User::system("root"), &read).is_ok());
        drop(held);
        assert!(limit.enter(&user, &read).is_ok());
    }
}
