use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use carebed_contract::pack::ContentType;
use proptest::prelude::*;

use super::format::SEGMENT_HEADER;
use super::*;

/// A disk that outlives the spool on it, and obeys until told otherwise.
#[derive(Debug, Clone, Default)]
struct FaultDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    disk: Memory,
    /// Bytes appended to a file since its last sync.
    unsynced: BTreeMap<String, usize>,
    /// Writing operations until the fault; none: no fault.
    fuse: Option<u32>,
    fault: Fault,
    /// Bytes of all files together; none: no bound.
    capacity: Option<usize>,
}

impl State {
    fn room(&self) -> usize {
        let used: usize = self.disk.files.values().map(Vec::len).sum();
        self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(used))
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Fault {
    /// The power goes: this operation has half an effect, later ones none, and unsynced bytes may be gone.
    #[default]
    Power,
    /// No room: nothing is written from here on, removing works.
    Full,
    /// Syncing fails, once and for all.
    Sync,
}

impl FaultDisk {
    /// Whether this operation still works. A blown fuse stays blown.
    fn works(&self) -> bool {
        let mut state = self.0.lock().unwrap();
        match &mut state.fuse {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                *left > 0
            }
        }
    }

    fn arm(&self, fuse: u32, fault: Fault) {
        let mut state = self.0.lock().unwrap();
        (state.fuse, state.fault) = (Some(fuse), fault);
    }

    /// After the power came back: of what was never synced, `kept` per cent of each file's tail survived.
    fn restart(&self, kept: usize) {
        let mut state = self.0.lock().unwrap();
        state.fuse = None;
        for (name, unsynced) in std::mem::take(&mut state.unsynced) {
            if let Some(file) = state.disk.files.get_mut(&name) {
                let lost = unsynced - unsynced * kept / 100;
                let length = file.len().saturating_sub(lost);
                file.truncate(length);
            }
        }
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.lock().unwrap().disk.files.clone()
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.0.lock().unwrap().disk.files.get_mut(name).unwrap());
    }

    fn write(&self, sync_only: bool, act: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        let fault = self.0.lock().unwrap().fault;
        let concerned = match fault {
            Fault::Power => true,
            Fault::Full => !sync_only,
            Fault::Sync => sync_only,
        };
        if concerned && !self.works() { Err(io::Error::other("fault")) } else { act(&mut self.0.lock().unwrap()) }
    }
}

impl Disk for FaultDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        self.0.lock().unwrap().disk.names()
    }
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.0.lock().unwrap().disk.read(name)
    }
    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.0.lock().unwrap().disk.read_at(name, offset, length)
    }
    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.write(false, |state| {
            if state.room() < bytes.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.disk.create(name, bytes)
        })
    }
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let before = self.0.lock().unwrap().fuse;
        let done = self.write(false, |state| {
            let fits = bytes.len().min(state.room());
            *state.unsynced.entry(name.to_owned()).or_default() += fits;
            state.disk.append(name, &bytes[..fits])?;
            if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        });
        if done.is_err() && before == Some(1) {
            // The write that the fault hits is torn.
            let half = &bytes[..bytes.len() / 2];
            let mut state = self.0.lock().unwrap();
            *state.unsynced.entry(name.to_owned()).or_default() += half.len();
            state.disk.append(name, half)?;
        }
        done
    }
    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.write(true, |state| {
            state.unsynced.remove(name);
            Ok(())
        })
    }
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.write(true, |state| {
            state.unsynced.remove(name);
            state.disk.truncate(name, length)
        })
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.write(true, |state| state.disk.remove(name))
    }
}

const SMALL: Limits = Limits { bytes_max: 1 << 20, segment_bytes: 400, reserve_bytes: 0 };

fn sealed(n: u64) -> Sealed {
    let bytes = vec![u8::try_from(n % 251).unwrap(); 20 + usize::try_from(n % 60).unwrap()];
    Sealed { content_type: ContentType::Cbor, bytes }
}

