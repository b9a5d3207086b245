//! The disk that forgets. Every file operation of a run of commits is recorded; then, at every point of the run, the disk is
//! made as a power cut could have left it, and the lake is opened again.
//!
//! What a cut may do: a file that was not synced is empty, torn or whole; a name (new, linked or renamed) whose directory was
//! not synced afterwards is there or not. What it may not do is what [`Disk`] promises.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Mutex as SyncMutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::store::disk::Disk;

#[derive(Debug, Clone)]
enum Operation {
    CreateDir(PathBuf),
    Write(PathBuf, Vec<u8>),
    SyncFile(PathBuf),
    SyncDir(PathBuf),
    Link(PathBuf, PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    /// Not of the disk: so many batches were receipted by now.
    Receipted(u64),
}

/// Does everything on a real disk, and remembers it.
#[derive(Debug, Default)]
struct Recorder {
    done: SyncMutex<Vec<Operation>>,
    /// The process dies when a file gets this name, before it can do anything more.
    dies_at: SyncMutex<Option<&'static str>>,
    dead: AtomicBool,
}

impl Recorder {
    fn note(&self, operation: Operation) {
        self.done.lock().unwrap().push(operation);
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead.load(Ordering::SeqCst) { Err(io::Error::other("the process is dead")) } else { Ok(()) }
    }

    fn named(&self, path: &FsPath) {
        let last = self.dies_at.lock().unwrap().is_some_and(|name| path.ends_with(name));
        self.dead.fetch_or(last, Ordering::SeqCst);
    }
}

impl Disk for Recorder {
    fn create_dir(&self, path: &FsPath) -> io::Result<()> {
        self.alive()?;
        self.note(Operation::CreateDir(path.to_owned()));
        OsDisk.create_dir(path)
    }
    fn write(&self, path: &FsPath, contents: &[Bytes]) -> io::Result<()> {
        self.alive()?;
        self.note(Operation::Write(path.to_owned(), contents.concat()));
        OsDisk.write(path, contents)
    }
    fn sync_file(&self, path: &FsPath) -> io::Result<()> {
        self.alive()?;
        self.note(Operation::SyncFile(path.to_owned()));
        Ok(())
    }
    fn sync_dir(&self, path: &FsPath) -> io::Result<()> {
        self.alive()?;
        self.note(Operation::SyncDir(path.to_owned()));
        Ok(())
    }
    fn link(&self, from: &FsPath, to: &FsPath) -> io::Result<()> {
        self.alive()?;
        self.note(Operation::Link(from.to_owned(), to.to_owned()));
        OsDisk.link(from, to).inspect(|()| self.named(to))
    }
    fn rename(&self, from: &FsPath, to: &FsPath) -> io::Result<()> {
        self.alive()?;
        self.note(Operation::Rename(from.to_owned(), to.to_owned()));
        OsDisk.rename(from, to)
    }
    fn remove(&self, path: &FsPath) -> io::Result<()> {
        self.alive()?;
        self.note(Operation::Remove(path.to_owned()));
        OsDisk.remove(path)
    }
}

/// What has a name: a directory or one of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Directory,
    File(usize),
}

/// A disk with a cache: what programs see, and what is on the medium for sure.
#[derive(Debug, Default, Clone)]
struct Model {
    /// Contents and whether they were synced.
    files: Vec<(Vec<u8>, bool)>,
    cached: BTreeMap<PathBuf, Node>,
    stored: BTreeMap<PathBuf, Node>,
}

