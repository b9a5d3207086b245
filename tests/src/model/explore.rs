//! Walks all states of a model, breadth first.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::{Hash, Hasher};

/// A world of which every state can be visited.
pub trait Model {
    /// All there is to know about the world at one instant.
    type State: Clone + Hash;
    /// Something that may happen.
    type Action: Clone + Debug;

    /// Where it begins.
    fn initial(&self) -> Self::State;
    /// All that may happen in a state.
    fn actions(&self, state: &Self::State) -> Vec<Self::Action>;
    /// What happens next when nothing more goes wrong; none when all is done. It need not be one of the actions.
    fn heal(&self, state: &Self::State) -> Option<Self::Action>;
    /// The state after an action.
    fn after(&self, state: &Self::State, action: &Self::Action) -> Self::State;
    /// A promise that the state breaks.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
    /// A promise that the state breaks, when nothing more happens after it.
    fn broken_at_rest(&self, state: &Self::State) -> Option<&'static str>;
}

/// A broken promise and the shortest way to it.
#[derive(Debug)]
pub struct Violation {
    /// Which promise.
    pub promise: &'static str,
    /// What happened, in order.
    pub path: Vec<String>,
}

/// What a walk found.
#[derive(Debug)]
pub struct Explored {
    /// States visited.
    pub states: usize,
    /// Actions taken.
    pub steps: usize,
    /// Whether every reachable state was visited; otherwise the bound or a violation ended the walk.
    pub exhausted: bool,
    /// The first broken promise.
    pub violation: Option<Violation>,
}

/// The promise that is broken when healing goes round in a circle.
pub const STICKS: &str = "a lane sticks: without further faults the same states come again and again";

/// How each state was reached, and where healing leads from it.
struct Visited<A> {
    /// By 64 bits of their hash: that any two of a million states share them has a probability of 3 in 10⁸; one of
    /// them would then not be visited.
    numbers: HashMap<u64, usize>,
    reached: Vec<Option<(usize, A)>>,
    heals_to: Vec<Option<usize>>,
}

/// A hash by multiplying and folding. The standard one takes two thirds of the time of a walk without optimisation; a
/// walk has no enemy who chooses collisions.
struct Fingerprint(u64);

impl Fingerprint {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the product are folded together")]
    fn mix(&mut self, word: u64) {
        // The fractional digits of pi and of e: odd numbers without structure.
        let product = u128::from(self.0 ^ word).wrapping_mul(0x243F_6A88_85A3_08D3);
        self.0 = product as u64 ^ (product >> 64) as u64 ^ 0xB7E1_5162_8AED_2A6B;
    }
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.mix((*byte).into());
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.mix(value.into());
    }
    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }
    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }
    fn write_isize(&mut self, value: isize) {
        self.mix(value.cast_unsigned() as u64);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

impl<A: Clone + Debug> Visited<A> {
    /// The number of a state, and whether it is new.
    fn number(&mut self, state: &impl Hash, from: Option<(usize, A)>) -> (usize, bool) {
        let mut fingerprint = Fingerprint(1);
        state.hash(&mut fingerprint);
        let next = self.reached.len();
        let number = *self.numbers.entry(fingerprint.finish()).or_insert(next);
        let new = number == next;
        if new {
            self.reached.push(from);
            self.heals_to.push(None);
        }
        (number, new)
    }

    fn violation(&self, promise: &'static str, mut at: usize) -> Violation {
        let mut path = Vec::new();
        while let Some(Some((from, action))) = self.reached.get(at) {
            path.push(format!("{action:?}"));
            at = *from;
        }
        path.reverse();
        Violation { promise, path }
    }

    /// A state from which healing never comes to rest.
    fn circle(&self) -> Option<usize> {
        let mut rests: Vec<Option<usize>> = vec![None; self.heals_to.len()];
        for start in 0..self.heals_to.len() {
            let mut at = start;
            // Marks the way with its start: meeting the own mark again is a circle, any other mark is known to rest.
            while let Some(mark @ None) = rests.get_mut(at) {
                *mark = Some(start);
                match self.heals_to.get(at) {
                    Some(Some(next)) => at = *next,
                    _ => break,
                }
                if rests.get(at) == Some(&Some(start)) {
                    return Some(start);
                }
            }
        }
        None
    }
}

/// Visits every state that can be reached, until a promise is broken or `states_max` states are known.
pub fn explore<M: Model>(model: &M, states_max: usize) -> Explored {
    let mut visited = Visited { numbers: HashMap::new(), reached: Vec::new(), heals_to: Vec::new() };
    let mut steps = 0;
    let initial = model.initial();
    visited.number(&initial, None);
    let mut frontier = VecDeque::from([(0, initial)]);
    while let Some((number, state)) = frontier.pop_front() {
        let healing = model.heal(&state);
        let promise = model.broken(&state);
        let promise = promise.or_else(|| if healing.is_none() { model.broken_at_rest(&state) } else { None });
        if let Some(promise) = promise {
            let violation = Some(visited.violation(promise, number));
            return Explored { states: visited.reached.len(), steps, exhausted: false, violation };
        }
        let others = model.actions(&state).into_iter().map(|action| (action, false));
        for (action, heals) in healing.into_iter().map(|action| (action, true)).chain(others) {
            steps += 1;
            let next = model.after(&state, &action);
            let (next_number, new) = visited.number(&next, Some((number, action)));
            if let Some(heals_to) = visited.heals_to.get_mut(number).filter(|_| heals) {
                *heals_to = Some(next_number);
            }
            if new {
                if visited.reached.len() > states_max {
                    return Explored { states: visited.reached.len(), steps, exhausted: false, violation: None };
                }
                frontier.push_back((next_number, next));
            }
        }
    }
    let violation = visited.circle().map(|at| visited.violation(STICKS, at));
    Explored { states: visited.reached.len(), steps, exhausted: violation.is_none(), violation }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts up to a limit; healing counts on, or goes round in a circle of three.
    struct Counter {
        rests: bool,
        bad: Option<u8>,
    }

    impl Model for Counter {
        type State = u8;
        type Action = u8;
        fn initial(&self) -> u8 {
            0
        }
        fn actions(&self, state: &u8) -> Vec<u8> {
            if *state < 20 { vec![1, 5] } else { vec![] }
        }
        fn heal(&self, state: &u8) -> Option<u8> {
            match (self.rests, *state) {
                (true, 20..) => None,
                (false, 12) => Some(254),
                _ => Some(1),
            }
        }
        fn after(&self, state: &u8, action: &u8) -> u8 {
            state.wrapping_add(*action)
        }
        fn broken(&self, state: &u8) -> Option<&'static str> {
            (Some(*state) == self.bad && *state < 20).then_some("bad")
        }
        fn broken_at_rest(&self, state: &u8) -> Option<&'static str> {
            (Some(*state) == self.bad).then_some("rests badly")
        }
    }

    #[test]
    fn finds_the_shortest_way_to_a_broken_promise_and_circles() {
        let walk = |rests, bad, states_max| explore(&Counter { rests, bad }, states_max);
        let well = walk(true, None, 1_000);
        assert!(well.exhausted && well.violation.is_none() && well.states == 25, "{well:?}");
        let bad = walk(true, Some(11), 1_000).violation.unwrap();
        assert_eq!((bad.promise, bad.path.len()), ("bad", 3));
        assert_eq!(walk(true, Some(23), 1_000).violation.unwrap().promise, "rests badly");
        assert_eq!(walk(false, None, 1_000).violation.unwrap().promise, STICKS);
        assert!(!walk(true, None, 10).exhausted);
    }
}