fn span(n: u64) -> Span {
    let at = Timestamp::from_millis(i64::try_from(n).unwrap());
    Span { from: at, complete_to: at }
}

fn origin(n: u64) -> Origin {
    Origin { run: 7, number: n }
}

fn open(disk: &FaultDisk) -> Opened {
    Spool::open(Box::new(disk.clone()), SMALL).unwrap()
}

fn fill(spool: &mut Spool, lane: Lane, numbers: std::ops::Range<u64>) {
    for n in numbers {
        spool.append(lane, &sealed(n), span(n), origin(n)).unwrap();
    }
}

/// Everything a lane has, and the chain checked.
fn read(spool: &Spool, lane: Lane) -> Vec<Vec<u8>> {
    let mut before = None;
    (spool.base(lane)..spool.next(lane))
        .map(|seq| {
            let batch = spool.batch(lane, seq).unwrap().unwrap();
            assert!(before.is_none_or(|digest| digest == batch.prev), "{lane} {seq}: the chain is broken");
            let content = batch.sealed.content_type.as_str();
            before = Some(Digest::of_batch(spool.epoch(), lane, seq, batch.prev, content, &batch.sealed.bytes));
            batch.sealed.bytes
        })
        .collect()
}

fn numbers(numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    numbers.map(|n| sealed(n).bytes).collect()
}

fn receipt(spool: &Spool, lane: Lane, next: u64) -> Receipt {
    let digest = spool.log(lane).digest_before(next).unwrap_or(Digest::ORIGIN);
    Receipt { epoch: spool.epoch(), lane, next, digest, centre_time: Timestamp::MIN }
}

#[test]
fn what_was_appended_is_there_after_reopening_and_what_was_released_is_not() {
    let disk = FaultDisk::default();
    let mut spool = open(&disk).spool;
    fill(&mut spool, Lane::Routine, 0..20);
    fill(&mut spool, Lane::Urgent, 50..52);
    let receipt = receipt(&spool, Lane::Routine, 13);
    assert_eq!(spool.release(&receipt).unwrap(), Released::Upto { batches: 13, next: 13 });
    assert_eq!(spool.release(&receipt).unwrap(), Released::Upto { batches: 0, next: 13 });
    assert_eq!((spool.receipted_to().millis(), spool.urgent_from().millis()), (12, 50));
    let epoch = spool.epoch();

    let Opened { mut spool, damage } = open(&disk);
    assert_eq!((spool.epoch(), spool.boot(), damage.len()), (epoch, 2, 0));
    assert_eq!(read(&spool, Lane::Routine), numbers(13..20));
    assert_eq!(read(&spool, Lane::Urgent), numbers(50..52));
    assert_eq!((spool.base(Lane::Routine), spool.next(Lane::Routine)), (13, 20));
    assert!(spool.bytes() < 20 * 140, "released segments are gone");
    fill(&mut spool, Lane::Routine, 20..22);
    assert_eq!(read(&open(&disk).spool, Lane::Routine), numbers(13..22));
}

#[test]
fn an_empty_lane_keeps_its_number_and_its_chain() {
    let disk = FaultDisk::default();
    let mut spool = open(&disk).spool;
    fill(&mut spool, Lane::Routine, 0..9);
    let last = receipt(&spool, Lane::Routine, 9);
    spool.release(&last).unwrap();
    let mut spool = open(&disk).spool;
    assert_eq!((spool.base(Lane::Routine), spool.next(Lane::Routine)), (9, 9));
    assert_eq!(spool.release(&last).unwrap(), Released::Upto { batches: 0, next: 9 });
}

