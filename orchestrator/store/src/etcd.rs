//! The store of a cluster: etcd through its v3 API.
//!
//! Keys, revisions and events map one to one. What etcd does not give is added here: a conflict that carries the
//! current record, lists of any size read in pieces of one snapshot, leases shared between records, and a deadline
//! on every call, since a client of an unreachable cluster would otherwise wait for ever.

mod backup;
mod compaction;
mod lease;
mod offset;
mod stream;

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, GetOptions, GetResponse, KvClient, PutOptions,
    Txn, TxnOp, TxnOpResponse, TxnResponse,
};

use crate::{
    Committed, Expect, ListRequest, Mutation, Page, Record, Revision, Store, StoreError, VALUE_BYTES_MAX,
    WatchStream, Write,
};
use lease::Leases;
use offset::Offset;

pub use backup::{KEYS_PREFIX, restore};
pub use compaction::keep_compacted;

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Records asked for in one call; longer lists are read in pieces.
const PIECE_RECORDS_MAX: usize = 500;
/// One piece of the largest records fits.
const MESSAGE_BYTES_MAX: usize = PIECE_RECORDS_MAX * (VALUE_BYTES_MAX + 8192);

/// A store in an etcd cluster. Other keys of the cluster are left alone.
pub struct Etcd {
    client: Client,
    leases: Leases,
    offset: Offset,
}

// === impl Etcd ===

impl Etcd {
    /// Connects to a cluster, given as `http://host:port` of its members, and checks that it answers.
    pub async fn connect(endpoints: &[String]) -> Result<Self, StoreError> {
        let client = dial(endpoints).await?;
        let offset = Offset::read(&client).await?;
        let store = Self { leases: Leases::new(client.lease_client()), client, offset };
        store.revision().await?;
        Ok(store)
    }

    fn kv(&self) -> KvClient {
        kv_of(&self.client)
    }

    /// One range request of a list.
    async fn piece(
        &self,
        start: Vec<u8>,
        end: Vec<u8>,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<GetResponse, StoreError> {
        let at_wire = at.map_or(Ok(0), |at| self.offset.wire(at))?;
        let options = GetOptions::new()
            .with_range(end)
            .with_limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .with_revision(at_wire);
        match call("list", self.kv().get(start, Some(options))).await {
            Err(StoreError::FutureRevision { requested: _, newest: _ }) => Err(StoreError::FutureRevision {
                requested: at.unwrap_or_default(),
                newest: self.revision().await?,
            }),
            answer => answer,
        }
    }

    async fn transact(&self, write: &Write, lease: Option<i64>) -> Result<TxnResponse, StoreError> {
        let key = write.key.as_bytes();
        let expected = match (write.expect, &write.mutation) {
            (Expect::Any, Mutation::Put { .. }) => vec![],
            (Expect::Any, Mutation::Delete) => vec![Compare::create_revision(key, CompareOp::Greater, 0)],
            (Expect::Absent, Mutation::Put { .. }) => {
                vec![Compare::create_revision(key, CompareOp::Equal, 0)]
            }
            // Never true: what is absent cannot be deleted.
            (Expect::Absent, Mutation::Delete) => vec![Compare::create_revision(key, CompareOp::Less, 0)],
            (Expect::Revision(revision), _) => {
                // What was read before a restore is no revision of this cluster's, nor of an absent key's, which is 0.
                let wire = self.offset.wire(revision).unwrap_or(-1);
                vec![Compare::mod_revision(key, CompareOp::Equal, wire)]
            }
        };
        let operation = match &write.mutation {
            Mutation::Delete => TxnOp::delete(key, Some(DeleteOptions::new().with_prev_key())),
            Mutation::Put { value, .. } => {
                let options = PutOptions::new().with_prev_key().with_lease(lease.unwrap_or(0));
                TxnOp::put(key, value.to_vec(), Some(options))
            }
        };
        let transaction = Txn::new().when(expected).and_then([operation]).or_else([TxnOp::get(key, None)]);
        call("commit", self.kv().txn(transaction)).await
    }
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        let answer = call("get", self.kv().get(key, None)).await?;
        answer.kvs().first().map(|row| self.offset.record(row)).transpose()
    }

    async fn list(&self, request: ListRequest) -> Result<Page, StoreError> {
        let end = range_end(request.prefix.as_bytes());
        let mut start = match request.after.filter(|after| after.as_str() > request.prefix.as_str()) {
            Some(after) => successor(after.as_bytes()),
            None if request.prefix.is_empty() => vec![0],
            None => request.prefix.into_bytes(),
        };
        let limit = request.limit.unwrap_or(usize::MAX);
        let mut page = Page { records: Vec::new(), revision: Revision(0), more: false, remaining: None };
        let mut at = request.at;
        loop {
            // A limit of zero asks etcd for everything: ask for one, and count it as not given.
            let wanted = (limit - page.records.len()).min(PIECE_RECORDS_MAX);
            let mut answer = self.piece(start, end.clone(), at, wanted.max(1)).await?;
            if page.revision == Revision(0) {
                // The header carries the newest revision even when an older one was read.
                page.revision = at.unwrap_or(self.offset.header(answer.header())?);
                at = Some(page.revision);
            }
            let total = usize::try_from(answer.count()).unwrap_or(usize::MAX);
            let rows = answer.take_kvs();
            let given = rows.len().min(wanted);
            for row in rows.into_iter().take(given) {
                page.records.push(self.offset.owned_record(row)?);
            }
            // etcd counts in any case.
            let remaining = total.saturating_sub(given) as u64;
            page.remaining = Some(remaining);
            if remaining == 0 || page.records.len() >= limit {
                break;
            }
            let Some(last) = page.records.last() else { break };
            start = successor(last.key.as_bytes());
        }
        page.more = page.remaining != Some(0);
        Ok(page)
    }

