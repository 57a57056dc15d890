//! etcd's side of backups: read in pieces at one revision, and written by transactions of many records.

use std::collections::HashMap;
use std::io::{Read, Write};

use etcd_client::{Client, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp};

use super::offset::Offset;
use super::{Etcd, PIECE_RECORDS_MAX, call, dial, kv_of, range_end, successor};
use crate::StoreError;
use crate::backup::{
    self, BackupError, Entry, Header, Reader, Report, Restored, Source, Summary, Writer, now_unix_seconds,
};

/// Under this are all records of the API server; other keys of the cluster are somebody else's.
pub const KEYS_PREFIX: &str = "/registry/";

/// Records of one transaction (etcd's `--max-txn-ops` is 128), and bytes of it (its limit of a request is 1.5 MiB).
const BATCH_RECORDS_MAX: usize = 100;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Records that run out within so many seconds of each other share a lease when they are restored.
const LEASE_STEP_SECONDS: u64 = 60;

// === impl Etcd ===

impl Etcd {
    /// Writes every record of one revision out as a backup, while the cluster goes on being used.
    /// [`StoreError::Compacted`] if it is compacted past that revision meanwhile: begin again then.
    pub async fn backup<W: Write + Send>(
        &self,
        out: W,
        report: Report<'_>,
    ) -> Result<(Summary, W), BackupError> {
        let end = range_end(KEYS_PREFIX.as_bytes());
        let mut start = KEYS_PREFIX.as_bytes().to_vec();
        let mut at = None;
        let mut writer = None;
        let mut out = Some(out);
        let mut deadlines = HashMap::new();
        loop {
            let mut answer = self.piece(start, end.clone(), at, PIECE_RECORDS_MAX).await?;
            let revision = match at {
                Some(revision) => revision,
                None => *at.insert(self.offset.header(answer.header())?),
            };
            let writer = match &mut writer {
                Some(writer) => writer,
                none => {
                    let Some(out) = out.take() else { return Err(BackupError::Truncated { offset: 0 }) };
                    none.insert(Writer::new(out, Header::now(revision, Source::Etcd))?)
                }
            };
            let (more, rows) = (answer.more(), answer.take_kvs());
            let Some(last) = rows.last() else { break };
            start = successor(last.key());
            for row in rows {
                let expires_unix_seconds = self.deadline(&mut deadlines, row.lease()).await?;
                let record = self.offset.owned_record(row)?;
                writer.put(&Entry { record, expires_unix_seconds })?;
            }
            report(writer.progress());
            if !more {
                break;
            }
        }
        match writer {
            Some(writer) => writer.finish(),
            None => Err(BackupError::Truncated { offset: 0 }),
        }
    }

    /// When a lease runs out. Each is asked for once.
    async fn deadline(
        &self,
        known: &mut HashMap<i64, Option<u64>>,
        lease: i64,
    ) -> Result<Option<u64>, StoreError> {
        if lease == 0 {
            return Ok(None);
        }
        if let Some(deadline) = known.get(&lease) {
            return Ok(*deadline);
        }
        let answer = call("ask for a lease", self.client.lease_client().time_to_live(lease, None)).await?;
        // One that ran out since has no time left.
        let left = u64::try_from(answer.ttl()).unwrap_or(0);
        let deadline = Some(now_unix_seconds() + left);
        known.insert(lease, deadline);
        Ok(deadline)
    }
}

/// Puts the records of a backup into an etcd that holds none; with `replace`, what it holds is deleted first. No API
/// server may use that etcd meanwhile: one that connects is refused, one that is connected would serve a mixture.
pub async fn restore(
    endpoints: &[String],
    from: impl Read,
    replace: bool,
    report: Report<'_>,
) -> Result<Restored, BackupError> {
    let client = dial(endpoints).await?;
    let before = Offset::read_finished(&client).await?;
    let all = GetOptions::new().with_range(range_end(KEYS_PREFIX.as_bytes())).with_count_only();
    let found = call("count", kv_of(&client).get(KEYS_PREFIX, Some(all))).await?;
    if !replace && (found.count() > 0 || before.is_none()) {
        let holds = match before {
            Some(_) => format!("{} records of a cluster", found.count()),
            None => "a restore that was not finished".to_owned(),
        };
        return Err(BackupError::NotEmpty { place: endpoints.join(","), holds });
    }
    let newest_there = before.unwrap_or_default().header(found.header())?;
    let mut reader = Reader::new(from)?;
    let offset = Offset(backup::continues_at(&reader.header(), newest_there).0);

    Offset::write(&client, None).await?;
    let all = DeleteOptions::new().with_range(range_end(KEYS_PREFIX.as_bytes()));
    call("delete", kv_of(&client).delete(KEYS_PREFIX, Some(all))).await?;
    let mut leases = HashMap::new();
    while restore_batch(&client, &mut reader, &mut leases).await? {
        report(reader.progress());
    }
    report(reader.progress());
    let summary = reader.summary()?;
    Offset::write(&client, Some(offset)).await?;
    // Nobody may resume from the midst of the restore.
    let newest = call("get", kv_of(&client).get(KEYS_PREFIX, None)).await?;
    let continues_at = offset.header(newest.header())?;
    let compacted = call("compact", kv_of(&client).compact(offset.wire(continues_at)?, None)).await;
    compacted?;
    Ok(Restored { backup: summary, continues_at })
}

/// Puts some records; false when there were no more.
async fn restore_batch(
    client: &Client,
    reader: &mut Reader<impl Read>,
    leases: &mut HashMap<u64, i64>,
) -> Result<bool, BackupError> {
    let mut operations = Vec::new();
    let mut bytes = 0;
    let mut more = true;
    while operations.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX {
        let Some(Entry { record, expires_unix_seconds }) = reader.next()? else {
            more = false;
            break;
        };
        let lease = match expires_unix_seconds {
            None => 0,
            Some(deadline) => lease_until(client, leases, deadline).await?,
        };
        bytes += record.key.len() + record.value.len();
        let options = PutOptions::new().with_lease(lease);
        operations.push(TxnOp::put(record.key, record.value.to_vec(), Some(options)));
    }
    if !operations.is_empty() {
        call("put", kv_of(client).txn(Txn::new().and_then(operations))).await?;
    }
    Ok(more)
}

/// A lease that ends at the deadline or a little later.
async fn lease_until(
    client: &Client,
    leases: &mut HashMap<u64, i64>,
    deadline: u64,
) -> Result<i64, StoreError> {
    let deadline = deadline.div_ceil(LEASE_STEP_SECONDS) * LEASE_STEP_SECONDS;
    if let Some(lease) = leases.get(&deadline) {
        return Ok(*lease);
    }
    let seconds = deadline.saturating_sub(now_unix_seconds()).max(1);
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let lease = call("grant a lease", client.lease_client().grant(seconds, None)).await?.id();
    leases.insert(deadline, lease);
    Ok(lease)
}