#[test]
fn receipts_that_are_not_ours_release_nothing() {
    let disk = FaultDisk::default();
    let mut spool = open(&disk).spool;
    fill(&mut spool, Lane::Urgent, 0..6);
    let good = receipt(&spool, Lane::Urgent, 4);
    spool.release(&good).unwrap();
    let with = |change: fn(&mut Receipt)| {
        let mut receipt = Receipt { next: 5, ..good };
        change(&mut receipt);
        receipt
    };
    let cases = [
        (with(|r| r.epoch = Epoch::new(r.epoch.get() ^ 1)), Released::OtherEpoch),
        (with(|r| r.next = 7), Released::Ahead),
        (with(|_| {}), Released::ForeignDigest),
        (with(|r| r.next = 2), Released::Below),
        (with(|r| (r.next, r.digest) = (4, Digest::ORIGIN)), Released::ForeignDigest),
    ];
    for (receipt, expected) in cases {
        assert_eq!(spool.release(&receipt).unwrap(), expected, "{receipt:?}");
    }
    assert_eq!(read(&spool, Lane::Urgent), numbers(4..6));
}

#[test]
fn a_new_epoch_numbers_what_is_left_from_zero_and_survives() {
    let disk = FaultDisk::default();
    let mut spool = open(&disk).spool;
    fill(&mut spool, Lane::Routine, 0..30);
    fill(&mut spool, Lane::Urgent, 40..41);
    let released = receipt(&spool, Lane::Routine, 11);
    spool.release(&released).unwrap();
    let old = spool.epoch();
    assert_eq!(spool.begin_epoch().unwrap(), 0);
    assert_ne!(spool.epoch(), old);
    for spool in [spool, open(&disk).spool] {
        assert_eq!((spool.base(Lane::Routine), read(&spool, Lane::Routine)), (0, numbers(11..30)));
        assert_eq!((spool.base(Lane::Urgent), read(&spool, Lane::Urgent)), (0, numbers(40..41)));
        assert_eq!(spool.complete_to().millis(), 40);
    }
}

#[test]
fn when_full_the_oldest_routine_batches_go_first_and_calls_last() {
    let disk = FaultDisk::default();
    let limits = Limits { bytes_max: 3_000, segment_bytes: 500, reserve_bytes: 0 };
    let mut spool = Spool::open(Box::new(disk), limits).unwrap().spool;
    let mut given_up = 0;
    for n in 0..100 {
        given_up += spool.append(Lane::Routine, &sealed(n), span(n), origin(n)).unwrap().given_up;
        assert!(spool.bytes() <= 3_000, "{} bytes", spool.bytes());
    }
    assert_eq!(given_up, spool.base(Lane::Routine));
    assert_eq!(read(&spool, Lane::Routine), numbers(given_up..100));
    for n in 0..60 {
        let appended = spool.append(Lane::Urgent, &sealed(n), span(n), origin(n)).unwrap();
        assert!(spool.bytes() <= 3_000 && appended.seq == n);
    }
    assert_eq!((spool.base(Lane::Routine), spool.next(Lane::Routine)), (100, 100), "every routine batch went");
    assert!(spool.base(Lane::Urgent) > 0, "then the oldest calls");
    let urgent = read(&spool, Lane::Urgent);
    let appended = spool.append(Lane::Routine, &sealed(7), span(7), origin(7)).unwrap();
    assert!(appended.seq == 100 && read(&spool, Lane::Urgent) == urgent, "no call goes for a routine batch");
}

#[test]
fn one_directory_serves_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = Directory::open(folder.path()).unwrap();
    let message = Directory::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains(&format!("in use by process {}", std::process::id())), "{message}");
    let mut spool = Spool::open(Box::new(first), SMALL).unwrap().spool;
    fill(&mut spool, Lane::Routine, 0..12);
    let released = receipt(&spool, Lane::Routine, 10);
    spool.release(&released).unwrap();
    drop(spool);
    let spool = Spool::open(Box::new(Directory::open(folder.path()).unwrap()), SMALL).unwrap();
    assert_eq!((spool.damage.len(), read(&spool.spool, Lane::Routine)), (0, numbers(10..12)));
}

