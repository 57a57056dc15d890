//! A watch on etcd as a stream of the store's events.

use std::collections::VecDeque;

use etcd_client::{EventType, WatchClient, WatchOptions, WatchResponse};
use futures::stream;

use super::offset::Offset;
use super::{MESSAGE_BYTES_MAX, call, failed, range_end, unavailable};
use crate::{Event, Revision, StoreError, WatchStream};

struct Watch {
    /// Holds the request side open as well: etcd ends a watch whose requests end.
    responses: etcd_client::WatchStream,
    ready: VecDeque<Event>,
    offset: Offset,
    ended: bool,
}

pub(super) async fn open(
    client: WatchClient,
    offset: Offset,
    prefix: &str,
    after: Revision,
) -> Result<WatchStream, StoreError> {
    let start = if prefix.is_empty() { vec![0] } else { prefix.as_bytes().to_vec() };
    let options = WatchOptions::new()
        .with_range(range_end(prefix.as_bytes()))
        .with_start_revision(offset.wire(after)?.saturating_add(1))
        .with_prev_key();
    let mut client = client.max_decoding_message_size(MESSAGE_BYTES_MAX);
    let responses = call("watch", client.watch(start, Some(options))).await?;
    let mut watch = Watch { responses, ready: VecDeque::new(), offset, ended: false };
    // The first answer says that the watch exists. Without waiting for it, an unreachable cluster would look idle.
    call("watch", async { watch.responses.message().await })
        .await?
        .map_or_else(|| Err(ended()), |first| watch.take(&first))?;
    Ok(Box::pin(stream::unfold(
        watch,
        |mut watch| async move { watch.next().await.map(|event| (event, watch)) },
    )))
}

// === impl Watch ===

impl Watch {
    async fn next(&mut self) -> Option<Result<Event, StoreError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            let taken = match self.responses.message().await {
                Ok(Some(response)) => self.take(&response),
                Ok(None) => Err(ended()),
                Err(error) => Err(failed("watch", &error)),
            };
            if let Err(error) = taken {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }

    fn take(&mut self, response: &WatchResponse) -> Result<(), StoreError> {
        if response.compact_revision() > 0 {
            return Err(StoreError::Compacted { oldest: self.offset.revision(response.compact_revision()) });
        }
        if response.canceled() {
            return Err(unavailable(format!("etcd ended the watch: {}", response.cancel_reason())));
        }
        for event in response.events() {
            let Some(row) = event.kv() else { continue };
            // Keys that are not text are another program's: the watch may span the whole key space.
            let Ok(key) = row.key_str() else { continue };
            let current = match event.event_type() {
                EventType::Put => Some(self.offset.owned_record(row.clone())?),
                EventType::Delete => None,
            };
            let previous = event.prev_kv().map(|row| self.offset.record(row)).transpose()?;
            let revision = self.offset.revision(row.mod_revision());
            self.ready.push_back(Event { revision, key: key.to_owned(), current, previous });
        }
        Ok(())
    }
}

fn ended() -> StoreError {
    unavailable("etcd closed the watch".to_owned())
}
