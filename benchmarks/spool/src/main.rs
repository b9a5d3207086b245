//! The gateway's segment log beside SQLite (WAL, synchronous = FULL), in one run on one disk: appends a second with a sync
//! each, bytes written in a day of a typical home, time to open 1 GiB and memory afterwards.
//!
//! A typical home here: ten devices polled every second and reported by exception, which makes one routine batch of about
//! 300 bytes every five seconds, receipted in groups of eight.

use std::path::Path;
use std::time::Instant;

use carebed_contract::digest::Digest;
use carebed_contract::labels::{Lane, Origin};
use carebed_contract::pack::{ContentType, Sealed};
use carebed_contract::receipt::Receipt;
use carebed_contract::time::Timestamp;
use carebed_gateway::spool::{Directory, Limits, Span, Spool};
use rusqlite::{Connection, params};

const DAY_BATCHES: u64 = 24 * 3600 / 5;
const BATCH_BYTES: usize = 300;
const WINDOW: u64 = 8;
/// A batch every ten seconds.
const DAYS_BATCHES: u64 = 3 * 24 * 3600 / 10;
const LARGE_BYTES: u64 = 1 << 30;
const LARGE_BATCH: usize = 16 << 10;

/// What both must do: keep a batch so that it survives a power cut, and let go of all below a number.
trait Queue {
    fn append(&mut self, payload: &[u8]);
    fn release(&mut self, next: u64);
}

struct Log {
    spool: Spool,
    digests: Vec<Digest>,
    prev: Digest,
}

impl Log {
    fn open(folder: &Path) -> Self {
        let limits = Limits { bytes_max: 4 << 30, ..Limits::default() };
        let directory = Directory::open(folder).expect("the folder is ours");
        let opened = Spool::open(Box::new(directory), limits).expect("the spool opens");
        assert!(opened.damage.is_empty());
        Self { spool: opened.spool, digests: Vec::new(), prev: Digest::ORIGIN }
    }
}

impl Queue for Log {
    fn append(&mut self, payload: &[u8]) {
        let sealed = Sealed { content_type: ContentType::Cbor, bytes: payload.to_vec() };
        let span = Span { from: Timestamp::MAX, complete_to: Timestamp::MIN };
        let origin = Origin { run: 1, number: self.digests.len() as u64 };
        let appended = self.spool.append(Lane::Routine, &sealed, span, origin).expect("the disk takes it");
        let kind = sealed.content_type.as_str();
        self.prev = Digest::of_batch(self.spool.epoch(), Lane::Routine, appended.seq, self.prev, kind, payload);
        self.digests.push(self.prev);
    }

    fn release(&mut self, next: u64) {
        let receipt = Receipt {
            epoch: self.spool.epoch(),
            lane: Lane::Routine,
            next,
            digest: self.digests[next as usize - 1],
            centre_time: Timestamp::MIN,
        };
        self.spool.release(&receipt).expect("the receipt is ours");
    }
}

struct Sqlite {
    db: Connection,
    next: i64,
}

impl Sqlite {
    fn open(folder: &Path) -> Self {
        let db = Connection::open(folder.join("spool.sqlite")).expect("SQLite opens");
        db.pragma_update(None, "journal_mode", "WAL").expect("WAL");
        db.pragma_update(None, "synchronous", "FULL").expect("FULL");
        db.execute("CREATE TABLE IF NOT EXISTS batches (lane INTEGER, seq INTEGER, payload BLOB, PRIMARY KEY (lane, seq)) WITHOUT ROWID", [])
            .expect("the table");
        let next = db.query_row("SELECT coalesce(max(seq) + 1, 0) FROM batches", [], |row| row.get(0)).expect("the end");
        Self { db, next }
    }
}

impl Queue for Sqlite {
    fn append(&mut self, payload: &[u8]) {
        self.db
            .prepare_cached("INSERT INTO batches VALUES (1, ?1, ?2)")
            .and_then(|mut insert| insert.execute(params![self.next, payload]))
            .expect("SQLite takes it");
        self.next += 1;
    }

    fn release(&mut self, next: u64) {
        self.db.execute("DELETE FROM batches WHERE lane = 1 AND seq < ?1", [next as i64]).expect("SQLite lets go");
    }
}

/// A field of a file below /proc/self, in its own unit.
fn proc(file: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    line.split_whitespace().find_map(|word| word.parse().ok()).expect("a number")
}

fn day(name: &str, mut queue: impl Queue) {
    let payload: Vec<u8> = (0..BATCH_BYTES).map(|i| (i * 31 % 251) as u8).collect();
    let (written, begun) = (proc("io", "write_bytes:"), Instant::now());
    for seq in 1..=DAY_BATCHES {
        queue.append(&payload);
        if seq % WINDOW == 0 {
            queue.release(seq);
        }
    }
    let (seconds, written) = (begun.elapsed().as_secs_f64(), proc("io", "write_bytes:") - written);
    println!(
        "{name:<12} {:>8.0} synced appends/s   {:>7.1} MiB written in a day ({:.1} x the payload)",
        DAY_BATCHES as f64 / seconds,
        written as f64 / f64::from(1 << 20),
        written as f64 / (DAY_BATCHES as f64 * BATCH_BYTES as f64)
    );
}

fn reopen<Q>(
    name: &str,
    (what, n, batch): (&str, u64, usize),
    folder: &Path,
    open: impl Fn(&Path) -> Q,
    fill: impl Fn(&mut Q, &[u8], u64),
) {
    let payload: Vec<u8> = (0..batch).map(|i| (i * 31 % 251) as u8).collect();
    let mut queue = open(folder);
    fill(&mut queue, &payload, n);
    drop(queue);
    let (before, begun) = (proc("status", "VmRSS:"), Instant::now());
    let queue = open(folder);
    let elapsed = begun.elapsed();
    println!("{name:<12} opens {what} in {:.3} s, {} KiB more memory", elapsed.as_secs_f64(), proc("status", "VmRSS:").saturating_sub(before));
    drop(queue);
}

fn main() {
    let place = std::env::args().nth(1).map_or_else(|| std::env::current_dir().expect("a folder"), Into::into);
    let folder = || tempfile::tempdir_in(&place).expect("a folder for the run");
    println!("segment log of this checkout beside SQLite {}, on {}", rusqlite::version(), place.display());
    for _ in 0..3 {
        let (log, sqlite) = (folder(), folder());
        day("segment log", Log::open(log.path()));
        day("SQLite WAL", Sqlite::open(sqlite.path()));
    }
    let gib = ("1 GiB in 16 KiB batches", LARGE_BYTES / LARGE_BATCH as u64, LARGE_BATCH);
    let days = ("3 days of a typical home", DAYS_BATCHES, BATCH_BYTES);
    for size in [gib, days] {
        let (log, sqlite) = (folder(), folder());
        reopen("segment log", size, log.path(), Log::open, |queue, payload, n| (0..n).for_each(|_| queue.append(payload)));
        reopen("SQLite WAL", size, sqlite.path(), Sqlite::open, |queue, payload, n| {
            queue.db.execute_batch("BEGIN").expect("a transaction");
            (0..n).for_each(|_| queue.append(payload));
            queue.db.execute_batch("COMMIT").expect("a transaction");
        });
    }
}