#[test]
fn a_disk_that_refuses_breaks_the_spool_for_good() {
    for fault in [Fault::Full, Fault::Sync] {
        let disk = FaultDisk::default();
        let mut spool = open(&disk).spool;
        fill(&mut spool, Lane::Urgent, 0..3);
        disk.arm(1, fault);
        assert!(matches!(spool.append(Lane::Urgent, &sealed(3), span(3), origin(3)), Err(SpoolError::Disk { .. })));
        disk.restart(100);
        assert!(matches!(spool.append(Lane::Urgent, &sealed(4), span(4), origin(4)), Err(SpoolError::Broken)));
        assert!(matches!(spool.batch(Lane::Urgent, 0), Err(SpoolError::Broken)));
        let Opened { spool, damage } = open(&disk);
        let found = read(&spool, Lane::Urgent);
        assert_eq!(&found[..3], numbers(0..3));
        assert!(damage.is_empty() || fault == Fault::Sync, "{fault:?}: {damage:?}");
    }
}

#[test]
fn a_batch_that_is_damaged_while_it_waits_is_given_up_alone() {
    let disk = FaultDisk::default();
    let mut spool = open(&disk).spool;
    fill(&mut spool, Lane::Urgent, 0..5);
    let (epoch, third) = (spool.epoch(), spool.urgent.entry(2).unwrap().clone());
    let header = spool.urgent.header(epoch);
    let file = SegmentHeader { first: third.segment, ..header }.file();
    disk.change(&file, |bytes| bytes[usize::try_from(third.offset).unwrap()] ^= 1);
    assert!(matches!(spool.batch(Lane::Urgent, 2), Err(SpoolError::Damaged { lane: Lane::Urgent, seq: 2 })));
    spool.give_up(Lane::Urgent, 2).unwrap();
    spool.give_up(Lane::Urgent, 9).unwrap();
    assert_eq!((spool.base(Lane::Urgent), spool.end(Lane::Urgent)), (0, 2), "nothing behind it goes before it may");
    let one = receipt(&spool, Lane::Urgent, 1);
    spool.release(&one).unwrap();
    assert_eq!((spool.base(Lane::Urgent), spool.end(Lane::Urgent)), (1, 2));
    let two = receipt(&spool, Lane::Urgent, 2);
    assert_eq!(spool.release(&two).unwrap(), Released::Upto { batches: 2, next: 2 });
    assert_eq!((spool.base(Lane::Urgent), spool.end(Lane::Urgent)), (3, 5), "the centre sees the jump");
    assert_eq!(spool.batch(Lane::Urgent, 3).unwrap().unwrap().prev, third.digest, "and the chain");
    spool.give_up(Lane::Urgent, 3).unwrap();
    assert_eq!(spool.base(Lane::Urgent), 4, "the first one goes at once");
    assert_eq!(spool.epoch(), epoch);
}

#[test]
fn a_batch_keeps_its_origin_whatever_its_number() {
    let disk = FaultDisk::default();
    let mut spool = open(&disk).spool;
    fill(&mut spool, Lane::Routine, 3..9);
    spool.begin_epoch().unwrap();
    for spool in [spool, open(&disk).spool] {
        let origins = (0..6).map(|seq| spool.batch(Lane::Routine, seq).unwrap().unwrap().origin);
        assert!(origins.eq((3..9).map(|n| Some(origin(n)))));
    }
}