impl Model {
    /// A disk on which everything that is there now is on the medium.
    fn before(lake: &FsPath) -> Self {
        let mut model = Self::default();
        for above in lake.ancestors() {
            model.cached.insert(above.to_owned(), Node::Directory);
        }
        let mut folders = vec![lake.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path.clone());
                    model.cached.insert(path, Node::Directory);
                } else {
                    model.files.push((std::fs::read(&path).unwrap(), true));
                    model.cached.insert(path, Node::File(model.files.len() - 1));
                }
            }
        }
        model.stored = model.cached.clone();
        model
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::CreateDir(path) => drop(self.cached.insert(path.clone(), Node::Directory)),
            Operation::Write(path, contents) => {
                self.files.push((contents.clone(), false));
                self.cached.insert(path.clone(), Node::File(self.files.len() - 1));
            }
            Operation::SyncFile(path) => {
                if let Some(Node::File(file)) = self.cached.get(path) {
                    self.files[*file].1 = true;
                }
            }
            Operation::SyncDir(directory) => {
                let inside = |path: &PathBuf| path.parent() == Some(directory);
                self.stored.retain(|path, _| !inside(path));
                let names = self.cached.iter().filter(|(path, _)| inside(path));
                self.stored.extend(names.map(|(path, node)| (path.clone(), *node)));
            }
            Operation::Link(from, to) => {
                if let (Some(node), false) = (self.cached.get(from).copied(), self.cached.contains_key(to)) {
                    self.cached.insert(to.clone(), node);
                }
            }
            Operation::Rename(from, to) => {
                if let Some(node) = self.cached.remove(from) {
                    self.cached.insert(to.clone(), node);
                }
            }
            Operation::Remove(path) => drop(self.cached.remove(path)),
            Operation::Receipted(_) => {}
        }
    }

    /// Lays the disk out as a cut left it, below `place` instead of `lake`.
    fn cut(&self, lake: &FsPath, place: &FsPath, kind: Cut, chance: &mut StdRng) {
        let mut names = self.stored.clone();
        let unsure: Vec<&PathBuf> = self
            .cached
            .keys()
            .chain(self.stored.keys())
            .filter(|p| self.cached.get(*p) != self.stored.get(*p))
            .collect();
        for path in unsure {
            let reached = match kind {
                Cut::NothingMore => false,
                Cut::NamesOnly | Cut::Torn => true,
                Cut::Chance => chance.random(),
            };
            if reached {
                match self.cached.get(path) {
                    Some(node) => drop(names.insert(path.clone(), *node)),
                    None => drop(names.remove(path)),
                }
            }
        }
        // A name in a directory that is not there is not there. Shorter paths come first.
        for (path, node) in names {
            let Ok(below) = path.strip_prefix(lake) else { continue };
            let target = place.join(below);
            if !target.parent().is_some_and(FsPath::is_dir) {
                continue;
            }
            match node {
                Node::Directory => std::fs::create_dir_all(target).unwrap(),
                Node::File(file) => {
                    let (contents, synced) = &self.files[file];
                    let kept = match kind {
                        _ if *synced => contents.len(),
                        Cut::NothingMore | Cut::NamesOnly => 0,
                        Cut::Torn => contents.len() / 2,
                        Cut::Chance => chance.random_range(0..=contents.len()),
                    };
                    std::fs::write(target, &contents[..kept]).unwrap();
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Only what was synced is there.
    NothingMore,
    /// All names are there, unsynced files are empty.
    NamesOnly,
    /// All names are there, unsynced files are half there.
    Torn,
    /// Each name and each unsynced byte as chance has it.
    Chance,
}

/// A run: commits, fails between giving a log entry its name and syncing that name, goes on when the disk obeys again, dies at
/// the same place, opens again and commits more.
async fn record(lake: &FsPath) -> Vec<Operation> {
    let disk = Arc::new(Recorder::default());
    let open = async || Store::open_on(Config::local(lake).unwrap(), Arc::clone(&disk) as Arc<dyn Disk>).await.unwrap();
    {
        let store = open().await;
        let mut home = Home::of(&store).await;
        let commit = home.batches(3);
        store.commit(&commit, START).await.unwrap();
        home.good(commit);
        disk.note(Operation::Receipted(3));
        *disk.dies_at.lock().unwrap() = Some("observations/_delta_log/00000000000000000002.json");
        let commit = home.batches(3);
        let held = store.view();
        let error = store.commit(&commit, START).await.unwrap_err();
        assert!(matches!(error, StoreError::Table(TableError::Doubtful { .. })), "{error}");
        // Other batches than before, as a gateway sends them that lost some on the way: their watermark must not take the
        // place of that of the entry which may count.
        let commit = Home::of(&store).await.batches(1);
        let error = store.commit(&commit, START).await.unwrap_err();
        assert!(matches!(error, StoreError::InDoubt), "went on after a failed sync: {error}");
        *disk.dies_at.lock().unwrap() = Some("observations/_delta_log/00000000000000000003.json");
        disk.dead.store(false, Ordering::SeqCst);
        let error = store.commit(&commit, START).await.unwrap_err();
        assert!(matches!(error, StoreError::InDoubt), "{error}");
        // The disk obeys again, and the lake was opened anew. A view that was held keeps its files, and knows of no other.
        assert!(numbers(&store, &held).await == [0, 1, 2]);
        let mut home = Home::of(&store).await;
        assert_eq!(numbers(&store, &store.view()).await.len(), 6);
        disk.note(Operation::Receipted(6));
        let commit = home.batches(2);
        let error = store.commit(&commit, START).await.unwrap_err();
        assert!(matches!(error, StoreError::Table(TableError::Doubtful { .. })), "{error}");
        disk.dead.store(false, Ordering::SeqCst);
    }
    *disk.dies_at.lock().unwrap() = None;
    let store = open().await;
    let mut home = Home::of(&store).await;
    // The new process finds the entry and repeats its receipts.
    let mut receipted = numbers(&store, &store.view()).await.len() as u64;
    assert_eq!(receipted, 8);
    disk.note(Operation::Receipted(receipted));
    for _ in 0..2 {
        let commit = home.batches(2);
        store.commit(&commit, START).await.unwrap();
        home.good(commit);
        receipted += 2;
        disk.note(Operation::Receipted(receipted));
    }
    let done = disk.done.lock().unwrap();
    done.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_cut_at_any_point_every_receipted_row_is_there_once() {
    let lake = tempfile::tempdir().unwrap();
    let lake_path = lake.path().canonicalize().unwrap();
    let operations = record(&lake_path).await;
    let (receipted, cuts) = cut_everywhere(&lake_path, Model::before(&lake_path), &operations, 0, 11).await;
    assert!(receipted == 12 && cuts > 60, "{receipted} receipted, {cuts} cuts");
}

/// Losses and letters are written before the commit that mentions them; every so often the log is summed up, and the old
/// watermarks are removed behind a full one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_cut_losses_letters_checkpoints_and_watermarks_are_there_too() {
    // Just before the log is summed up for the first time, and before the second removal of watermarks.
    for before in [table::CHECKPOINT_EVERY - 2, 2 * watermark::FULL_EVERY - 1] {
        let lake = tempfile::tempdir().unwrap();
        let lake_path = lake.path().canonicalize().unwrap();
        {
            let store = Store::open(Config::local(&lake_path).unwrap()).await.unwrap();
            let mut home = Home::of(&store).await;
            for _ in 0..before {
                let commit = home.batches(1);
                store.commit(&commit, START).await.unwrap();
                home.good(commit);
            }
        }
        let medium = Model::before(&lake_path);
        let disk = Arc::new(Recorder::default());
        let store =
            Store::open_on(Config::local(&lake_path).unwrap(), Arc::clone(&disk) as Arc<dyn Disk>).await.unwrap();
        let mut home = Home::of(&store).await;
        for receipted in before + 1..=before + 4 {
            let commit =
                Commit { gaps: vec![loss(receipted)], dead_letters: vec![letter(receipted)], ..home.batches(1) };
            store.commit(&commit, START).await.unwrap();
            disk.note(Operation::Receipted(receipted));
            home.good(commit);
        }
        drop(store);
        let operations = disk.done.lock().unwrap().clone();
        let summed_up = |o: &Operation| matches!(o, Operation::Link(_, to) | Operation::Rename(_, to) if to.to_string_lossy().contains(".checkpoint."));
        let cleaned =
            |o: &Operation| matches!(o, Operation::Remove(path) if path.to_string_lossy().contains("watermarks/"));
        assert!(operations.iter().any(|o| summed_up(o) || cleaned(o)), "nothing was summed up or cleaned");
        let (receipted, cuts) = cut_everywhere(&lake_path, medium, &operations, before, 29).await;
        assert!(receipted == before + 4 && cuts > 20, "{receipted} receipted, {cuts} cuts");
    }
}

fn loss(from_seq: u64) -> Gap {
    use crate::gap::{Missing, Reason};
    let (gateway, area) = ("gw-1".parse().unwrap(), "a".parse().unwrap());
    let missing =
        Missing { epoch: Epoch::new(1), lane: Lane::Urgent, from_seq, to_seq: None, reason: Reason::EpochLeft };
    Gap { gateway, area, missing, noted_at: START }
}

fn letter(number: u64) -> DeadLetter {
    DeadLetter {
        gateway: "gw-1".parse().unwrap(),
        area: "a".parse().unwrap(),
        topic: "t".into(),
        labels: None,
        content_type: "x".into(),
        payload: Bytes::copy_from_slice(&number.to_be_bytes()),
        reason: "no labels".into(),
        received_time: START,
    }
}

/// Cuts the power at every point, and looks at what is left: `before` batches of one row were there when the run began. Says
/// how many were receipted at the end, and how many cuts there were.
async fn cut_everywhere(
    lake: &FsPath,
    mut model: Model,
    operations: &[Operation],
    before: u64,
    sparse: usize,
) -> (u64, usize) {
    let seed: u64 = rand::random();
    let mut chance = StdRng::seed_from_u64(seed);
    let (mut receipted, mut cuts) = (before, 0);
    // Each run begins elsewhere, so that many runs cut everywhere; with the variable one run does.
    let shift = chance.random_range(0..sparse);
    let everywhere = std::env::var_os("CAREBED_EVERY_CUT").is_some();
    for (at, operation) in operations.iter().enumerate() {
        model.apply(operation);
        if let Operation::Receipted(n) = operation {
            receipted = *n;
        }
        for kind in [Cut::NothingMore, Cut::NamesOnly, Cut::Torn, Cut::Chance] {
            // Most points look alike: each kind is tried at some of them, and all at every receipt.
            let every = if kind == Cut::Chance { sparse / 4 + 1 } else { sparse };
            if !everywhere && (at + shift) % every != 0 && !matches!(operation, Operation::Receipted(_)) {
                continue;
            }
            let place = tempfile::tempdir().unwrap();
            let place_path = place.path().canonicalize().unwrap();
            model.cut(lake, &place_path, kind, &mut chance);
            let context = format!("cut {kind:?} after operation {at} {operation:.60?}, seed {seed}");
            let opened = Store::open(Config::local(&place_path).unwrap()).await;
            let store = opened.unwrap_or_else(|error| panic!("does not open: {error}; {context}"));
            let rows = numbers(&store, &store.view()).await;
            assert_eq!(rows, (0..rows.len() as u64).collect::<Vec<_>>(), "{context}");
            assert!(rows.len() as u64 >= receipted, "{receipted} receipted, {} there; {context}", rows.len());
            // The watermark agrees with the rows: going on doubles nothing.
            let next = Home::of(&store).await.batches(1).rows[0].iter().next().unwrap().seq;
            assert_eq!(next, rows.len() as u64, "{context}");
            declared(&store, operations, (before, receipted), &context).await;
            cuts += 1;
        }
    }
    println!("{cuts} cuts after {} operations, {receipted} batches receipted, seed {seed}", operations.len());
    (receipted, cuts)
}

/// What was lost and what could not be used is declared with what was receipted, and only once when it is noticed again.
async fn declared(store: &Store, operations: &[Operation], (before, receipted): (u64, u64), context: &str) {
    let last = operations.iter().filter_map(|o| if let Operation::Receipted(n) = o { Some(*n) } else { None }).max();
    let all = before + 1..=last.unwrap_or(before);
    let count =
        |view: &View| [&view.gaps, &view.dead_letters].map(|t| t.files.iter().filter_map(|f| f.rows).sum::<u64>());
    let there = count(&store.view());
    if before > 0 {
        assert!(there.iter().all(|n| *n >= receipted - before), "{there:?} declared, {receipted} receipted; {context}");
    }
    let again = Commit {
        gaps: all.clone().map(loss).collect(),
        dead_letters: all.clone().map(letter).collect(),
        ..Commit::default()
    };
    store.commit(&again, START).await.unwrap_or_else(|error| panic!("does not go on: {error}; {context}"));
    let n = all.count() as u64;
    assert_eq!(count(&store.view()), [n, n], "{context}");
}
