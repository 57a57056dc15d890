//! One write inside a transaction: compare, then set. Used by the writer for callers and for records that ran out.

use redb::{ReadableTable, Table, WriteTransaction};

use super::layout::{
    COMPACTED, Change, EXPIRY, LOG, LogRow, META, NEWEST, SEQUENCE, STORE, SWEPT, VERSIONS, damaged,
    encode_log, encode_version, failed, version_key,
};
use super::read;
use crate::{Committed, Event, Expect, Mutation, Record, Revision, StoreError, Write};

/// The open tables of one write transaction.
pub(super) struct Tables<'t> {
    pub(super) versions: Table<'t, &'static [u8], &'static [u8]>,
    pub(super) log: Table<'t, u64, &'static [u8]>,
    pub(super) expiry: Table<'t, (u64, u64), &'static str>,
    pub(super) meta: Table<'t, &'static str, u64>,
}

/// The numbers in `meta` that a transaction may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) newest: Revision,
    pub(super) compacted: Revision,
    pub(super) swept: Revision,
    /// The last batch of the journal.
    pub(super) sequence: u64,
}

// === impl Tables ===

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            versions: transaction.open_table(VERSIONS).map_err(failed)?,
            log: transaction.open_table(LOG).map_err(failed)?,
            expiry: transaction.open_table(EXPIRY).map_err(failed)?,
            meta: transaction.open_table(META).map_err(failed)?,
        })
    }

    pub(super) fn marks(&self) -> Result<Marks, StoreError> {
        Ok(Marks {
            newest: Revision(self.number(NEWEST)?),
            compacted: Revision(self.number(COMPACTED)?),
            swept: Revision(self.number(SWEPT)?),
            sequence: self.number(SEQUENCE)?,
        })
    }

    /// Which store this is.
    pub(super) fn store(&self) -> Result<u64, StoreError> {
        self.number(STORE)
    }

    fn number(&self, name: &str) -> Result<u64, StoreError> {
        Ok(self.meta.get(name).map_err(failed)?.ok_or_else(|| damaged(name))?.value())
    }

    /// Writes the numbers that changed.
    pub(super) fn set_marks(&mut self, before: Marks, after: Marks) -> Result<(), StoreError> {
        let pairs = [
            (NEWEST, before.newest.0, after.newest.0),
            (COMPACTED, before.compacted.0, after.compacted.0),
            (SWEPT, before.swept.0, after.swept.0),
            (SEQUENCE, before.sequence, after.sequence),
        ];
        for (name, _, new) in pairs.into_iter().filter(|(_, old, new)| old != new) {
            self.meta.insert(name, new).map_err(failed)?;
        }
        Ok(())
    }

    /// Applies a write as the given revision. On a conflict nothing is changed.
    pub(super) fn apply(
        &mut self,
        write: Write,
        revision: Revision,
        now_unix_seconds: u64,
    ) -> Result<(Committed, Event), StoreError> {
        let previous = read::latest(&self.versions, &write.key)?;
        let deletes = matches!(write.mutation, Mutation::Delete);
        let expected = match write.expect {
            Expect::Any => !deletes || previous.is_some(),
            Expect::Absent => !deletes && previous.is_none(),
            Expect::Revision(revision) => previous.as_ref().is_some_and(|record| record.modified == revision),
        };
        if !expected {
            return Err(StoreError::Conflict { key: write.key, current: previous });
        }

        let created = previous.as_ref().map_or(revision, |record| record.created);
        let row_key = version_key(&write.key, revision);
        let current = match write.mutation {
            Mutation::Delete => None,
            Mutation::Put { value, lease_ttl_seconds } => {
                if let Some(ttl_seconds) = lease_ttl_seconds {
                    let deadline = now_unix_seconds.saturating_add(ttl_seconds);
                    self.expiry.insert((deadline, revision.0), write.key.as_str()).map_err(failed)?;
                }
                Some(Record { key: write.key.clone(), value, created, modified: revision })
            }
        };
        let content = current.as_ref().map(|record| record.value.as_ref());
        self.versions
            .insert(row_key.as_slice(), encode_version(&row_key, created, content).as_slice())
            .map_err(failed)?;
        let change = match (&current, &previous) {
            (None, _) => Change::Deleted,
            (Some(_), None) => Change::Created,
            (Some(_), Some(_)) => Change::Updated,
        };
        let replaced = previous.as_ref().map_or(Revision(0), |record| record.modified);
        let row = LogRow { change, previous: replaced, key: write.key };
        self.log.insert(revision.0, encode_log(revision, &row).as_slice()).map_err(failed)?;

        let event = Event { revision, key: row.key, current, previous: previous.clone() };
        Ok((Committed { revision, previous }, event))
    }
}
