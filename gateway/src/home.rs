//! The home file: rooms, beds, and which device hangs on which terminal of which board.

mod consent;
mod wiring;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::digest::Digest;
use carebed_contract::id::{Area, BedId, DeviceId, GatewayId, HomeId, Room};
use carebed_contract::inventory::{Inventory, InventoryBed, InventoryDevice};
use carebed_contract::labels::Lane;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::Timestamp;
use carebed_device_profiles::document::{self, Fields, Mistakes};
use carebed_device_profiles::profile::Profile;
use chrono::Timelike as _;
use toml::Spanned;

use self::wiring::{Places, action, board};
use crate::actions::{LocalAction, TimeOfDay};
use crate::link::address::Address;
use crate::signals::Shows;
pub use consent::{Class, Consent};

/// An action of every output that can be set: to blink for some time, see [`crate::signals`].
pub const ACTION_WARN: &str = "warn";

/// A home as its file describes it, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct HomeFile {
    /// Digest of the file.
    pub version: Digest,
    /// The home.
    pub home: HomeId,
    /// Where the gateway was enrolled.
    pub area: Area,
    /// IANA time zone of the home's local days.
    pub time_zone: String,
    /// How many people live there.
    pub residents: u8,
    /// The gateway.
    pub gateway: GatewayId,
    /// Rooms.
    pub rooms: Vec<Room>,
    /// Beds, each with its room.
    pub beds: Vec<(BedId, Room)>,
    /// What may leave the home. Inputs that may not are not among those of the boards.
    pub consent: Consent,
    /// Boards that are polled.
    pub boards: Vec<Board>,
    /// What outputs do by themselves.
    pub actions: Vec<LocalAction>,
    /// The files of profiles that did not come with the gateway: a change in one is a change of the home.
    pub profile_files: Vec<PathBuf>,
}

/// A board on a link, and what is wired to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Board {
    /// The board itself.
    pub id: DeviceId,
    /// How it talks.
    pub profile: Arc<Profile>,
    /// Where it is reached.
    pub link: Address,
    /// Its Modbus unit.
    pub unit: u8,
    /// Its address in frames and topics; none: as the profile says.
    pub address: Option<String>,
    /// Whether its adapter gives back what is sent; none: it is found out.
    pub echo: Option<bool>,
    /// How often to poll it; none: as the profile says.
    pub every: Option<Duration>,
    /// How long it may take to answer; none: as the profile says.
    pub timeout: Option<Duration>,
    /// How often a damaged answer is asked for once more at once. What is not answered is asked again in its next turn.
    pub retries: u8,
    /// Whether what it says is told beside what it means, as it stood on the wire.
    pub keeps_raw: bool,
    /// What observes.
    pub inputs: Vec<InputUse>,
    /// What acts.
    pub outputs: Vec<OutputUse>,
}

impl Board {
    /// How long it may take to answer.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(self.profile.link.timeout)
    }
}

/// What is wired to an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputUse {
    /// Index into [`Profile::inputs`].
    pub input: usize,
    /// The device at the end of the wire.
    pub device: DeviceId,
    /// What it observes.
    pub quantity: Quantity,
    /// The bed it belongs to.
    pub bed: Option<BedId>,
    /// Where it is.
    pub room: Option<Room>,
    /// Whether an open contact means "on".
    pub invert: bool,
    /// How its observations travel.
    pub lane: Lane,
}

/// What is wired to an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputUse {
    /// Index into [`Profile::outputs`].
    pub output: usize,
    /// The device at the end of the wire.
    pub device: DeviceId,
    /// What it may be told to do.
    pub actions: Vec<String>,
    /// What it shows by itself.
    pub shows: Option<Shows>,
    /// What a confirmed write is recorded as, e.g. `lamp_on`.
    pub quantity: Option<Quantity>,
    /// The bed it belongs to.
    pub bed: Option<BedId>,
    /// Where it is.
    pub room: Option<Room>,
}

/// How observations of a quantity travel unless the home file says otherwise: calls and hazards at once.
#[must_use]
pub fn default_lane(quantity: &Quantity) -> Lane {
    match quantity.as_str() {
        "call_button" | "call_event" | "call_cancel" | "smoke" | "gas" | "fall_reported" => Lane::Urgent,
        _ => Lane::Routine,
    }
}