    async fn commit(&self, write: Write) -> Result<Committed, StoreError> {
        write.check()?;
        let ttl_seconds = match &write.mutation {
            Mutation::Put { lease_ttl_seconds, .. } => *lease_ttl_seconds,
            Mutation::Delete => None,
        };
        let answer = match ttl_seconds {
            None => self.transact(&write, None).await,
            Some(ttl_seconds) => {
                let lease = self.leases.obtain(ttl_seconds).await?;
                match self.transact(&write, Some(lease)).await {
                    // The shared lease ran out between being chosen and being used.
                    Err(StoreError::Unavailable { detail })
                        if detail.contains("requested lease not found") =>
                    {
                        self.leases.forget(ttl_seconds, lease).await;
                        self.transact(&write, Some(self.leases.obtain(ttl_seconds).await?)).await
                    }
                    answer => answer,
                }
            }
        };
        let answer = match answer {
            Err(StoreError::TooLarge { value_bytes_max, .. }) => {
                let value_bytes = match &write.mutation {
                    Mutation::Put { value, .. } => value.len(),
                    Mutation::Delete => 0,
                };
                return Err(StoreError::TooLarge { key: write.key, value_bytes, value_bytes_max });
            }
            answer => answer?,
        };
        let revision = self.offset.header(answer.header())?;
        let response = answer.op_responses().into_iter().next();
        if !answer.succeeded() {
            let current = match &response {
                Some(TxnOpResponse::Get(found)) => {
                    found.kvs().first().map(|row| self.offset.record(row)).transpose()?
                }
                _ => None,
            };
            return Err(StoreError::Conflict { key: write.key, current });
        }
        let previous = match &response {
            Some(TxnOpResponse::Put(put)) => put.prev_key().map(|row| self.offset.record(row)).transpose()?,
            Some(TxnOpResponse::Delete(delete)) => {
                delete.prev_kvs().first().map(|row| self.offset.record(row)).transpose()?
            }
            _ => None,
        };
        Ok(Committed { revision, previous })
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        stream::open(self.client.watch_client(), self.offset, prefix, after).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        // Any linearizable read will do; this one returns nothing.
        let options = GetOptions::new().with_count_only();
        let answer = call("get", self.kv().get("/", Some(options))).await?;
        self.offset.header(answer.header())
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        match call("compact", self.kv().compact(self.offset.wire(before)?, None)).await {
            Ok(_) => Ok(()),
            Err(StoreError::FutureRevision { .. }) => {
                Err(StoreError::FutureRevision { requested: before, newest: self.revision().await? })
            }
            Err(error) => Err(error),
        }
    }
}

/// Connects, without asking what the cluster holds.
async fn dial(endpoints: &[String]) -> Result<Client, StoreError> {
    if let Some(endpoint) = endpoints.iter().find(|endpoint| !endpoint.starts_with("http://")) {
        return Err(unavailable(format!(
            "{endpoint} is not an endpoint this build can use: write http://HOST:PORT (TLS to etcd is not built in)"
        )));
    }
    let options = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT)
        .with_keep_alive_while_idle(true)
        // A member cut off from its cluster should fail rather than serve the past.
        .with_require_leader(true);
    call("connect", Client::connect(endpoints, Some(options))).await
}

fn kv_of(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// Awaits a call of the client under the deadline, with its errors made the store's.
async fn call<T>(
    what: &str,
    request: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(CALL_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| failed(what, &error)),
        Err(_) => Err(unavailable(format!("etcd did not answer {what} within {} s", CALL_TIMEOUT.as_secs()))),
    }
}

/// etcd tells its errors apart by text only: the strings of its `rpctypes`, which are part of its API.
fn failed(what: &str, error: &etcd_client::Error) -> StoreError {
    let text = match error {
        etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
        error => error.to_string(),
    };
    if text.contains("required revision has been compacted") {
        StoreError::Compacted { oldest: Revision(0) }
    } else if text.contains("required revision is a future revision") {
        StoreError::FutureRevision { requested: Revision(0), newest: Revision(0) }
    } else if text.contains("database space exceeded") {
        StoreError::Full {
            detail: "etcd has reached its quota; compact and defragment it, and disarm its alarm (`etcdctl alarm disarm`)"
                .to_owned(),
        }
    } else if text.contains("request is too large") || text.contains("larger than max") {
        StoreError::TooLarge { key: String::new(), value_bytes: 0, value_bytes_max: VALUE_BYTES_MAX }
    } else {
        unavailable(format!("etcd could not {what}: {text}"))
    }
}

fn unavailable(detail: String) -> StoreError {
    StoreError::Unavailable { detail }
}

/// The first key after this one.
fn successor(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The first key after all that start with the prefix; a zero byte stands for the end of the key space.
fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_after_the_last_key_of_the_prefix() {
        assert_eq!(range_end(b"/registry/"), b"/registry0");
        assert_eq!(range_end(&[b'a', 0xff]), b"b");
        assert_eq!(range_end(&[0xff, 0xff]), [0]);
        assert_eq!(range_end(b""), [0]);
    }
}
