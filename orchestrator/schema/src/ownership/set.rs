//! Sets of fields, as trees. A field in a set says nothing of its parts nor of what it is a part of.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::element::Element;

/// A set of fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Set {
    nodes: BTreeMap<Element, Node>,
}

/// What a set holds at and below one element. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Node {
    member: bool,
    below: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

// === impl Set ===

impl Set {
    /// The set of some paths.
    pub fn of<'p>(paths: impl IntoIterator<Item = &'p [&'p str]>) -> Set {
        let mut set = Set::default();
        for path in paths {
            set.insert(&path.iter().map(|name| Element::field(*name)).collect::<Vec<_>>());
        }
        set
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many fields are in it.
    pub fn len(&self) -> usize {
        self.nodes.values().map(|node| usize::from(node.member) + node.below.len()).sum()
    }

    /// Adds a field. The path of no element is the object itself, which nobody owns.
    pub fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => self.nodes.entry(last.clone()).or_default().member = true,
            [first, rest @ ..] => self.nodes.entry(first.clone()).or_default().below.insert(rest),
        }
    }

    /// Adds what stands at an element: the element itself if it is a member, and the fields below it.
    pub(crate) fn insert_node(&mut self, element: Element, member: bool, below: Set) {
        if !member && below.is_empty() {
            return;
        }
        match self.nodes.entry(element) {
            Entry::Vacant(place) => {
                place.insert(Node { member, below });
            }
            Entry::Occupied(mut place) => {
                let node = place.get_mut();
                node.member |= member;
                node.below = std::mem::take(&mut node.below).union(below);
            }
        }
    }

    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.has_member(last),
            [first, rest @ ..] => self.below(first).is_some_and(|below| below.has(rest)),
        }
    }

    /// Whether the element itself is in the set.
    pub fn has_member(&self, element: &Element) -> bool {
        self.nodes.get(element).is_some_and(|node| node.member)
    }

    /// The fields below an element, if there are any.
    pub fn below(&self, element: &Element) -> Option<&Set> {
        self.nodes.get(element).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    /// Elements in order, each with whether it is a member and the fields below it.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&Element, bool, &Set)> {
        self.nodes.iter().map(|(element, node)| (element, node.member, &node.below))
    }

    /// The same with each node replaced by what `change` makes of it.
    pub(crate) fn rebuilt(self, mut change: impl FnMut(&Element, bool, Set) -> (bool, Set)) -> Set {
        let nodes = self.nodes.into_iter().filter_map(|(element, node)| {
            let (member, below) = change(&element, node.member, node.below);
            let node = Node { member, below };
            (!node.is_empty()).then_some((element, node))
        });
        Set { nodes: nodes.collect() }
    }

    /// What is in either.
    pub fn union(mut self, other: Set) -> Set {
        if self.is_empty() {
            return other;
        }
        for (element, node) in other.nodes {
            self.insert_node(element, node.member, node.below);
        }
        self
    }

    /// What is in both.
    pub fn intersection(&self, other: &Set) -> Set {
        let mut out = Set::default();
        for (element, node) in &self.nodes {
            if let Some(theirs) = other.nodes.get(element) {
                let below = node.below.intersection(&theirs.below);
                out.insert_node(element.clone(), node.member && theirs.member, below);
            }
        }
        out
    }

    /// What is in this one only. Parts of a field stay when the field goes.
    pub fn difference(self, other: &Set) -> Set {
        if other.is_empty() {
            return self;
        }
        self.rebuilt(|element, member, below| match other.nodes.get(element) {
            Some(theirs) => (member && !theirs.member, below.difference(&theirs.below)),
            None => (member, below),
        })
    }

    /// What is in this one and neither in the other nor a part of what is.
    pub fn difference_with_parts(self, other: &Set) -> Set {
        if other.is_empty() {
            return self;
        }
        self.rebuilt(|element, member, below| match other.nodes.get(element) {
            Some(theirs) if theirs.member => (false, Set::default()),
            Some(theirs) => (member, below.difference_with_parts(&theirs.below)),
            None => (member, below),
        })
    }

    /// What lies on, at or below one of the patterns, which are names of fields; `*` stands for any element.
    pub fn within(self, patterns: &[&[&str]]) -> Set {
        if patterns.iter().any(|pattern| pattern.is_empty()) {
            return self;
        }
        self.rebuilt(|element, member, below| {
            let matching: Vec<&[&str]> = patterns
                .iter()
                .filter(|pattern| match element {
                    Element::Field(name) => pattern[0] == "*" || pattern[0] == name,
                    _ => pattern[0] == "*",
                })
                .map(|pattern| &pattern[1..])
                .collect();
            if matching.is_empty() { (false, Set::default()) } else { (member, below.within(&matching)) }
        })
    }

    /// Every path of the set, a field before its parts.
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut Vec<Element>, out: &mut Vec<Vec<Element>>) {
        for (element, node) in &self.nodes {
            prefix.push(element.clone());
            if node.member {
                out.push(prefix.clone());
            }
            node.below.collect(prefix, out);
            prefix.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(paths: &[&[&str]]) -> Set {
        Set::of(paths.iter().copied())
    }

    #[test]
    fn a_field_and_its_parts_are_apart() {
        let both = set(&[&["a"], &["a", "b"], &["a", "c"]]);
        assert_eq!(both.len(), 3);
        assert_eq!(both.clone().difference(&set(&[&["a"]])), set(&[&["a", "b"], &["a", "c"]]));
        assert_eq!(both.clone().difference_with_parts(&set(&[&["a"]])), Set::default());
        assert_eq!(both.clone().difference(&set(&[&["a", "b"]])), set(&[&["a"], &["a", "c"]]));
        assert_eq!(both.intersection(&set(&[&["a"], &["a", "b", "x"]])), set(&[&["a"]]));
    }

    #[test]
    fn a_pattern_keeps_what_lies_below_it() {
        let all = set(&[&["spec", "x", "y"], &["spec", "x", "z"], &["spec", "v"], &["status"]]);
        assert_eq!(all.clone().within(&[&["spec", "*", "y"]]), set(&[&["spec", "x", "y"], &["spec", "v"]]));
        assert_eq!(all.clone().within(&[&["status"]]), set(&[&["status"]]));
        assert_eq!(all.clone().within(&[&[]]), all);
    }

    #[test]
    fn paths_come_in_order() {
        let paths: Vec<String> = set(&[&["b"], &["a", "c"], &["a"]])
            .paths()
            .iter()
            .map(|path| super::super::element::path_text(path))
            .collect();
        assert_eq!(paths, [".a", ".a.c", ".b"]);
    }
}