impl HomeFile {
    /// Reads a home file's text; `file` names it in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, Mistakes> {
        document::read(file, text, |fields| {
            let home = fields.need_table("home").and_then(home);
            let gateway: Option<Spanned<GatewayId>> = fields.need_table("gateway").and_then(|mut f| f.need("id"));
            let consent = fields.table("consent").map(Consent::read).unwrap_or_default();
            let beside = Path::new(file).parent().unwrap_or(Path::new(""));
            let mut places = Places::new(beside, !consent.withheld().is_empty());
            for mut f in fields.tables("room") {
                if let Some(id) = f.need::<Room>("id") {
                    places.once(&f, "room", id.get_ref().as_str(), id.span());
                    places.rooms.push(id.into_inner());
                }
            }
            for mut f in fields.tables("bed") {
                let (id, room) = (f.need::<BedId>("id"), f.need::<Room>("room"));
                let room = room.and_then(|room| places.room(&f, room));
                if let Some(id) = id {
                    places.once(&f, "bed", id.get_ref().as_str(), id.span());
                    places.bed_ids.push(id.get_ref().clone());
                    places.beds.extend(room.map(|room| (id.into_inner(), room)));
                }
            }
            let boards = fields.tables("device").into_iter().filter_map(|f| board(f, &mut places));
            let mut boards: Vec<Board> = boards.collect();
            for board in &mut boards {
                board.inputs.retain(|input| consent.allows(&input.quantity));
            }
            let actions = fields.tables("action").into_iter().filter_map(|f| action(f, &boards)).collect();
            let (home, area, time_zone, residents) = home?;
            Some(Self {
                version: Digest::of_bytes(text.as_bytes()),
                home,
                area,
                time_zone,
                residents,
                gateway: gateway?.into_inner(),
                profile_files: places.profile_files,
                rooms: places.rooms,
                beds: places.beds,
                consent,
                boards,
                actions,
            })
        })
    }

    /// All outputs in the order of the file, each with its board and that one's index.
    pub fn outputs(&self) -> impl Iterator<Item = (usize, &Board, &OutputUse)> {
        let boards = self.boards.iter().enumerate();
        boards.flat_map(|(index, board)| board.outputs.iter().map(move |output| (index, board, output)))
    }

    /// The position in [`Self::outputs`] of an output of a board's profile.
    #[must_use]
    pub fn output_of(&self, board: usize, output: usize) -> Option<usize> {
        self.outputs().position(|(index, _, used)| (index, used.output) == (board, output))
    }

    /// What each output shows by itself.
    #[must_use]
    pub fn shows(&self) -> Vec<Option<Shows>> {
        self.outputs().map(|(_, _, output)| output.shows).collect()
    }

    /// What a clock on the wall of the home shows.
    #[must_use]
    pub fn time_of_day(&self, at: Timestamp) -> Option<TimeOfDay> {
        let zone: chrono_tz::Tz = self.time_zone.parse().ok()?;
        let local = chrono::DateTime::from_timestamp_millis(at.millis())?.with_timezone(&zone).time();
        TimeOfDay::new(local.hour(), local.minute())
    }

    /// What the centre is told of it.
    #[must_use]
    pub fn inventory(&self, since: Timestamp) -> Inventory {
        let mut devices: BTreeMap<DeviceId, InventoryDevice> = BTreeMap::new();
        for board in &self.boards {
            for input in &board.inputs {
                let device = inventory_device(&mut devices, board, &input.device, &input.bed, &input.room);
                device.quantities.push(input.quantity.clone());
            }
            for output in &board.outputs {
                let device = inventory_device(&mut devices, board, &output.device, &output.bed, &output.room);
                device.quantities.extend(output.quantity.clone());
                device.actions.extend(output.actions.iter().cloned());
            }
        }
        Inventory {
            version: self.version.to_string(),
            since,
            area: self.area.clone(),
            gateway: self.gateway.clone(),
            home: self.home.clone(),
            time_zone: self.time_zone.clone(),
            residents: self.residents,
            rooms: self.rooms.clone(),
            beds: self.beds.iter().map(|(id, room)| InventoryBed { id: id.clone(), room: room.clone() }).collect(),
            devices: devices.into_values().collect(),
            withheld: self.consent.withheld().iter().map(|class| class.as_str().to_owned()).collect(),
        }
    }
}

fn inventory_device<'a>(
    devices: &'a mut BTreeMap<DeviceId, InventoryDevice>,
    board: &Board,
    id: &DeviceId,
    bed: &Option<BedId>,
    room: &Option<Room>,
) -> &'a mut InventoryDevice {
    devices.entry(id.clone()).or_insert_with(|| InventoryDevice {
        id: id.clone(),
        bed: bed.clone(),
        room: room.clone(),
        profile: board.profile.name.clone(),
        quantities: Vec::new(),
        actions: Vec::new(),
    })
}

fn home(mut f: Fields<'_>) -> Option<(HomeId, Area, String, u8)> {
    let (id, area) = (f.need("id"), f.need("area"));
    let (zone, residents): (Option<Spanned<String>>, Option<Spanned<u8>>) = (f.take("time_zone"), f.take("residents"));
    if let Some(zone) = zone.as_ref().filter(|zone| zone.get_ref().parse::<chrono_tz::Tz>().is_err()) {
        let names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
        let near = document::nearest(zone.get_ref(), names).unwrap_or("Asia/Shanghai");
        let message = format!("time_zone: {:?} is not an IANA time zone", zone.get_ref());
        f.tell(zone.span(), message, format!("did you mean {near:?}?"));
    }
    if let Some(none) = residents.as_ref().filter(|residents| *residents.get_ref() == 0) {
        f.tell(none.span(), "residents is 0", "say how many people live in the home");
    }
    let zone = zone.map_or_else(|| "Asia/Shanghai".to_owned(), Spanned::into_inner);
    Some((id?.into_inner(), area?.into_inner(), zone, residents.map_or(1, Spanned::into_inner)))
}

#[cfg(test)]
mod tests;
