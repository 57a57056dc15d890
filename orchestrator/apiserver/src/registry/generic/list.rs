//! List: from the watch cache as long as it holds what is asked for, from the store's history otherwise.

use std::sync::Arc;
use std::time::Duration;

use penstock_store::cache::Snapshot;
use penstock_store::{ListRequest, Record, Revision, StoreError};

use super::{Cell, cache_error, from_stored, share, store_error};
use crate::error::{ApiError, FieldError};
use crate::registry::context::{Context, Target};
use crate::registry::continuation::Continuation;
use crate::registry::definition::Definition;
use crate::registry::object::CachedObject;
use crate::registry::options::ListOptions;
use crate::registry::selector::Selection;
use crate::registry::{ListResult, Registry};

/// How long a list waits for a revision this server has not seen yet.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(3);
/// Records read from the store at a time when a selector makes the page's length unknown.
const SNAPSHOT_PAGE_RECORDS: usize = 500;

impl Registry {
    pub async fn list(
        &self,
        _context: &Context,
        definition: &Definition,
        target: &Target,
        options: &ListOptions,
    ) -> Result<ListResult, ApiError> {
        validate_list_options(options)?;
        let selection = Selection::parse(
            options.label_selector.as_deref(),
            options.field_selector.as_deref(),
            definition,
        )?;
        let cell = self.cell(definition)?.clone();
        let limit = options.limit.filter(|l| *l > 0).map(|l| usize::try_from(l).unwrap_or(usize::MAX));
        let listing = Listing {
            definition,
            cell: &cell,
            prefix: cell.prefix_of(target.namespace.as_deref()),
            selection: &selection,
        };
        if let Some(token) = options.continue_token.as_deref().filter(|t| !t.is_empty()) {
            let continuation = Continuation::decode(token)?;
            return self.list_at(&listing, limit, continuation).await;
        }
        let version = parse_version(options.resource_version.as_deref())?;
        if options.resource_version_match.as_deref() == Some("Exact")
            && let Some(exact) = version
        {
            let from_start = Continuation { revision: Some(exact), after: String::new(), remaining: None };
            return self.list_at(&listing, limit, from_start).await;
        }
        match version {
            None => {
                cell.cache.wait_until_current().await.map_err(cache_error)?;
            }
            Some(0) => {}
            Some(n) => catch_up(&cell, n).await?,
        }
        // "Any version" is served whole, as upstream serves it from its cache.
        let limit = if version == Some(0) { None } else { limit };
        let snapshot = cell.cache.snapshot().await.map_err(cache_error)?;
        self.list_cached(&listing, &snapshot, limit, None).await
    }

    /// A page of the past: from the cache as long as it still has it, which a client that goes from page to page can
    /// rely on for a while, and from the store's history otherwise.
    async fn list_at(
        &self,
        listing: &Listing<'_>,
        limit: Option<usize>,
        continuation: Continuation,
    ) -> Result<ListResult, ApiError> {
        let cache = &listing.cell.cache;
        let snapshot = match continuation.revision {
            Some(revision) => cache.snapshot_at(Revision(revision)).await.map_err(cache_error)?,
            None => None,
        };
        match snapshot {
            Some(snapshot) => {
                let after = listing.after(&continuation);
                self.list_cached(listing, &snapshot, limit, after).await
            }
            None => self.list_stored(listing, limit, continuation).await,
        }
    }

