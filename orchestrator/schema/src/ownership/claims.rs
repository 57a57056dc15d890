//! The algebra of owners: what an update takes from them, and what an apply may take, adds and removes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::combine;
use super::element::Element;
use super::managers::{Manager, Operation};
use super::set::Set;
use super::walk::{self, Comparison};
use crate::TypeRef;

/// What one manager owns.
#[derive(Debug, Clone)]
pub struct Claim {
    fields: Fields,
    /// The version the fields are of.
    pub api_version: String,
    /// When they were last changed, in RFC 3339.
    pub time: Option<String>,
}

/// The fields of a claim. Most claims of most writes are passed on as they came.
#[derive(Debug, Clone)]
enum Fields {
    /// As the object carries them. What cannot be read is nothing.
    Written(Value),
    Read(Set),
}

/// Who owns what of one object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Managed {
    pub claims: BTreeMap<Manager, Claim>,
}

/// The object in its other versions.
pub trait Versions {
    /// The type of a version, and an object of the request's version in it. None if there is no such version.
    fn convert<'v>(&self, object: &'v Value, api_version: &str) -> Option<(TypeRef, Cow<'v, Value>)>;

    /// An object of some version in the request's own.
    fn back(&self, object: Value, api_version: &str) -> Value;
}

/// Fields a write cannot change, whatever it says: nobody comes to own them by it.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only what lies on or below one of these; everything if there is none.
    pub within: &'static [&'static [&'static str]],
    /// And none of these or their parts.
    pub without: Set,
}

/// One field two managers want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub owner: Manager,
    /// Of the owner's last change.
    pub api_version: String,
    pub path: Vec<Element>,
}

/// What came of an apply.
#[derive(Debug)]
pub struct Applied {
    pub object: Value,
    pub managed: Managed,
}

/// The circumstances of a write.
pub struct Write<'a> {
    pub versions: &'a dyn Versions,
    pub filter: &'a Filter,
    /// The version of the request.
    pub api_version: &'a str,
    /// Now, in RFC 3339.
    pub now: &'a str,
}

// === impl Claim ===

impl Claim {
    pub fn new(set: Set, api_version: impl Into<String>, time: Option<String>) -> Claim {
        Claim { fields: Fields::Read(set), api_version: api_version.into(), time }
    }

    /// A claim in the form objects carry, not read before it must be.
    pub(crate) fn written(fields: Value, api_version: String, time: Option<String>) -> Claim {
        Claim { fields: Fields::Written(fields), api_version, time }
    }

    pub fn set(&self) -> Cow<'_, Set> {
        match &self.fields {
            Fields::Read(set) => Cow::Borrowed(set),
            Fields::Written(fields) => Cow::Owned(Set::from_fields_v1(fields).unwrap_or_default()),
        }
    }

    pub fn into_set(self) -> Set {
        match self.fields {
            Fields::Read(set) => set,
            Fields::Written(fields) => Set::from_fields_v1(&fields).unwrap_or_default(),
        }
    }

    pub(crate) fn into_fields_v1(self) -> Value {
        match self.fields {
            Fields::Read(set) => set.to_fields_v1(),
            Fields::Written(fields) => fields,
        }
    }

    /// Whether it has a field of the set.
    fn meets(&self, other: &Set) -> bool {
        match &self.fields {
            Fields::Read(set) => !set.intersection(other).is_empty(),
            Fields::Written(fields) => other.meets_fields_v1(fields),
        }
    }

    /// Replaces the fields by what `change` makes of them.
    pub fn change(&mut self, change: impl FnOnce(Set) -> Set) {
        let set = match std::mem::replace(&mut self.fields, Fields::Read(Set::default())) {
            Fields::Read(set) => set,
            Fields::Written(fields) => Set::from_fields_v1(&fields).unwrap_or_default(),
        };
        self.fields = Fields::Read(change(set));
    }
}

impl PartialEq for Claim {
    fn eq(&self, other: &Self) -> bool {
        self.api_version == other.api_version && self.time == other.time && self.set() == other.set()
    }
}

impl Eq for Claim {}

// === impl Filter ===

impl Filter {
    fn keep(&self, set: Set) -> Set {
        let set = if self.within.is_empty() { set } else { set.within(self.within) };
        set.difference_with_parts(&self.without)
    }

    fn keep_of(&self, found: Comparison) -> Comparison {
        Comparison {
            removed: self.keep(found.removed),
            modified: self.keep(found.modified),
            added: self.keep(found.added),
        }
    }
}

// === impl Write ===