#[test]
fn a_full_disk_takes_calls_and_the_newest() {
    let disk = FaultDisk::default();
    let limits = Limits { bytes_max: 1 << 20, segment_bytes: 2_000, reserve_bytes: 8_000 };
    let mut spool = Spool::open(Box::new(disk.clone()), limits).unwrap().spool;
    fill(&mut spool, Lane::Routine, 0..40);
    // Others fill the disk.
    let used: usize = disk.files().values().map(Vec::len).sum();
    disk.0.lock().unwrap().capacity = Some(used + 10);
    let mut given_up = 0;
    for n in 40..400 {
        given_up += spool.append(Lane::Routine, &sealed(n), span(n), origin(n)).unwrap().given_up;
        if n % 10 == 0 {
            given_up += spool.append(Lane::Urgent, &sealed(n), span(n), origin(n)).unwrap().given_up;
        }
    }
    assert!(!disk.files().contains_key(RESERVE), "it was used");
    // The others take what the reserve had made free, too.
    let used: usize = disk.files().values().map(Vec::len).sum();
    disk.0.lock().unwrap().capacity = Some(used + 10);
    for n in 400..500 {
        given_up += spool.append(Lane::Routine, &sealed(n), span(n), origin(n)).unwrap().given_up;
    }
    assert_eq!(given_up, spool.base(Lane::Routine), "what had to go is counted");
    assert_eq!(read(&spool, Lane::Routine), numbers(given_up..500), "the newest stay");
    assert_eq!(spool.next(Lane::Urgent), 36);
    assert_eq!(spool.base(Lane::Urgent), 0, "and every call");
    assert_eq!(open(&disk).damage, [""; 0]);

    // There is room again: the reserve comes back, and the spool may grow.
    disk.0.lock().unwrap().capacity = None;
    fill(&mut spool, Lane::Routine, 500..600);
    assert!(disk.files().contains_key(RESERVE));
    let base = spool.base(Lane::Routine);
    fill(&mut spool, Lane::Routine, 600..900);
    assert_eq!(spool.base(Lane::Routine), base);

    // Not a byte anywhere, not even by giving up: that is a failed disk.
    let used: usize = disk.files().values().map(Vec::len).sum();
    disk.0.lock().unwrap().capacity = Some(used / 3);
    let refused = (900..2_000).any(|n| spool.append(Lane::Urgent, &sealed(n), span(n), origin(n)).is_err());
    assert!(refused && matches!(spool.batch(Lane::Urgent, 0), Err(SpoolError::Broken)));
}

#[test]
fn the_centre_tells_what_time_it_is() {
    let day = Duration::from_secs(24 * 3600);
    let (now, ahead) =
        (Timestamp::from_millis(1_772_403_300_000), Timestamp::from_millis(1_772_403_300_000) + 4_000 * day);
    let disk = FaultDisk::default();
    let mut spool = open(&disk).spool;
    let wrong = Span { from: ahead, complete_to: ahead };
    spool.append(Lane::Routine, &sealed(0), wrong, origin(0)).unwrap();
    assert_eq!((spool.complete_to(), spool.floor()), (ahead, Timestamp::MIN), "a clock that is ahead poisons no floor");
    spool.learn_time(now).unwrap();
    assert_eq!((spool.complete_to(), spool.floor(), open(&disk).spool.floor()), (now, now, now));
    let writes = disk.files();
    spool.learn_time(now + day / 2).unwrap();
    assert!(disk.files() == writes && spool.floor() == now, "once a day is enough");
    spool.learn_time(now - 2 * day).unwrap();
    assert_eq!(open(&disk).spool.floor(), now - 2 * day, "the centre's clock was wrong");
}

