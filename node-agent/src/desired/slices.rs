//! The slices of one Service, in as few bytes as they need.
//!
//! It exists because nearly every Service has one slice: a tree of its own for it, with room for eleven, was the most that an
//! agent held of most Services. It must not know what a slice means.

use std::sync::Arc;

use crate::cluster::{Endpoints, ObjectName, PortView, SliceView};

/// By name, in the order of names.
#[derive(Debug, Default)]
pub struct Slices(Box<[(Arc<ObjectName>, Slice)]>);

/// What is kept of a slice.
#[derive(Debug, PartialEq)]
pub struct Slice {
    pub ports: Arc<[PortView]>,
    pub endpoints: Endpoints,
    /// As in [`SliceView`].
    pub nonsense: Box<[String]>,
    pub resource_version: u64,
}

// === impl Slices ===

impl Slices {
    pub fn get(&self, name: &ObjectName) -> Option<&Slice> {
        self.0.get(self.place_of(name).ok()?).map(|(_, slice)| slice)
    }

    pub fn iter(&self) -> impl Iterator<Item = &(Arc<ObjectName>, Slice)> {
        self.0.iter()
    }

    pub fn values(&self) -> impl Iterator<Item = &Slice> {
        self.0.iter().map(|(_, slice)| slice)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a slice in, in the place of what it was before.
    pub fn insert(&mut self, name: Arc<ObjectName>, slice: Slice) {
        match self.place_of(&name) {
            Ok(at) => self.0[at].1 = slice,
            Err(at) => {
                let mut all = std::mem::take(&mut self.0).into_vec();
                all.reserve_exact(1);
                all.insert(at, (name, slice));
                self.0 = all.into();
            }
        }
    }

    pub fn remove(&mut self, name: &ObjectName) {
        if let Ok(at) = self.place_of(name) {
            let mut all = std::mem::take(&mut self.0).into_vec();
            all.remove(at);
            self.0 = all.into();
        }
    }

    /// Where it is, or where it would be.
    fn place_of(&self, name: &ObjectName) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(name))
    }
}

// === impl Slice ===

impl From<SliceView> for Slice {
    fn from(view: SliceView) -> Self {
        let SliceView { ports, endpoints, nonsense, resource_version, .. } = view;
        Self { ports, endpoints, nonsense, resource_version }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_found_by_name_and_stand_in_the_order_of_names() {
        let name = |name: &str| Arc::new(ObjectName { namespace: "a".into(), name: name.into() });
        let slice = |version| Slice::from(SliceView { resource_version: version, ..SliceView::default() });
        let mut slices = Slices::default();
        for (of, version) in [("m", 1), ("z", 2), ("b", 3), ("m", 4)] {
            slices.insert(name(of), slice(version));
        }
        let versions = |slices: &Slices| slices.values().map(|it| it.resource_version).collect::<Vec<_>>();
        assert_eq!(versions(&slices), [3, 4, 2]);
        assert_eq!(slices.get(&name("z")).map(|it| it.resource_version), Some(2));
        slices.remove(&name("z"));
        slices.remove(&name("nobody"));
        assert_eq!(versions(&slices), [3, 4]);
        slices.remove(&name("b"));
        slices.remove(&name("m"));
        assert!(slices.is_empty() && slices.get(&name("m")).is_none());
    }
}
