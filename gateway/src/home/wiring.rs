//! The parts of a home file that say what hangs where: boards, their inputs and outputs, and what outputs do by themselves.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::id::{BedId, DeviceId, Room};
use carebed_contract::labels::Lane;
use carebed_device_profiles::document::{Fields, Span, advise};
use carebed_device_profiles::folder::{self, FolderError};
use carebed_device_profiles::profile::{ACTION_SET, Profile, Serial};
use carebed_device_profiles::shipped;
use toml::Spanned;

use super::{ACTION_WARN, Board, InputUse, OutputUse, default_lane};
use crate::actions::{LocalAction, TimeOfDay};
use crate::link::address::Address;
use crate::signals::Shows;

/// After so long without the centre an output sounds, unless the home file says otherwise.
const UNHEARD_AFTER: Duration = Duration::from_secs(20);

/// How often a device may be polled. Quicker than the first no serial line answers.
const EVERY: RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_secs(24 * 3_600);
/// How long a device may be given to answer. Longer than the second would take the line from the others.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(10);
/// How often a damaged answer is asked for once more at once, unless the home file says otherwise, and the most it may say.
const RETRIES: u8 = 1;
const RETRIES_MAX: u8 = 5;

/// Names seen so far in a file: what may be referred to, and what must not come twice.
#[derive(Default)]
pub(super) struct Places {
    pub(super) rooms: Vec<Room>,
    pub(super) beds: Vec<(BedId, Room)>,
    pub(super) bed_ids: Vec<BedId>,
    pub(super) profile_files: Vec<PathBuf>,
    seen: Vec<(&'static str, String)>,
    /// Links so far, and whether their devices speak by themselves.
    links: Vec<(Address, bool)>,
    /// The folder of the home file.
    beside: PathBuf,
    /// Whether something must not leave the box.
    withholds: bool,
}

impl Places {
    pub(super) fn new(beside: &Path, withholds: bool) -> Self {
        Self { beside: beside.to_owned(), withholds, ..Self::default() }
    }

