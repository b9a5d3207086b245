//! Homes that wait to be looked at, each once, in the order in which they came.

use std::collections::{BTreeSet, HashSet, VecDeque};

use carebed_contract::id::HomeId;

#[derive(Debug, Default)]
pub(super) struct Queue {
    order: VecDeque<HomeId>,
    /// The same homes.
    waiting: HashSet<HomeId>,
}

impl Queue {
    /// A home that waits already keeps its place.
    pub(super) fn push(&mut self, home: &HomeId) {
        if !self.waiting.contains(home) {
            self.waiting.insert(home.clone());
            self.order.push_back(home.clone());
        }
    }

    /// Takes the first `n`, or all when there are fewer.
    pub(super) fn pop(&mut self, n: usize) -> BTreeSet<HomeId> {
        let homes: BTreeSet<HomeId> = self.order.drain(..n.min(self.order.len())).collect();
        homes.iter().for_each(|home| drop(self.waiting.take(home)));
        homes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_once_and_who_came_first_is_taken_first() {
        let mut queue = Queue::default();
        let mut push = |names: &[&str]| names.iter().for_each(|name| queue.push(&name.parse().unwrap()));
        push(&["c", "a", "c", "b"]);
        let names = |homes: BTreeSet<HomeId>| homes.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(queue.pop(2)), ["a", "c"]);
        queue.push(&"c".parse().unwrap());
        assert_eq!(names(queue.pop(9)), ["b", "c"]);
        assert!(queue.pop(1).is_empty());
    }
}
