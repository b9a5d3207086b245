//! What the people of a home agreed to send. Pure.
//!
//! Consent is given per class of quantities. An input whose class was not consented to is not even decoded: what it says
//! never leaves the box. Calls and hazards belong to the service itself, and what equipment says of itself is about nobody;
//! both need no consent.

use carebed_contract::quantity::Quantity;
use carebed_device_profiles::document::Fields;

/// What a quantity tells about a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Calls for help, smoke, gas, water, falls: always sent.
    Safety,
    /// What equipment says of itself: always sent.
    Equipment,
    /// Heart, breath, temperature, pressure, weight: the body.
    Vitals,
    /// Where somebody is and moves: beds, doors, motion.
    Activity,
    /// Water, power, appliances.
    Household,
    /// Temperature, humidity and light of rooms.
    Climate,
}

impl Class {
    /// The classes that need consent.
    pub const ASKED: [Self; 4] = [Self::Vitals, Self::Activity, Self::Household, Self::Climate];

    /// The word in the home file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safety => "safety",
            Self::Equipment => "equipment",
            Self::Vitals => "vitals",
            Self::Activity => "activity",
            Self::Household => "household",
            Self::Climate => "climate",
        }
    }

    /// The class of a quantity. What is not known better is taken as the body's own.
    #[must_use]
    pub fn of(quantity: &Quantity) -> Self {
        match quantity.as_str() {
            "call_button" | "call_event" | "call_cancel" | "service_button" | "leave_button" | "fall_reported"
            | "smoke" | "gas" | "water_leak" => Self::Safety,
            // Raw frames are told only where everything was agreed to.
            "battery" | "signal" | "tamper" | "lamp_on" | "press_count" | "raw_frame" => Self::Equipment,
            "bed_occupancy" | "seat_occupancy" | "door_open" | "door_event" | "inner_door_open" | "cabinet_open"
            | "cabinet_event" | "motion" | "motion_event" | "presence" => Self::Activity,
            "flush" | "appliance_on" | "power" | "energy" | "water_volume" => Self::Household,
            "temperature" | "humidity" | "illuminance" => Self::Climate,
            _ => Self::Vitals,
        }
    }
}

/// The consent of one home.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consent {
    withheld: Vec<Class>,
}

impl Consent {
    /// Reads the table `[consent]`. Where it stands, each class that is not said to be true is withheld.
    pub(super) fn read(mut f: Fields<'_>) -> Self {
        let answers = Class::ASKED.map(|class| (class, f.take_or(class.as_str(), false)));
        Self { withheld: answers.into_iter().filter(|(_, given)| !given).map(|(class, _)| class).collect() }
    }

    /// Whether a quantity may leave the box.
    #[must_use]
    pub fn allows(&self, quantity: &Quantity) -> bool {
        !self.withheld.contains(&Class::of(quantity))
    }

    /// The classes that stay in the box.
    #[must_use]
    pub fn withheld(&self) -> &[Class] {
        &self.withheld
    }
}

#[cfg(test)]
mod tests {
    use carebed_contract::quantity::vocabulary;

    use super::*;

    #[test]
    fn every_quantity_has_the_class_one_expects() {
        for (name, definition) in vocabulary() {
            let class = Class::of(&Quantity::new(name).unwrap());
            assert!(class == Class::Vitals || definition.loinc.is_none(), "{name} is about the body, not {class:?}");
        }
        for (name, class) in
            [("call_button", Class::Safety), ("motion", Class::Activity), ("battery", Class::Equipment)]
        {
            assert_eq!(Class::of(&Quantity::new(name).unwrap()), class);
        }
    }
}
