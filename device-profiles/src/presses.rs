//! From a counter of presses to presses. Boards count what falls between two polls, so that a short press is not lost.

/// Remembers where a counter stood.
#[derive(Debug, Clone, Default)]
pub struct Presses {
    last: Option<u64>,
}

/// What a reading of the counter says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// So many presses since the last reading.
    Presses(u64),
    /// The counter started again from zero with its device. Whether it was pressed since then.
    Restarted {
        /// Whether there was a press since. How many is not believed of a device that has just started.
        pressed: bool,
    },
    /// It moved by more than a hand can press: nobody knows, and counting begins anew.
    Unknown,
}

impl Presses {
    /// What happened since the counter was read last. The first reading only says where the counter stands. A counter of `bits`
    /// bits wraps; one that is lower than before without having wrapped started again. More than `jump_max` presses between two
    /// readings are not believed.
    pub fn read(&mut self, count: u64, bits: u32, jump_max: u64) -> Counted {
        let Some(last) = self.last.replace(count) else { return Counted::Presses(0) };
        let range = 1_u64.checked_shl(bits).unwrap_or(0);
        let presses = if count >= last { count - last } else { range.wrapping_sub(last).wrapping_add(count) };
        match presses {
            0.. if presses <= jump_max => Counted::Presses(presses),
            _ if count < last && count <= jump_max => Counted::Restarted { pressed: count > 0 },
            _ => Counted::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn presses_are_counted_through_wraps_and_restarts() {
        use Counted::{Presses as N, Restarted, Unknown};
        let mut presses = Presses::default();
        let steps = [
            (500, N(0)),
            (500, N(0)),
            (501, N(1)),
            (504, N(3)),
            (0, Restarted { pressed: false }),
            (2, N(2)),
            (1, Restarted { pressed: true }), // pressed before the next reading
            (65_000, Unknown),                // too many for a hand
            (65_535, Unknown),
            (65_535, N(0)),
            (1, N(2)), // wrap
            (900, Unknown),
            (300, Unknown), // lower, and yet more than a hand can since a start
            (12, Restarted { pressed: true }),
        ];
        for (count, expected) in steps {
            assert_eq!(presses.read(count, 16, 16), expected, "at {count}");
        }
    }

    proptest! {
        /// However a counter jumps, a reading never makes more calls than a hand can, and a start at most one.
        #[test]
        fn no_reading_makes_a_burst(counts in prop::collection::vec(0_u64..=65_535, 1..50)) {
            let mut presses = Presses::default();
            let mut last = None;
            for count in counts {
                let counted = presses.read(count, 16, 16);
                if let Counted::Presses(n) = counted {
                    prop_assert!(n <= 16);
                    prop_assert!(last.is_none_or(|last: u64| (last + n) % 65_536 == count));
                }
                last = Some(count);
            }
        }
    }
}
