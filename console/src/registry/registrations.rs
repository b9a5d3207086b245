//! What is registered where, and from when to when: all that analysts may know of the registry. Persons bear a pseudonym.

use std::collections::BTreeSet;

use carebed_contract::digest::Digest;
use carebed_contract::id::{Area, BedId, HomeId};
use carebed_contract::time::Timestamp;

use super::{Home, Person};

/// Letters of a pseudonym: 64 bits, so that two of a million persons share one once in forty million centres.
const PSEUDONYM_LENGTH: usize = 16;

/// What can be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A home in an area.
    Home,
    /// A gateway in a home.
    Gateway,
    /// A bed in a home.
    Bed,
    /// A person in a bed.
    Person,
    /// A device in a home, at a bed or not.
    Device,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Home, Self::Gateway, Self::Bed, Self::Person, Self::Device];

    /// As it is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Gateway => "gateway",
            Self::Bed => "bed",
            Self::Person => "person",
            Self::Device => "device",
        }
    }

    /// Reads [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Something, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Registered {
    /// What it is.
    pub kind: Kind,
    /// Its id; of a person the pseudonym.
    pub id: String,
    /// The home it belongs to.
    pub home: HomeId,
    /// Of a bed and of a person which bed it is, of a device the bed it belongs to.
    pub bed: Option<BedId>,
    /// The home's area.
    pub area: Area,
}

/// From when to when it belonged there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// What, and where.
    pub what: Registered,
    /// Since when; as the centre was told, not before.
    pub valid_from: Timestamp,
    /// Until when; none while it is so.
    pub valid_to: Option<Timestamp>,
}

/// What a home registers. `key` makes the pseudonyms: whoever does not have it cannot tell whether a name is behind one.
pub(super) fn of(home: &Home, key: &[u8]) -> BTreeSet<Registered> {
    let registered = |kind, id: &str, bed: Option<&BedId>| Registered {
        kind,
        id: id.to_owned(),
        home: home.id.clone(),
        bed: bed.cloned(),
        area: home.area.clone(),
    };
    let beds = home.beds.iter().flat_map(|bed| {
        let person = bed.person.as_ref().map(|person| pseudonym(person, key));
        let person = person.map(|id| registered(Kind::Person, &id, Some(&bed.id)));
        [Some(registered(Kind::Bed, bed.id.as_str(), Some(&bed.id))), person].into_iter().flatten()
    });
    let gateway = home.gateway.iter().map(|gateway| registered(Kind::Gateway, gateway.as_str(), None));
    let own = std::iter::once(registered(Kind::Home, home.id.as_str(), None)).chain(gateway);
    own.chain(beds).collect()
}

/// The same person has the same one wherever the person lies: by name and telephone, since a name alone is shared by many.
fn pseudonym(person: &Person, key: &[u8]) -> String {
    let named = [key, person.name.as_bytes(), &[0], person.phone.as_bytes()].concat();
    let mut pseudonym = Digest::of_bytes(&named).to_string();
    pseudonym.truncate(PSEUDONYM_LENGTH);
    pseudonym
}

/// What ends and what begins when a home's devices, or all else of it, are registered anew.
pub(super) fn changes(
    known: &[Registration],
    home: &HomeId,
    of_devices: bool,
    now: &BTreeSet<Registered>,
) -> (BTreeSet<Registered>, BTreeSet<Registered>) {
    let open = known.iter().filter(|known| known.valid_to.is_none() && known.what.home == *home);
    let open = open.filter(|known| (known.what.kind == Kind::Device) == of_devices);
    let open: BTreeSet<Registered> = open.map(|known| known.what.clone()).collect();
    (open.difference(now).cloned().collect(), now.difference(&open).cloned().collect())
}
