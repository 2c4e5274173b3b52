//! Who uses which element of an array map.

use std::collections::{BTreeMap, BTreeSet};

/// Single elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indices {
    limit: u32,
    next: u32,
    free: BTreeSet<u32>,
}

impl Indices {
    /// All of `0..limit` free.
    pub fn new(limit: u32) -> Self {
        Self { limit, next: 0, free: BTreeSet::new() }
    }

    /// With the indices in `used` taken.
    pub fn with(limit: u32, used: &BTreeSet<u32>) -> Self {
        let next = used.last().map_or(0, |last| last + 1);
        Self { limit, next, free: (0..next).filter(|i| !used.contains(i)).collect() }
    }

    /// Takes the lowest that is free.
    pub fn take(&mut self) -> Option<u32> {
        if let Some(index) = self.free.pop_first() {
            return Some(index);
        }
        if self.next == self.limit {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// Gives one back.
    pub fn give(&mut self, index: u32) {
        self.free.insert(index);
    }

    /// One more than the highest that was ever taken.
    pub fn bound(&self) -> u32 {
        self.next
    }
}

/// Runs of elements. A run that is given back rests until [`Segments::settle`], because a packet
/// that is under way may still read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    limit: u32,
    /// Start to length.
    used: BTreeMap<u32, u32>,
    resting: Vec<u32>,
}

impl Segments {
    /// All of `0..limit` free.
    pub fn new(limit: u32) -> Self {
        Self { limit, used: BTreeMap::new(), resting: Vec::new() }
    }

    /// Marks a run as taken.
    pub fn reserve(&mut self, first: u32, count: u32) {
        if count > 0 {
            self.used.insert(first, count);
        }
    }

    /// Takes `count` elements in a row: the first run of free ones that is long enough. An empty
    /// run is anywhere.
    pub fn take(&mut self, count: u32) -> Option<u32> {
        if count == 0 {
            return Some(0);
        }
        let mut candidate = 0u32;
        for (first, length) in &self.used {
            if first - candidate >= count {
                break;
            }
            candidate = first + length;
        }
        if self.limit - candidate < count {
            return None;
        }
        self.used.insert(candidate, count);
        Some(candidate)
    }

    /// Gives the run that starts at `first` back.
    pub fn give(&mut self, first: u32, count: u32) {
        if count > 0 {
            self.resting.push(first);
        }
    }

    /// Frees what has rested.
    pub fn settle(&mut self) {
        for first in self.resting.drain(..) {
            self.used.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_come_lowest_first_and_run_out() {
        let mut indices = Indices::with(4, &BTreeSet::from([0, 2]));
        assert_eq!([indices.take(), indices.take(), indices.take()], [Some(1), Some(3), None]);
        indices.give(2);
        assert_eq!(indices.take(), Some(2));
    }

    #[test]
    fn a_run_rests_before_it_is_taken_again() {
        let mut runs = Segments::new(10);
        assert_eq!(runs.take(4), Some(0));
        assert_eq!(runs.take(4), Some(4));
        runs.give(0, 4);
        assert_eq!(runs.take(3), None);
        runs.settle();
        assert_eq!(runs.take(3), Some(0));
        assert_eq!(runs.take(2), Some(8));
        assert_eq!(runs.take(0), Some(0));
        assert_eq!(runs.take(1), Some(3));
        assert_eq!(runs.take(1), None);
    }
}
