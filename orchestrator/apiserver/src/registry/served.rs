//! What is served at one moment: definitions and the storage behind them. Never changed, only replaced.
//!
//! Built-in kinds are there from the start; custom kinds are added and taken away by making the next one. Storage
//! that a change does not concern is carried over, watchers and all.

use std::collections::HashMap;
use std::sync::Arc;

use penstock_schema::TypeRef;
use penstock_store::cache::Feed;

use super::definition::Definition;
use super::generic::Cell;

/// See the module.
pub(crate) struct Served {
    /// In discovery order: built-in kinds first, custom groups by name, their versions by preference.
    definitions: Vec<Arc<Definition>>,
    built_in: usize,
    /// By plural name, which few kinds share.
    by_plural: HashMap<String, Vec<Arc<Definition>>>,
    /// By plural name, with the group.
    cells: HashMap<String, Vec<(String, Arc<Cell>)>>,
    /// Custom kinds by the name of their CustomResourceDefinition.
    custom: HashMap<String, Arc<Custom>>,
    generation: u64,
}

/// Everything one CustomResourceDefinition adds.
pub(crate) struct Custom {
    /// The served versions, most preferred first.
    pub versions: Vec<Arc<Definition>>,
    /// The version objects are stored in, served or not.
    pub stored: Arc<Definition>,
    /// What the storage depends on: while it stays the same, so do caches and watchers.
    pub storage_fingerprint: String,
}

// === impl Served ===

impl Served {
    pub fn built_in(definitions: Vec<Arc<Definition>>, feed: &Arc<Feed>) -> Self {
        let mut served = Self {
            built_in: definitions.len(),
            definitions,
            by_plural: HashMap::new(),
            cells: HashMap::new(),
            custom: HashMap::new(),
            generation: 0,
        };
        for definition in served.definitions.iter().filter(|d| d.stored_as.is_none()) {
            let cell = Arc::new(Cell::new(feed.clone(), definition.clone()));
            served
                .cells
                .entry(definition.plural.to_string())
                .or_default()
                .push((definition.group.to_string(), cell));
        }
        served.index();
        served
    }

    /// The same with one CustomResourceDefinition's kinds replaced, added or (with none) removed.
    pub fn with_custom(&self, name: &str, custom: Option<Arc<Custom>>, feed: &Arc<Feed>) -> Self {
        let mut next = Self {
            definitions: self.definitions[..self.built_in].to_vec(),
            built_in: self.built_in,
            by_plural: HashMap::new(),
            cells: self.cells.clone(),
            custom: self.custom.clone(),
            generation: self.generation + 1,
        };
        let before = next.custom.remove(name);
        let kept = match (&before, &custom) {
            (Some(before), Some(after)) => before.storage_fingerprint == after.storage_fingerprint,
            _ => false,
        };
        if !kept {
            if let Some(before) = &before {
                next.drop_cell(&before.stored);
            }
            if let Some(after) = &custom {
                let cell = Arc::new(Cell::new(feed.clone(), after.stored.clone()));
                let (group, plural) = (after.stored.group.to_string(), after.stored.plural.to_string());
                next.cells.entry(plural).or_default().push((group, cell));
            }
        }
        next.custom.extend(custom.map(|custom| (name.to_owned(), custom)));
        let mut all: Vec<&Arc<Custom>> = next.custom.values().collect();
        all.sort_by(|a, b| (&a.stored.group, &a.stored.plural).cmp(&(&b.stored.group, &b.stored.plural)));
        let added: Vec<Arc<Definition>> = all.iter().flat_map(|custom| custom.versions.clone()).collect();
        next.definitions.extend(added);
        next.index();
        next
    }

    fn drop_cell(&mut self, stored: &Definition) {
        if let Some(cells) = self.cells.get_mut(stored.plural.as_ref()) {
            cells.retain(|(group, _)| *group != stored.group);
        }
    }

    fn index(&mut self) {
        for definition in &self.definitions {
            self.by_plural.entry(definition.plural.to_string()).or_default().push(definition.clone());
        }
    }

    pub fn definitions(&self) -> &[Arc<Definition>] {
        &self.definitions
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn custom(&self, name: &str) -> Option<&Arc<Custom>> {
        self.custom.get(name)
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Definition>> {
        self.by_plural.get(plural)?.iter().find(|d| d.group == group && d.version == version).cloned()
    }

    pub fn cell(&self, group: &str, plural: &str) -> Option<Arc<Cell>> {
        self.cells.get(plural)?.iter().find(|(g, _)| g == group).map(|(_, cell)| cell.clone())
    }

    /// The type of a custom kind or of its list.
    pub fn custom_type(&self, group: &str, version: &str, kind: &str) -> Option<TypeRef> {
        let mut definitions = self.definitions[self.built_in..].iter();
        let of = |d: &&Arc<Definition>| {
            d.group == group && d.version == version && (d.kind == kind || d.list_kind == kind)
        };
        definitions.find(of)?.ty.schema().kind(group, version, kind)
    }
}