#[test]
fn a_spool_of_before_is_opened_for_ever() {
    let disk = FaultDisk::default();
    let files: [(&str, &[u8]); 4] = [
        (HEAD, include_bytes!("../../golden/spool-1/head")),
        (
            "5eed0123456789ab-routine-0000000000000004",
            include_bytes!("../../golden/spool-1/5eed0123456789ab-routine-0000000000000004"),
        ),
        (
            "5eed0123456789ab-routine-0000000000000008",
            include_bytes!("../../golden/spool-1/5eed0123456789ab-routine-0000000000000008"),
        ),
        (
            "5eed0123456789ab-urgent-0000000000000000",
            include_bytes!("../../golden/spool-1/5eed0123456789ab-urgent-0000000000000000"),
        ),
    ];
    for (name, bytes) in files {
        disk.0.lock().unwrap().disk.create(name, bytes).unwrap();
    }
    let Opened { mut spool, damage } = open(&disk);
    assert_eq!((damage.len(), spool.boot(), spool.epoch()), (0, 4, Epoch::new(0x5eed_0123_4567_89ab)));
    let texts = |spool: &Spool, lane| -> Vec<String> {
        read(spool, lane).into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
    };
    assert_eq!(texts(&spool, Lane::Routine), ["routine 5", "routine 6", "routine 7", "routine 8", "routine 9"]);
    assert_eq!(texts(&spool, Lane::Urgent), ["urgent 1", "urgent 2"]);
    assert_eq!(spool.batch(Lane::Urgent, 1).unwrap().unwrap().origin, None);
    fill(&mut spool, Lane::Routine, 0..1);
    spool.begin_epoch().unwrap();
    let spool = open(&disk).spool;
    assert_eq!(spool.batch(Lane::Routine, 0).unwrap().unwrap().origin, None);
    assert_eq!(spool.batch(Lane::Routine, 5).unwrap().unwrap().origin, Some(origin(0)));
}

#[test]
fn a_head_that_is_lost_begins_a_new_epoch_with_everything() {
    let disk = FaultDisk::default();
    let mut spool = open(&disk).spool;
    fill(&mut spool, Lane::Routine, 0..9);
    let epoch = spool.epoch();
    disk.change(HEAD, |bytes| bytes[9] ^= 1);
    let Opened { spool, damage } = open(&disk);
    assert_eq!(damage, ["the spool's head is missing or damaged"]);
    assert!(spool.epoch() != epoch && read(&spool, Lane::Routine) == numbers(0..9));
}

#[derive(Debug, Clone)]
enum Step {
    Append(bool),
    Release(bool, u8),
    Epoch,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<bool>().prop_map(Step::Append),
        3 => any::<(bool, u8)>().prop_map(|(urgent, upto)| Step::Release(urgent, upto)),
        1 => Just(Step::Epoch),
        2 => Just(Step::Reopen),
    ]
}