    /// A page of what the cache held at a revision.
    async fn list_cached(
        &self,
        listing: &Listing<'_>,
        snapshot: &Snapshot<Arc<CachedObject>>,
        limit: Option<usize>,
        mut after: Option<String>,
    ) -> Result<ListResult, ApiError> {
        let everything = listing.selection.is_everything();
        // How many records a selector must look at is not known before.
        let ask = if everything { limit } else { limit.map(|limit| limit.max(SNAPSHOT_PAGE_RECORDS)) };
        let mut items: Vec<Arc<CachedObject>> = Vec::new();
        let mut last_key = None;
        let (mut more, mut remaining) = (false, 0);
        while !more {
            let page = snapshot.page(&listing.prefix, after.as_deref(), ask);
            let stored: Vec<Arc<CachedObject>> = page.items.iter().map(|item| item.value.clone()).collect();
            let shown = self.present_all(listing.definition, &stored).await?;
            if everything {
                last_key = page.items.last().map(|item| item.key.clone());
                (items, more, remaining) = (shown, page.remaining > 0, page.remaining as u64);
                break;
            }
            for (item, object) in page.items.iter().zip(shown) {
                if !listing.selection.matches(&object) {
                    continue;
                }
                // One beyond the page tells whether there is another.
                if limit.is_some_and(|limit| items.len() == limit) {
                    more = true;
                    break;
                }
                items.push(object);
                last_key = Some(item.key.clone());
            }
            after = page.items.last().map(|item| item.key.to_string());
            if page.remaining == 0 {
                break;
            }
        }
        let continue_token = last_key.filter(|_| more).map(|key| {
            // Whoever was given a part will come for the rest.
            listing.cell.cache.keep(snapshot);
            let revision = Some(snapshot.revision().0);
            let remaining = everything.then_some(remaining);
            Continuation { revision, after: key[listing.prefix.len()..].to_string(), remaining }.encode()
        });
        Ok(ListResult {
            items,
            resource_version: snapshot.revision().0,
            continue_token,
            remaining: (more && everything).then_some(remaining),
        })
    }

    /// A page of the store's history.
    async fn list_stored(
        &self,
        listing: &Listing<'_>,
        limit: Option<usize>,
        continuation: Continuation,
    ) -> Result<ListResult, ApiError> {
        let Listing { definition, cell, prefix, selection } = listing;
        let is_continued = !continuation.after.is_empty();
        let mut after = listing.after(&continuation);
        let mut at = continuation.revision.map(Revision);
        // The snapshot does not change, so what followed the last page is what this one takes and what follows it.
        let known = continuation.remaining.filter(|_| at.is_some() && selection.is_everything());
        let count_remaining = selection.is_everything() && limit.is_some() && known.is_none();
        let mut items: Vec<Arc<CachedObject>> = Vec::new();
        loop {
            let missing = limit.map(|l| l - items.len());
            let ask =
                if selection.is_everything() { missing } else { missing.map(|_| SNAPSHOT_PAGE_RECORDS) };
            let request =
                ListRequest { prefix: prefix.clone(), at, after: after.clone(), limit: ask, count_remaining };
            let page = match self.store.list(request).await {
                Ok(page) => page,
                Err(StoreError::Compacted { .. }) if is_continued => {
                    return Err(expired_continuation(continuation.after));
                }
                Err(e) => return Err(store_error(e)),
            };
            at = Some(page.revision);
            let mut cut_at = None;
            let shown = self.present_records(definition, cell, &page.records).await?;
            for (i, (record, object)) in page.records.iter().zip(shown).enumerate() {
                after = Some(record.key.clone());
                if selection.matches(&object) {
                    items.push(object);
                }
                if limit.is_some_and(|l| items.len() == l) {
                    cut_at = Some(i);
                    break;
                }
            }
            let left_in_page = cut_at.map_or(0, |i| page.records.len() - 1 - i) as u64;
            let full = limit.is_some_and(|l| items.len() >= l);
            let more = left_in_page > 0 || page.more;
            if full || !more {
                let remaining = match known {
                    Some(known) => Some(known.saturating_sub(items.len() as u64)),
                    None => page.remaining.map(|rest| left_in_page + rest),
                };
                let remaining = remaining.filter(|_| more && selection.is_everything());
                let continue_token = after.filter(|_| more).map(|key| {
                    let revision = Some(page.revision.0);
                    Continuation { revision, after: key[prefix.len()..].to_string(), remaining }.encode()
                });
                return Ok(ListResult {
                    items,
                    resource_version: page.revision.0,
                    continue_token,
                    remaining,
                });
            }
        }
    }
}

