//! The home file: rooms, beds, and which device hangs on which terminal of which board.

mod consent;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::digest::Digest;
use carebed_contract::id::{Area, BedId, DeviceId, GatewayId, HomeId, Room};
use carebed_contract::inventory::{Inventory, InventoryBed, InventoryDevice};
use carebed_contract::labels::Lane;
use carebed_contract::quantity::{Quantity, vocabulary};
use carebed_contract::time::Timestamp;
use carebed_device_profiles::document::{self, Fields, Mistakes, Span, advise};
use carebed_device_profiles::profile::{ACTION_SET, Profile, Serial};
use carebed_device_profiles::shipped;
use toml::Spanned;

use crate::link::address::Address;
use crate::signals::Shows;
pub use consent::{Class, Consent};

/// An action of every output that can be set: to blink for some time, see [`crate::signals`].
pub const ACTION_WARN: &str = "warn";
/// After so long without the centre an output sounds, unless the home file says otherwise.
const UNHEARD_AFTER: Duration = Duration::from_secs(20);

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
    /// What observes.
    pub inputs: Vec<InputUse>,
    /// What acts.
    pub outputs: Vec<OutputUse>,
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
            let mut places = Places::default();
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
            let boards = fields.tables("device").into_iter().filter_map(|f| board(f, &mut places)).collect();
            let consent = fields.table("consent").map(Consent::read).unwrap_or_default();
            let mut boards: Vec<Board> = boards;
            for board in &mut boards {
                board.inputs.retain(|input| consent.allows(&input.quantity));
            }
            let (home, area, time_zone, residents) = home?;
            Some(Self {
                version: Digest::of_bytes(text.as_bytes()),
                home,
                area,
                time_zone,
                residents,
                gateway: gateway?.into_inner(),
                rooms: places.rooms,
                beds: places.beds,
                consent,
                boards,
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

/// Names seen so far in a file: what may be referred to, and what must not come twice.
#[derive(Default)]
struct Places {
    rooms: Vec<Room>,
    beds: Vec<(BedId, Room)>,
    bed_ids: Vec<BedId>,
    seen: Vec<(&'static str, String)>,
    /// Links so far, and whether their devices speak by themselves.
    links: Vec<(Address, bool)>,
}

impl Places {
    fn once(&mut self, fields: &Fields<'_>, kind: &'static str, id: &str, span: Span) {
        let seen = (kind, id.to_owned());
        if self.seen.contains(&seen) {
            fields.tell(span, format!("{kind} {id:?} is there twice"), format!("give each {kind} its own id"));
        }
        self.seen.push(seen);
    }

    /// Devices on one line must agree on how it is set, and on who speaks.
    fn link(&mut self, fields: &Fields<'_>, text: &Spanned<String>, address: &Address, speaks: bool) {
        let shared = self.links.iter().find(|(known, _)| known.is_same_place(address));
        if shared.is_some_and(|(known, _)| known != address) {
            let hint = "give every device on it the same serial = \"…\"";
            fields.tell(text.span(), format!("devices on {} want different serial settings", text.get_ref()), hint);
        } else if shared.is_some_and(|(_, other)| *other != speaks)
            && !matches!(address, Address::Broker | Address::Http(_))
        {
            let hint = "give the one that is not polled by Modbus a port of its own";
            fields.tell(text.span(), format!("not every device on {} is polled by Modbus", text.get_ref()), hint);
        }
        self.links.push((address.clone(), speaks));
    }

    fn room(&self, fields: &Fields<'_>, room: Spanned<Room>) -> Option<Room> {
        known(fields, "room", room, &self.rooms)
    }

    /// The `bed` and `room` of a table; a device at a bed is in the bed's room unless it says otherwise.
    fn place(&self, fields: &mut Fields<'_>) -> (Option<BedId>, Option<Room>) {
        let bed = fields.take("bed").and_then(|bed| known(fields, "bed", bed, &self.bed_ids));
        let room = fields.take("room").and_then(|room| self.room(fields, room));
        let beside = bed.as_ref().and_then(|bed| self.beds.iter().find(|(id, _)| id == bed));
        let room = room.or_else(|| beside.map(|(_, room)| room.clone()));
        (bed, room)
    }
}

fn known<T: AsRef<str> + PartialEq>(fields: &Fields<'_>, kind: &str, id: Spanned<T>, known: &[T]) -> Option<T> {
    if known.contains(id.get_ref()) {
        return Some(id.into_inner());
    }
    let name = id.get_ref().as_ref();
    let hint = advise(name, known.iter().map(AsRef::as_ref));
    fields.tell(id.span(), format!("there is no {kind} {name:?}"), format!("{hint}, or add [[{kind}]] with this id"));
    None
}

fn board(mut f: Fields<'_>, places: &mut Places) -> Option<Board> {
    let (id, unit): (Option<Spanned<DeviceId>>, Option<Spanned<u8>>) = (f.need("id"), f.take("unit"));
    let (profile, link): (Option<Spanned<String>>, Option<Spanned<String>>) = (f.need("profile"), f.need("link"));
    let (address, serial): (Option<Spanned<String>>, Option<Spanned<Serial>>) = (f.take("address"), f.take("serial"));
    let (every, echo) = (f.take_duration("every"), f.take::<bool>("echo").map(Spanned::into_inner));
    if let Some(id) = &id {
        places.once(&f, "device", id.get_ref().as_str(), id.span());
    }
    let profile = profile.and_then(|name| {
        let found = shipped::find(name.get_ref());
        if found.is_none() {
            let names = shipped::all().iter().map(|shipped| shipped.profile.name.as_str());
            let message = format!("there is no profile {:?}", name.get_ref());
            f.tell(
                name.span(),
                message,
                format!("{}; see carebed-gateway profiles list", advise(name.get_ref(), names)),
            );
        }
        found
    });
    let link = link.zip(profile.as_deref()).and_then(|(link, profile)| {
        let parsed = Address::parse(link.get_ref(), serial.map(Spanned::into_inner), profile);
        let address = parsed.map_err(|wrong| f.tell(link.span(), wrong.message, wrong.hint)).ok()?;
        places.link(&f, &link, &address, profile.polls.is_empty());
        Some(address)
    });
    if let (Some(address), Some(profile)) = (&address, profile.as_deref())
        && let Err(error) = profile.check_address(address.get_ref())
    {
        f.tell(address.span(), format!("address: {error}"), "write it as the device shows it");
    }
    let (inputs, outputs) = (f.named_tables("inputs"), f.named_tables("outputs"));
    let read_input = |(name, f)| input(&name, f, id.as_ref().map(Spanned::get_ref), profile.as_deref(), places);
    let inputs: Vec<InputUse> = inputs.into_iter().filter_map(read_input).collect();
    let read_output = |(name, f)| output(&name, f, profile.as_deref(), places);
    let outputs = outputs.into_iter().filter_map(read_output).collect();
    let profile = profile?;
    let unit = unit.map_or(profile.link.unit, Spanned::into_inner);
    let address = address.map(Spanned::into_inner);
    Some(Board { id: id?.into_inner(), unit, address, echo, link: link?, every, inputs, outputs, profile })
}

fn input(
    name: &Spanned<String>,
    mut f: Fields<'_>,
    board: Option<&DeviceId>,
    profile: Option<&Profile>,
    places: &mut Places,
) -> Option<InputUse> {
    // A sensor that knows what it observes is itself the device at the end of the wire.
    let own = profile.and_then(|profile| profile.input(name.get_ref())).and_then(|input| input.quantity.as_ref());
    let (device, quantity) = match own {
        Some(_) => (f.take("device"), f.take::<String>("quantity")),
        None => (f.need("device"), f.need::<String>("quantity")),
    };
    let device: Option<Spanned<DeviceId>> =
        device.or_else(|| own.and(board).map(|board| Spanned::new(f.span(), board.clone())));
    let (bed, room) = places.place(&mut f);
    let (invert, lane) = (f.take_or("invert", false), f.take::<Lane>("lane").map(Spanned::into_inner));
    let quantity = match quantity {
        Some(name) => quantity_of(&f, &name),
        None => own.cloned(),
    };
    if let (Some(device), Some(quantity)) = (&device, &quantity) {
        // One device may give several quantities, but each of them once: two inputs of one series cannot be told apart.
        places.once(&f, "observation", &format!("{} {quantity}", device.get_ref()), device.span());
    }
    let index = profile.and_then(|profile| {
        let index = profile.inputs.iter().position(|input| input.name == *name.get_ref());
        if index.is_none() {
            let names = profile.inputs.iter().map(|input| input.name.as_str());
            let message = format!("{} has no input {:?}", profile.name, name.get_ref());
            f.tell(name.span(), message, advise(name.get_ref(), names));
        }
        index
    });
    let quantity = quantity?;
    let lane = lane.unwrap_or_else(|| default_lane(&quantity));
    Some(InputUse { input: index?, device: device?.into_inner(), quantity, bed, room, invert, lane })
}

fn output(
    name: &Spanned<String>,
    mut f: Fields<'_>,
    profile: Option<&Profile>,
    places: &mut Places,
) -> Option<OutputUse> {
    let device: Option<Spanned<DeviceId>> = f.need("device");
    let actions: Option<Spanned<Vec<String>>> = f.take("actions");
    let quantity = f.take::<String>("quantity").and_then(|name| quantity_of(&f, &name));
    let (bed, room) = places.place(&mut f);
    let shows = shows(&mut f);
    if let Some(device) = &device {
        places.once(&f, "output", device.get_ref().as_str(), device.span());
    }
    let (index, output) = profile.and_then(|profile| {
        let output = profile.outputs.iter().enumerate().find(|(_, output)| output.name == *name.get_ref());
        if output.is_none() {
            let names = profile.outputs.iter().map(|output| output.name.as_str());
            let message = format!("{} has no output {:?}", profile.name, name.get_ref());
            f.tell(name.span(), message, advise(name.get_ref(), names));
        }
        output
    })?;
    let span = actions.as_ref().map(Spanned::span);
    let actions = actions.map_or_else(|| vec![ACTION_SET.to_owned()], Spanned::into_inner);
    let may_set = output.actions.iter().any(|action| action == ACTION_SET);
    let is_allowed = |action: &String| output.actions.contains(action) || (action == ACTION_WARN && may_set);
    for action in actions.iter().filter(|action| !is_allowed(action)) {
        let known = output.actions.iter().map(String::as_str);
        let message = format!("the profile does not allow action {action:?} on output {:?}", name.get_ref());
        f.tell(span.clone().unwrap_or(f.span()), message, advise(action, known));
    }
    let quantity = quantity.or_else(|| output.quantity.clone());
    Some(OutputUse { output: index, device: device?.into_inner(), actions, shows, quantity, bed, room })
}

/// What an output shows by itself: `shows = "answer"`, or `shows = "unheard"` with `after`.
fn shows(f: &mut Fields<'_>) -> Option<Shows> {
    let (shows, after): (Option<Spanned<String>>, _) = (f.take("shows"), f.take_duration("after"));
    let shows = shows?;
    match shows.get_ref().as_str() {
        "answer" => Some(Shows::Answer),
        "unheard" => Some(Shows::Unheard(after.unwrap_or(UNHEARD_AFTER))),
        other => {
            let hint = advise(other, ["answer", "unheard"]);
            f.tell(shows.span(), format!("shows: {other:?} is unknown"), hint);
            None
        }
    }
}

fn quantity_of(fields: &Fields<'_>, name: &Spanned<String>) -> Option<Quantity> {
    let quantity = Quantity::new(name.get_ref()).filter(|quantity| quantity.definition().is_some());
    if quantity.is_none() {
        let known = vocabulary().keys().map(|name| &**name);
        let hint = match document::nearest(name.get_ref(), known) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "the vocabulary is contract/quantities.toml".to_owned(),
        };
        fields.tell(name.span(), format!("there is no quantity {:?}", name.get_ref()), hint);
    }
    quantity
}

#[cfg(test)]
mod tests;
