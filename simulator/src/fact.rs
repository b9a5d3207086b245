//! What a sensor in a home can feel, and what really happened there.

use std::fmt;

use carebed_contract::time::Timestamp;

/// A room of the simulated home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Room {
    /// Where the bed stands.
    Bedroom,
    /// Toilet and shower.
    Bathroom,
    /// Where the person eats and sits, and where the outer door is.
    Living,
}

impl Room {
    /// All rooms.
    pub const ALL: [Self; 3] = [Self::Bedroom, Self::Bathroom, Self::Living];

    /// The room's id in home files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bedroom => "bedroom",
            Self::Bathroom => "bathroom",
            Self::Living => "living",
        }
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something physical that is so or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// The call button is pressed, or the pull cord is pulled.
    CallPressed,
    /// The outer door is open.
    DoorOpen,
    /// The mat in the bed feels somebody. It drops out now and then while the person lies on it.
    BedOccupied,
    /// The motion sensor of a room sees movement (and for its hold time after).
    Motion(Room),
}

impl Fact {
    /// All facts.
    pub const ALL: [Self; 6] = [
        Self::CallPressed,
        Self::DoorOpen,
        Self::BedOccupied,
        Self::Motion(Room::Bedroom),
        Self::Motion(Room::Bathroom),
        Self::Motion(Room::Living),
    ];

    /// The quantity a sensor of this fact observes, as in the contract's vocabulary.
    #[must_use]
    pub const fn quantity(self) -> &'static str {
        match self {
            Self::CallPressed => "call_button",
            Self::DoorOpen => "door_open",
            Self::BedOccupied => "bed_occupancy",
            Self::Motion(_) => "motion",
        }
    }
}

/// A fact became so, or ceased to be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// What.
    pub fact: Fact,
    /// Whether it is so from then on.
    pub on: bool,
}

/// What happened that a care alert should be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LabelKind {
    /// The person called for help.
    Press,
    /// The person got out of bed and does not come back for a long time.
    StayOut,
    /// The person left the home.
    LeaveHome,
    /// The person fell and lies there.
    Fall(Room),
    /// The person was helped, or went on by themselves.
    CarryOn,
}

/// The truth that detections are evaluated against: something that was ordered, at the time it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Label {
    /// When it happened.
    pub at: Timestamp,
    /// What.
    pub kind: LabelKind,
}
