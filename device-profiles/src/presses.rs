//! From a counter of presses to presses. Boards count what falls between two polls, so that a short press is not lost.

/// Remembers where a counter stood.
#[derive(Debug, Clone, Default)]
pub struct Presses {
    last: Option<u64>,
}

impl Presses {
    /// How many presses there were since the counter was read last. The first reading only says where the counter stands.
    /// None when it moved by more than `jump_max`: then nobody knows, and counting begins anew.
    ///
    /// A counter of `bits` bits wraps. One that is lower than before without having wrapped started again from zero with
    /// its device: what it shows are presses since then.
    pub fn read(&mut self, count: u64, bits: u32, jump_max: u64) -> Option<u64> {
        let Some(last) = self.last.replace(count) else { return Some(0) };
        let range = 1_u64.checked_shl(bits).unwrap_or(0);
        let wrapped = if count >= last { count - last } else { range.wrapping_sub(last).wrapping_add(count) };
        let presses = if count < last && wrapped > jump_max { count } else { wrapped };
        (presses <= jump_max).then_some(presses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presses_are_counted_through_wraps_and_restarts() {
        let mut presses = Presses::default();
        let steps = [
            (500, Some(0)),
            (500, Some(0)),
            (501, Some(1)),
            (504, Some(3)),
            (0, Some(0)), // power-up
            (2, Some(2)),
            (1, Some(1)),   // power-up and a press before the next reading
            (65_000, None), // nobody knows
            (65_535, None), // too many for a hand
            (65_535, Some(0)),
            (1, Some(2)), // wrap
        ];
        for (count, expected) in steps {
            assert_eq!(presses.read(count, 16, 16), expected, "at {count}");
        }
    }
}