/// What is listed.
struct Listing<'a> {
    definition: &'a Definition,
    cell: &'a Cell,
    /// Of the keys of the namespace, or of all.
    prefix: String,
    selection: &'a Selection,
}

impl Listing<'_> {
    /// The key after which a list goes on.
    fn after(&self, continuation: &Continuation) -> Option<String> {
        (!continuation.after.is_empty()).then(|| format!("{}{}", self.prefix, continuation.after))
    }
}

impl Registry {
    /// Records as the caller asked for them, from the cache where it holds the same ones.
    async fn present_records(
        &self,
        definition: &Definition,
        cell: &Cell,
        records: &[Record],
    ) -> Result<Vec<Arc<CachedObject>>, ApiError> {
        let mut stored = Vec::with_capacity(records.len());
        for record in records {
            stored.push(match cell.cache.get(&record.key).await {
                Ok(Some(item)) if item.revision == record.modified => item.value.clone(),
                _ => self.as_cached(cell, record)?,
            });
        }
        self.present_all(definition, &stored).await
    }

    /// A record as the cache would hold it.
    fn as_cached(&self, cell: &Cell, record: &Record) -> Result<Arc<CachedObject>, ApiError> {
        let (value, _) = super::parse(record)
            .map_err(|e| ApiError::internal(format!("{} cannot be read: {e}", record.key)))?;
        Ok(share(&cell.definition, &from_stored(&cell.definition, value)))
    }
}

/// Waits for a revision other servers have told the client of.
pub(super) async fn catch_up(cell: &Cell, revision: u64) -> Result<(), ApiError> {
    match tokio::time::timeout(CATCH_UP_TIMEOUT, cell.cache.wait_for(Revision(revision))).await {
        Ok(waited) => waited.map_err(cache_error),
        Err(_) => Err(ApiError::too_large_version(revision, cell.cache.revision().0)),
    }
}

pub(super) fn parse_version(text: Option<&str>) -> Result<Option<u64>, ApiError> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| {
            ApiError::invalid(
                "meta.k8s.io",
                "ListOptions",
                "",
                vec![FieldError::invalid("resourceVersion", text, "invalid resource version")],
            )
        }),
    }
}

fn expired_continuation(after: String) -> ApiError {
    let mut e = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    e.continue_token = Some(Continuation { revision: None, after, remaining: None }.encode().into());
    e
}

/// The combinations upstream refuses.
fn validate_list_options(options: &ListOptions) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    let given = |o: &Option<String>| o.as_deref().filter(|t| !t.is_empty()).map(str::to_string);
    let version = given(&options.resource_version);
    let continued = given(&options.continue_token).is_some();
    if continued && version.as_deref().is_some_and(|v| v != "0") {
        return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
    }
    if let Some(how) = given(&options.resource_version_match) {
        let path = "resourceVersionMatch";
        match &version {
            None => errors.push(FieldError::forbidden(
                path,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            )),
            Some(_) if continued => errors.push(FieldError::forbidden(
                path,
                "resourceVersionMatch is forbidden when continue is provided",
            )),
            Some(v) if how == "Exact" && v == "0" => errors.push(FieldError::forbidden(
                path,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            )),
            _ => {}
        }
        if how != "Exact" && how != "NotOlderThan" {
            errors.push(FieldError::not_supported(path, how.as_str(), &["Exact", "NotOlderThan", ""]));
        }
    }
    if options.send_initial_events.is_some() {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: ListOptions) -> String {
        validate_list_options(&options).unwrap_err().message
    }

    #[test]
    fn contradictory_versions_are_refused_like_upstream() {
        let text = |t: &str| Some(t.to_string());
        assert_eq!(
            refused(ListOptions { resource_version_match: text("Exact"), ..Default::default() }),
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        );
        assert!(
            refused(ListOptions {
                resource_version_match: text("Exact"),
                resource_version: text("0"),
                ..Default::default()
            })
            .contains("\"exact\" is forbidden")
        );
        assert!(
            refused(ListOptions {
                continue_token: text("x"),
                resource_version: text("5"),
                ..Default::default()
            })
            .starts_with("specifying resource version")
        );
    }
}
