//! Waiting before memory is read.

use std::time::Duration;

/// What a server gives back after load, it has given back by then: both collectors run within seconds.
const SETTLE: Duration = Duration::from_secs(5);

pub async fn settle() {
    tokio::time::sleep(SETTLE).await;
}