    pub(super) fn once(&mut self, fields: &Fields<'_>, kind: &'static str, id: &str, span: Span) {
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

    pub(super) fn room(&self, fields: &Fields<'_>, room: Spanned<Room>) -> Option<Room> {
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

pub(super) fn board(mut f: Fields<'_>, places: &mut Places) -> Option<Board> {
    let (id, unit): (Option<Spanned<DeviceId>>, Option<Spanned<u8>>) = (f.need("id"), f.take("unit"));
    let (profile, link): (Option<Spanned<String>>, Option<Spanned<String>>) = (f.need("profile"), f.need("link"));
    let (address, serial): (Option<Spanned<String>>, Option<Spanned<Serial>>) = (f.take("address"), f.take("serial"));
    let (every, echo) = (f.take_duration_in("every", EVERY), f.take::<bool>("echo").map(Spanned::into_inner));
    let (timeout, retries): (_, Option<Spanned<u8>>) = (f.take_duration_in("timeout", TIMEOUT), f.take("retries"));
    if let Some(id) = &id {
        places.once(&f, "device", id.get_ref().as_str(), id.span());
    }
    let keeps_raw: Option<Spanned<bool>> = f.take("raw");
    if let Some(raw) = keeps_raw.as_ref().filter(|raw| *raw.get_ref() && places.withholds) {
        let hint = "leave raw out, or agree on every class in [consent]";
        f.tell(raw.span(), "raw frames may hold what must not leave the box", hint);
    }
    let profile = profile.and_then(|name| profile_of(&f, &name, places));
    let profile = moved(f.named_tables("polls"), profile);
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
    if let (Some(unit), Some(Address::Serial { .. } | Address::SerialServer { .. })) = (&unit, &link)
        && *unit.get_ref() == 0
    {
        // Modbus over serial line V1.02, 2.2: 0 is for broadcasts, which every device obeys and none answers.
        f.tell(
            unit.span(),
            "unit 0 is every device of the line",
            "give the number that is set on the device, 1 to 247",
        );
    }
    if let (Some(timeout), Some(Address::Broker)) = (&timeout, &link) {
        let hint =
            "leave timeout out; silent_after in the profile says after how long without a word a device is silent";
        f.tell(timeout.span(), format!("{} is not asked: it speaks to a broker by itself", profile.name), hint);
    }
    if let Some(retries) = &retries {
        if profile.polls.is_empty() {
            let hint = "leave retries out: what a device of this kind does not answer is asked again in its next turn";
            f.tell(retries.span(), format!("{} is not polled by Modbus", profile.name), hint);
        } else if *retries.get_ref() > RETRIES_MAX {
            let hint = format!("give 0 to {RETRIES_MAX}; on a line that damages more, mend the line");
            f.tell(retries.span(), format!("retries is {}", retries.get_ref()), hint);
        }
    }
    let retries = retries.map_or(RETRIES, Spanned::into_inner);
    let (every, timeout) = (every.map(Spanned::into_inner), timeout.map(Spanned::into_inner));
    let unit = unit.map_or(profile.link.unit, Spanned::into_inner);
    let address = address.map(Spanned::into_inner);
    let keeps_raw = keeps_raw.is_some_and(Spanned::into_inner);
    let (id, link) = (id?.into_inner(), link?);
    Some(Board { id, unit, address, echo, link, every, timeout, retries, keeps_raw, inputs, outputs, profile })
}

/// The shipped profile of a name; or, where it begins with `.` or `/`, the one in that folder, seen from the home file.
fn profile_of(fields: &Fields<'_>, name: &Spanned<String>, places: &mut Places) -> Option<Arc<Profile>> {
    let text = name.get_ref();
    if !text.starts_with(['.', '/']) {
        let found = shipped::find(text);
        if found.is_none() {
            let hint = format!("{}; see carebed-gateway profiles list", advise(text, shipped::names()));
            fields.tell(name.span(), format!("there is no profile {text:?}"), hint);
        }
        return found;
    }
    let folder = places.beside.join(text);
    places.profile_files.push(folder.join("profile.toml"));
    match folder::read(&folder) {
        Ok(read) => Some(read.profile),
        Err(error) => {
            let first = match &error {
                FolderError::Mistakes(mistakes) => {
                    let first = mistakes.list.first().map(|first| format!("{}:{} {first}", first.line, first.column));
                    format!("{} mistakes, first {}", mistakes.list.len(), first.unwrap_or_default())
                }
                FolderError::Read { source, .. } => source.to_string(),
            };
            let message = format!("the profile in {} cannot be used: {first}", folder.display());
            fields.tell(name.span(), message, format!("carebed-gateway profiles check {}", folder.display()));
            None
        }
    }
}

/// The profile with the blocks where the device's user has put them: `[device.polls.NAME]` with `address`.
fn moved(polls: Vec<(Spanned<String>, Fields<'_>)>, profile: Option<Arc<Profile>>) -> Option<Arc<Profile>> {
    let mut profile = profile;
    for (name, mut f) in polls {
        let address: Option<Spanned<u16>> = f.need("address");
        let (Some(address), Some(known)) = (address, &profile) else { continue };
        match known.with_poll_at(name.get_ref(), *address.get_ref()) {
            Some(moved) => profile = Some(Arc::new(moved)),
            None => {
                let movable = known.polls.iter().filter(|poll| poll.movable).map(|poll| poll.name.as_str());
                let message =
                    format!("block {:?} of {} cannot stand at {}", name.get_ref(), known.name, address.get_ref());
                f.tell(name.span(), message, advise(name.get_ref(), movable.collect::<Vec<_>>()));
            }
        }
    }
    profile
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
        Some(name) => f.quantity(&name),
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
    let quantity = f.take::<String>("quantity").and_then(|name| f.quantity(&name));
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

/// `[[action]]`: `when` an observation `becomes` so, `set` an output, `for` some time, `between` two times of the day.
pub(super) fn action(mut f: Fields<'_>, boards: &[Board]) -> Option<LocalAction> {
    let (when, quantity): (Option<Spanned<String>>, Option<Spanned<String>>) = (f.need("when"), f.need("quantity"));
    let (becomes, set): (bool, Option<Spanned<String>>) = (f.take_or("becomes", true), f.need("set"));
    let (lasts, between) = (f.take_duration("for"), f.take::<[TimeOfDay; 2]>("between").map(Spanned::into_inner));
    let quantity = quantity.and_then(|name| f.quantity(&name));
    let when = when.zip(quantity.as_ref()).and_then(|(when, quantity)| {
        let inputs = boards.iter().flat_map(|board| &board.inputs);
        let observed: Vec<String> = inputs.map(|input| format!("{} {}", input.device, input.quantity)).collect();
        let wanted = format!("{} {quantity}", when.get_ref());
        if !observed.contains(&wanted) {
            let hint = advise(&wanted, observed.iter().map(String::as_str).collect::<Vec<_>>());
            f.tell(when.span(), format!("no input observes {wanted:?}, or it was not agreed to"), hint);
        }
        when.get_ref().parse::<DeviceId>().ok()
    });
    let outputs: Vec<&OutputUse> = boards.iter().flat_map(|board| &board.outputs).collect();
    let output = set.and_then(|set| {
        let position = outputs.iter().position(|output| output.device.as_str() == set.get_ref());
        if position.is_none() {
            let names: Vec<&str> = outputs.iter().map(|output| output.device.as_str()).collect();
            f.tell(set.span(), format!("no output is named {:?}", set.get_ref()), advise(set.get_ref(), names));
        }
        position
    });
    Some(LocalAction { device: when?, quantity: quantity?, becomes, output: output?, lasts, between })
}