impl Write<'_> {
    /// Who owns what after `manager` has made `new` of `old`. Neither holds its own `managedFields`.
    pub fn update(&self, manager: Manager, managed: Managed, old: &Value, new: &Value) -> Managed {
        let found = self.changes(old, new);
        self.update_by(manager, managed, old, new, found)
    }

    /// What an update changes that somebody can own.
    pub fn changes(&self, old: &Value, new: &Value) -> Comparison {
        let found = self.compare(old, new, self.api_version).unwrap_or_default();
        Comparison {
            removed: without_identity(found.removed),
            modified: without_identity(found.modified),
            added: without_identity(found.added),
        }
    }

    /// As [`Write::update`], where the [`Write::changes`] are known.
    pub fn update_by(
        &self,
        manager: Manager,
        mut managed: Managed,
        old: &Value,
        new: &Value,
        found: Comparison,
    ) -> Managed {
        if found.is_empty() {
            return managed;
        }
        let taken = found.changed();
        self.take(&mut managed, None, old, new, found);
        if !taken.is_empty() {
            let before = managed.claims.remove(&manager).map(Claim::into_set).unwrap_or_default();
            let claim = Claim::new(taken.union(before), self.api_version, Some(self.now.to_owned()));
            managed.claims.insert(manager, claim);
        }
        managed
    }

    /// The object and its owners after `manager` has applied `config` to `live`. Neither holds its `managedFields`.
    ///
    /// # Errors
    /// Fields that others own with other values, unless `force` takes them.
    pub fn apply(
        &self,
        manager: &Manager,
        mut managed: Managed,
        live: &Value,
        config: &Value,
        force: bool,
    ) -> Result<Applied, Vec<Conflict>> {
        let Some((ty, _)) = self.versions.convert(live, self.api_version) else {
            return Ok(Applied { object: live.clone(), managed });
        };
        let merged = combine::merge(&ty, live, config);
        let before = managed.claims.remove(manager);
        let set = self.filter.keep(walk::fields_of(&ty, config));
        let claim = Claim::new(set, self.api_version, None);
        managed.claims.insert(manager.clone(), claim);
        let object = match &before {
            Some(before) => self.prune(merged, &managed, before),
            None => merged,
        };
        let found = self.compare(live, &object, self.api_version).unwrap_or_default();
        if !force {
            let conflicts = self.conflicts(&managed, manager, live, &object, &found);
            if !conflicts.is_empty() {
                return Err(conflicts);
            }
        }
        self.take(&mut managed, Some(manager), live, &object, found);
        if let Some(mut claim) = managed.claims.remove(manager) {
            claim.change(without_identity);
            let same =
                before.as_ref().is_some_and(|b| b.set() == claim.set() && b.api_version == claim.api_version);
            claim.time = match before.and_then(|b| b.time) {
                Some(time) if same && object == *live => Some(time),
                _ => Some(self.now.to_owned()),
            };
            if !claim.set().is_empty() {
                managed.claims.insert(manager.clone(), claim);
            }
        }
        Ok(Applied { object, managed })
    }

    fn compare(&self, old: &Value, new: &Value, api_version: &str) -> Option<Comparison> {
        let (ty, old) = self.versions.convert(old, api_version)?;
        let (_, new) = self.versions.convert(new, api_version)?;
        let found = walk::compare(&ty, &old, &new);
        Some(if api_version == self.api_version { self.filter.keep_of(found) } else { found })
    }

    /// Takes from all owners but one what has changed or gone. Claims in versions that are no more go as well.
    fn take(
        &self,
        managed: &mut Managed,
        but: Option<&Manager>,
        old: &Value,
        new: &Value,
        found: Comparison,
    ) {
        let mut gone_of: BTreeMap<String, Option<Set>> = BTreeMap::new();
        let lost = |found: Comparison| found.removed.union(found.modified).union(found.added);
        gone_of.insert(self.api_version.to_owned(), Some(lost(found)));
        managed.claims.retain(|manager, claim| {
            if Some(manager) == but {
                return true;
            }
            if !gone_of.contains_key(&claim.api_version) {
                let gone = self.compare(old, new, &claim.api_version).map(lost);
                gone_of.insert(claim.api_version.clone(), gone);
            }
            match gone_of.get(&claim.api_version) {
                Some(Some(gone)) if claim.meets(gone) => {
                    claim.change(|set| set.difference(gone));
                    !claim.set().is_empty()
                }
                Some(Some(_)) => true,
                _ => false,
            }
        });
    }

    fn conflicts(
        &self,
        managed: &Managed,
        applying: &Manager,
        live: &Value,
        new: &Value,
        found: &Comparison,
    ) -> Vec<Conflict> {
        let mut changed_of: BTreeMap<&str, Set> = BTreeMap::new();
        changed_of.insert(self.api_version, found.changed());
        let mut out = Vec::new();
        for (owner, claim) in managed.claims.iter().filter(|(owner, _)| *owner != applying) {
            let changed = changed_of
                .entry(&claim.api_version)
                .or_insert_with(|| self.compare(live, new, &claim.api_version).unwrap_or_default().changed());
            if !claim.meets(changed) {
                continue;
            }
            out.extend(claim.set().intersection(changed).paths().into_iter().map(|path| Conflict {
                owner: owner.clone(),
                api_version: claim.api_version.clone(),
                path,
            }));
        }
        out
    }

    /// Removes what the applying manager owned `before`, does not give any more, and nobody else owns.
    fn prune(&self, merged: Value, managed: &Managed, before: &Claim) -> Value {
        if before.set().is_empty() {
            return merged;
        }
        let Some((ty, full)) = self.versions.convert(&merged, &before.api_version) else {
            return merged;
        };
        let last = walk::with_named_fields(&ty, before.set().into_owned());
        let mut pruned = combine::remove(&ty, &full, &last);
        // The version of the pruned object first: others may not be convertible without what is added back.
        let versions = std::iter::once(before.api_version.as_str())
            .chain(managed.claims.values().map(|claim| claim.api_version.as_str()));
        let mut seen: Vec<&str> = Vec::new();
        for version in versions {
            if seen.contains(&version) {
                continue;
            }
            seen.push(version);
            let of_version = managed.claims.values().filter(|claim| claim.api_version == version);
            let owned = of_version.fold(Set::default(), |all, claim| all.union(claim.set().into_owned()));
            pruned = self.add_back(&merged, pruned, &before.api_version, version, owned);
        }
        let full_set = walk::with_named_fields(&ty, walk::fields_of(&ty, &full));
        let pruned_set = walk::with_named_fields(&ty, walk::fields_of(&ty, &pruned));
        // Only what the manager itself owned goes: not what a removed parent would take along.
        let gone = full_set.difference(&pruned_set).intersection(&last);
        if gone.is_empty() {
            return merged;
        }
        self.versions.back(combine::remove(&ty, &full, &gone), &before.api_version)
    }

    /// Gives back what was pruned in `pruned_version` and is owned in `version`.
    fn add_back(
        &self,
        merged: &Value,
        pruned: Value,
        pruned_version: &str,
        version: &str,
        owned: Set,
    ) -> Value {
        if owned.is_empty() {
            return pruned;
        }
        let pruned_own = self.versions.back(pruned, pruned_version);
        let back = |object: Value| match self.versions.convert(&object, pruned_version) {
            Some((_, Cow::Owned(converted))) => converted,
            _ => object,
        };
        let (Some((ty, full)), Some((_, pruned))) =
            (self.versions.convert(merged, version), self.versions.convert(&pruned_own, version))
        else {
            return back(pruned_own);
        };
        let kept = walk::with_named_fields(&ty, walk::fields_of(&ty, &pruned))
            .union(walk::with_named_fields(&ty, owned));
        let all = walk::with_named_fields(&ty, walk::fields_of(&ty, &full));
        let given_back = combine::remove(&ty, &full, &all.difference(&kept));
        back(self.versions.back(given_back, version))
    }
}

