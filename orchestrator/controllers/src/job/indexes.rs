//! Sets of completion indexes, as a Job's status and policies write them: `1,3-5`. Pure.

use std::collections::BTreeSet;

/// Indexes in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Indexes(BTreeSet<i32>);

impl Indexes {
    /// Reads the text form. What is not an index below `limit` is left out: a status may hold anything.
    pub(crate) fn parse(text: &str, limit: i32) -> Self {
        let mut indexes = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.trim().parse::<i32>(), last.trim().parse::<i32>()) else {
                continue;
            };
            indexes.extend(first.max(0)..=last.min(limit - 1));
        }
        Self(indexes)
    }

    pub(crate) fn insert(&mut self, index: i32) -> bool {
        self.0.insert(index)
    }

    pub(crate) fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    pub(crate) fn len(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }

    /// How many of `other` are in this.
    pub(crate) fn count_in(&self, other: &Self) -> i32 {
        i32::try_from(self.0.intersection(&other.0).count()).unwrap_or(i32::MAX)
    }
}

impl std::fmt::Display for Indexes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut between = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if(|n| *n == last + 1) {
                last = next;
            }
            write!(f, "{between}{first}")?;
            between = ",";
            match last - first {
                0 => {}
                1 => write!(f, ",{last}")?,
                _ => write!(f, "-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_written_as_ranges_and_read_back() {
        let indexes = Indexes::parse("0,2,4-6,8,9,x,7-1", 100);
        assert_eq!(indexes.to_string(), "0,2,4-6,8,9");
        assert_eq!(Indexes::parse(&indexes.to_string(), 100), indexes);
        assert_eq!(Indexes::parse("0-2147483647", 3).to_string(), "0-2");
        assert_eq!(Indexes::parse("", 3).len(), 0);
    }
}