fn lane(urgent: bool) -> Lane {
    if urgent { Lane::Urgent } else { Lane::Routine }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The spool is two queues, whatever is done to it, and whenever the power goes: what was appended is there, and of
    /// what was under way either all or nothing.
    #[test]
    fn it_behaves_as_two_queues_through_power_cuts(
        steps in proptest::collection::vec(step(), 1..60),
        fuse in 1_u32..120,
        kept in 0_usize..=100,
    ) {
        let disk = FaultDisk::default();
        let mut spool = open(&disk).spool;
        disk.arm(fuse, Fault::Power);
        let mut queues: [Vec<u64>; 2] = Default::default();
        // What an operation under way at the cut may or may not have done.
        let mut under_way: Option<(usize, u64)> = None;
        for (n, step) in steps.into_iter().enumerate() {
            let n = n as u64;
            let done = match step {
                Step::Append(urgent) => {
                    let done = spool.append(lane(urgent), &sealed(n), span(n), origin(n));
                    match done {
                        Ok(_) => queues[usize::from(!urgent)].push(n),
                        Err(_) => under_way = Some((usize::from(!urgent), n)),
                    }
                    done.map(drop)
                }
                Step::Release(urgent, upto) => {
                    let (lane, queue) = (lane(urgent), &mut queues[usize::from(!urgent)]);
                    let base = spool.base(lane);
                    let next = base + u64::from(upto) % (queue.len() as u64 + 1);
                    let receipt = receipt(&spool, lane, next);
                    // The centre has these: a release that the cut hits may be done, half done or forgotten.
                    queue.drain(..usize::try_from(next - base).unwrap());
                    spool.release(&receipt).map(drop)
                }
                Step::Epoch => spool.begin_epoch().map(drop),
                Step::Reopen => match Spool::open(Box::new(disk.clone()), SMALL) {
                    Ok(opened) => {
                        prop_assert_eq!(opened.damage, [""; 0]);
                        spool = opened.spool;
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
            };
            if done.is_err() {
                break;
            }
            for (urgent, queue) in [true, false].into_iter().zip(&queues) {
                let expected: Vec<_> = queue.iter().map(|n| sealed(*n).bytes).collect();
                prop_assert_eq!(read(&spool, lane(urgent)), expected);
            }
        }
        disk.restart(kept);
        let Opened { mut spool, damage } = open(&disk);
        prop_assert_eq!(damage, [""; 0], "a power cut is no damage");
        for (index, urgent) in [true, false].into_iter().enumerate() {
            let found = read(&spool, lane(urgent));
            let expected: Vec<_> = queues[index].iter().map(|n| sealed(*n).bytes).collect();
            let mut with_last = expected.clone();
            with_last.extend(under_way.filter(|(at, _)| *at == index).map(|(_, n)| sealed(n).bytes));
            // Batches released just before the cut may come again, in front.
            let whole = found.ends_with(&expected) || found.ends_with(&with_last);
            prop_assert!(whole, "{} found, {} expected", found.len(), expected.len());
        }
        spool.append(Lane::Urgent, &sealed(999), span(999), origin(999)).unwrap();
        prop_assert_eq!(read(&spool, Lane::Urgent).pop(), Some(sealed(999).bytes));
    }

    /// One byte anywhere changed, or a file cut anywhere: no wrong batch ever comes back, what is lost is told, and only
    /// the file that was hurt loses anything.
    #[test]
    fn damage_anywhere_is_found(file in any::<proptest::sample::Index>(), at in any::<proptest::sample::Index>(), cut in any::<bool>()) {
        let disk = FaultDisk::default();
        let mut spool = open(&disk).spool;
        fill(&mut spool, Lane::Routine, 0..24);
        fill(&mut spool, Lane::Urgent, 24..30);
        let (epoch, files) = (spool.epoch(), disk.files());
        let (name, bytes) = files.iter().nth(file.index(files.len())).unwrap();
        let at = at.index(bytes.len());
        disk.change(name, |bytes| if cut { bytes.truncate(at) } else { bytes[at] ^= 0x40 });
        let Opened { spool, damage } = open(&disk);
        let is_last = |lane: Lane| files.keys().filter(|n| n.contains(lane.as_str())).max() == Some(name);
        let tail_cut = cut && (is_last(Lane::Routine) || is_last(Lane::Urgent)) && at >= SEGMENT_HEADER;
        prop_assert_eq!(damage.is_empty(), tail_cut, "{} cut {} at {}: {:?}", name, cut, at, damage);
        prop_assert_eq!(spool.epoch() == epoch, tail_cut, "a new epoch exactly when damage was told");
        for (lane, all) in [(Lane::Routine, numbers(0..24)), (Lane::Urgent, numbers(24..30))] {
            let found = read(&spool, lane);
            let mut rest = all.iter();
            prop_assert!(found.iter().all(|batch| rest.any(|known| known == batch)), "something that was never written");
            let told = spool.base(lane) > 0;
            prop_assert!(told || tail_cut || found.len() == all.len(), "{} lost something and its base hides it", lane);
            if name.contains(lane.as_str()) {
                if tail_cut {
                    prop_assert_eq!(&found[..], &all[..found.len()], "a prefix");
                } else if !cut && at >= SEGMENT_HEADER {
                    prop_assert!(found.len() + 8 >= all.len(), "more lost than the rest of one segment");
                }
            } else {
                prop_assert_eq!(found.len(), all.len(), "{} lost something", lane);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), head in any::<bool>()) {
        let disk = FaultDisk::default();
        drop(open(&disk));
        let name = disk.files().keys().find(|name| head == (*name == HEAD)).unwrap().clone();
        disk.change(&name, |file| *file = bytes);
        open(&disk);
    }
}
