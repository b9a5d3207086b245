//! Which sensor is wired to which input of the board.

use crate::board::INPUTS;
use crate::fact::{Fact, Room};
use crate::resident::Resident;

/// A sensor's contact on an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// What the sensor feels.
    pub fact: Fact,
    /// Whether the contact is closed while it is *not* so (normally closed: door contacts, tamper loops).
    pub invert: bool,
}

/// The lines of one board, by input number from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    lines: [Option<Line>; INPUTS],
}

impl Wiring {
    /// From lines by input number. An input without a line stays off.
    #[must_use]
    pub const fn new(lines: [Option<Line>; INPUTS]) -> Self {
        Self { lines }
    }

    /// The home that installers are told to build: 0 pull cord, 1 door contact (closed while the door is closed), 2 bed
    /// mat, 3 to 5 motion in bedroom, bathroom and living room.
    #[must_use]
    pub const fn standard() -> Self {
        const fn line(fact: Fact, invert: bool) -> Option<Line> {
            Some(Line { fact, invert })
        }
        Self::new([
            line(Fact::CallPressed, false),
            line(Fact::DoorOpen, true),
            line(Fact::BedOccupied, false),
            line(Fact::Motion(Room::Bedroom), false),
            line(Fact::Motion(Room::Bathroom), false),
            line(Fact::Motion(Room::Living), false),
            None,
            None,
        ])
    }

    /// The wired inputs in order.
    pub fn lines(&self) -> impl Iterator<Item = (usize, Line)> {
        self.lines.iter().enumerate().filter_map(|(input, line)| line.map(|line| (input, line)))
    }

    /// What the inputs show while a person is as they are.
    #[must_use]
    pub fn levels(&self, resident: &Resident) -> [bool; INPUTS] {
        self.lines.map(|line| line.is_some_and(|line| resident.is(line.fact) != line.invert))
    }
}
