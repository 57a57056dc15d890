//! How far this cluster's revisions are from etcd's own.
//!
//! etcd counts from one and cannot be told to begin elsewhere. After a restore into a new etcd its revisions would be
//! ones that clients know from before, of other events. So a restore notes an offset beside the objects, which every
//! API server adds to what etcd says: a revision from before is older than any of now, and is answered as compacted.

use bytes::Bytes;
use etcd_client::{Client, KeyValue, ResponseHeader};

use super::{call, kv_of, unavailable};
use crate::{Record, Revision, StoreError};

/// Where the offset is kept: a decimal number, or [`RESTORING`].
const KEY: &str = "/penstock/revision-offset";
/// Instead of a number while a restore is under way, or after one that did not end.
const RESTORING: &str = "restoring";

/// What is added to etcd's revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offset(pub(super) u64);

// === impl Offset ===

impl Offset {
    /// The cluster's. An error while a restore is under way.
    pub(super) async fn read(client: &Client) -> Result<Self, StoreError> {
        Self::read_finished(client).await?.ok_or_else(|| {
            unavailable(
                "a restore into this etcd is under way or was not finished; run `orchestrator restore --replace` again"
                    .to_owned(),
            )
        })
    }

    /// None while a restore is under way.
    pub(super) async fn read_finished(client: &Client) -> Result<Option<Self>, StoreError> {
        let answer = call("get", kv_of(client).get(KEY, None)).await?;
        let Some(row) = answer.kvs().first() else { return Ok(Some(Self(0))) };
        let text = row.value_str().unwrap_or_default();
        if text == RESTORING {
            return Ok(None);
        }
        text.parse().map(|offset| Some(Self(offset))).map_err(|_| StoreError::Corrupt {
            detail: format!("etcd's {KEY} holds {text:?}, which is no number"),
        })
    }

    /// Notes the offset, or that a restore is under way.
    pub(super) async fn write(client: &Client, offset: Option<Self>) -> Result<(), StoreError> {
        let text = offset.map_or(RESTORING.to_owned(), |offset| offset.0.to_string());
        call("put", kv_of(client).put(KEY, text, None)).await.map(drop)
    }

    /// etcd's number for a revision, which has 63 bits there. Of one from before a restore there is none.
    pub(super) fn wire(self, revision: Revision) -> Result<i64, StoreError> {
        match revision.0.checked_sub(self.0) {
            Some(wire) => Ok(i64::try_from(wire).unwrap_or(i64::MAX)),
            None => Err(StoreError::Compacted { oldest: Revision(self.0 + 1) }),
        }
    }

    pub(super) fn revision(self, wire: i64) -> Revision {
        match u64::try_from(wire) {
            Ok(wire @ 1..) => Revision(wire.saturating_add(self.0)),
            _ => Revision(0),
        }
    }

    pub(super) fn header(self, header: Option<&ResponseHeader>) -> Result<Revision, StoreError> {
        header
            .map(|header| self.revision(header.revision()))
            .ok_or_else(|| unavailable("etcd answered without a header".into()))
    }

    pub(super) fn record(self, row: &KeyValue) -> Result<Record, StoreError> {
        self.owned_record(row.clone())
    }

    pub(super) fn owned_record(self, row: KeyValue) -> Result<Record, StoreError> {
        let (created, modified) = (self.revision(row.create_revision()), self.revision(row.mod_revision()));
        let (key, value) = row.into_key_value();
        let key = String::from_utf8(key).map_err(|error| StoreError::Corrupt {
            detail: format!("a key is not text: {:?}", error.as_bytes()),
        })?;
        Ok(Record { key, value: Bytes::from(value), created, modified })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_from_before_a_restore_are_compacted_and_others_go_there_and_back() {
        let offset = Offset(1_000);
        assert_eq!(offset.wire(Revision(1_007)).unwrap(), 7);
        assert_eq!(offset.revision(7), Revision(1_007));
        assert_eq!(offset.revision(0), Revision(0), "none stays none");
        let refused = offset.wire(Revision(999));
        assert!(matches!(refused, Err(StoreError::Compacted { oldest: Revision(1_001) })), "{refused:?}");
        assert_eq!(Offset::default().wire(Revision(0)).unwrap(), 0);
    }
}