/// A set without what identifies an object or is the server's own, which nobody owns.
fn without_identity(set: Set) -> Set {
    use std::sync::LazyLock;
    static IDENTITY: LazyLock<Set> = LazyLock::new(|| {
        let metadata = [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        ];
        let mut set = Set::of([&["apiVersion"][..], &["kind"], &["metadata"]]);
        for field in metadata {
            set.insert(&[Element::field("metadata"), Element::field(field)]);
        }
        set
    });
    set.difference(&IDENTITY)
}

// === impl Managed ===

impl Managed {
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// The most entries of updates that are kept apart; older ones become one.
    pub const UPDATERS_MAX: usize = 10;

    /// Joins the oldest entries of updates, by version, until there are at most [`Managed::UPDATERS_MAX`].
    pub fn cap(&mut self) {
        const ANCIENT: &str = "ancient-changes";
        let mut updaters: Vec<(Option<String>, Manager)> = self
            .claims
            .iter()
            .filter(|(manager, _)| manager.operation == Operation::Update)
            .map(|(manager, claim)| (claim.time.clone(), manager.clone()))
            .collect();
        let mut left = updaters.len();
        updaters.sort();
        let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
        for (time, manager) in updaters {
            if left <= Self::UPDATERS_MAX {
                break;
            }
            let Some(claim) = self.claims.get(&manager) else { continue };
            let version = claim.api_version.clone();
            let bucket = Manager::updating(ANCIENT, &version, "");
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, manager);
                continue;
            };
            if !self.claims.contains_key(&bucket)
                && let Some(claim) = self.claims.remove(first)
            {
                self.claims.insert(bucket.clone(), claim);
            }
            if manager == bucket {
                continue;
            }
            if let Some(claim) = self.claims.remove(&manager)
                && let Some(ancient) = self.claims.get_mut(&bucket)
            {
                ancient.change(|set| set.union(claim.into_set()));
                ancient.time = time;
            }
            left -= 1;
        }
    }
}
