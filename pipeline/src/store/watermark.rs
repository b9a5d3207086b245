//! The watermark files: how far every lane of every gateway is committed.
//!
//! Watermark `n` is written and synced before the commit that carries `txn{ingest/<shard>, n}`; the table's log says which
//! `n` counts. Every attempt to commit takes a new number: nobody knows for sure whether a commit that failed will not count
//! after all, such as one whose answer was lost on the way from an object store, and then its own watermark must be there.
//! A file holds what changed since the one that counted before, and every so often everything, so that opening reads a
//! bounded chain. The rows are never asked: retention and erasure remove rows.
//!
//! A file is one line of header (`carebed-watermark 1 <n> <full|since:m> <sha256>`) and one of JSON; the checksum covers
//! number, kind and JSON. `changes`, of before, means since `n - 1`.

use bytes::Bytes;
use carebed_contract::digest::Digest;
use carebed_contract::id::GatewayId;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use std::collections::BTreeMap;

use crate::accept::{Changes, Marks};

/// Every so many commits a watermark holds everything.
pub(crate) const FULL_EVERY: u64 = 64;

const MAGIC: &str = "carebed-watermark";
const FORMAT: &str = "1";

/// Why the watermark could not be read. The table knows more than the centre remembers: going on would double rows.
#[derive(Debug, thiserror::Error)]
pub enum WatermarkError {
    /// The file is not there or cannot be read.
    #[error("failed to read watermark {path}: restore it, and all of its directory, from a backup of the lake")]
    Read {
        /// Which file.
        path: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// The file is not what was written.
    #[error("watermark {path} is damaged ({what}): restore it from a backup of the lake")]
    Damaged {
        /// Which file.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The file could not be written.
    #[error("failed to write watermark {path}")]
    Write {
        /// Which file.
        path: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
}

/// The file of watermark `n`.
fn path(shard: &str, n: u64) -> Path {
    Path::from(format!("watermarks/{shard}/{n:020}"))
}

/// With the number that it holds the changes since; none when it holds everything.
fn encode(n: u64, since: Option<u64>, marks: &BTreeMap<GatewayId, Marks>) -> Vec<u8> {
    let body = serde_json::to_vec(marks).expect("marks are maps with text keys");
    let kind = since.map_or_else(|| "full".to_owned(), |m| format!("since:{m}"));
    let mut file = format!("{MAGIC} {FORMAT} {n} {kind} {}\n", checksum(n, &kind, &body)).into_bytes();
    file.extend(body);
    file
}

fn checksum(n: u64, kind: &str, body: &[u8]) -> Digest {
    Digest::of_bytes(&[format!("{n} {kind} ").as_bytes(), body].concat())
}

/// The number that it holds the changes since, none when it holds everything; and what it holds.
fn decode(n: u64, bytes: &[u8]) -> Result<(Option<u64>, BTreeMap<GatewayId, Marks>), &'static str> {
    let end = bytes.iter().position(|b| *b == b'\n').ok_or("no header")?;
    let (header, body) = bytes.split_at(end);
    let header = std::str::from_utf8(header).map_err(|_| "the header is not text")?;
    let body = body.get(1..).unwrap_or_default();
    let fields: Vec<&str> = header.split(' ').collect();
    let [magic, format, number, kind, sum] = fields[..] else { return Err("no header") };
    if magic != MAGIC {
        return Err("not a watermark");
    }
    if format != FORMAT {
        return Err("written by a later carebed");
    }
    if number != n.to_string() {
        return Err("another number");
    }
    if sum != checksum(n, kind, body).to_string() {
        return Err("checksum");
    }
    let since = match (kind, kind.strip_prefix("since:")) {
        ("full", _) => None,
        ("changes", _) => n.checked_sub(1),
        (_, Some(m)) => Some(m.parse().ok().filter(|m| *m < n).ok_or("a later number")?),
        _ => return Err("an unknown kind"),
    };
    let marks = serde_json::from_slice(body).map_err(|_| "contents")?;
    Ok((since, marks))
}

/// Writes watermark `n`, which does not count before the table's log says so; `last` is the one that counts. Fails when there
/// is one of this number.
pub(crate) async fn write(
    store: &dyn ObjectStore,
    shard: &str,
    (last, n): (u64, u64),
    committed: &BTreeMap<GatewayId, Marks>,
    changes: &Changes,
) -> Result<(), WatermarkError> {
    let bytes = if is_full(last, n) {
        let mut all = committed.clone();
        all.extend(changes.clone());
        encode(n, None, &all)
    } else {
        encode(n, Some(last), changes)
    };
    let (path, bytes) = (path(shard, n), Bytes::from(bytes));
    match store.put_opts(&path, bytes.clone().into(), PutMode::Create.into()).await {
        Ok(_) => Ok(()),
        // An object store whose answer was lost is asked again, and finds what it took the first time.
        Err(object_store::Error::AlreadyExists { .. }) if is_there(store, &path, &bytes).await => Ok(()),
        Err(source) => Err(WatermarkError::Write { path: path.to_string(), source }),
    }
}

async fn is_there(store: &dyn ObjectStore, path: &Path, bytes: &Bytes) -> bool {
    let read = async { store.get(path).await?.bytes().await };
    read.await.is_ok_and(|there| there == *bytes)
}

/// Reads the state that watermark `n` stands for; nothing for 0.
pub(crate) async fn load(
    store: &dyn ObjectStore,
    shard: &str,
    n: u64,
) -> Result<BTreeMap<GatewayId, Marks>, WatermarkError> {
    let mut chain = Vec::new();
    let mut next = Some(n);
    while let Some(number) = next.filter(|number| *number > 0) {
        let path = path(shard, number);
        let read = async { store.get(&path).await?.bytes().await };
        let bytes = read.await.map_err(|source| WatermarkError::Read { path: path.to_string(), source })?;
        let damaged = |what| WatermarkError::Damaged { path: path.to_string(), what };
        let (since, marks) = decode(number, &bytes).map_err(damaged)?;
        chain.push(marks);
        next = since;
    }
    Ok(chain.into_iter().rev().flatten().collect())
}

/// The highest number that any commit tried; 0 when none did.
pub(crate) async fn last_tried(store: &dyn ObjectStore, shard: &str) -> Result<u64, WatermarkError> {
    Ok(numbers(store, shard).await?.into_iter().max().unwrap_or(0))
}

async fn numbers(store: &dyn ObjectStore, shard: &str) -> Result<Vec<u64>, WatermarkError> {
    let folder = Path::from(format!("watermarks/{shard}"));
    let listed: Result<Vec<_>, _> = store.list(Some(&folder)).try_collect().await;
    let listed = listed.map_err(|source| WatermarkError::Read { path: folder.to_string(), source })?;
    Ok(listed.iter().filter_map(|file| file.location.filename()?.parse().ok()).collect())
}

fn is_full(last: u64, n: u64) -> bool {
    last == 0 || last / FULL_EVERY != n / FULL_EVERY
}

/// After a full watermark: removes files that the full one before it does not need. Best effort, since a file too many does
/// no harm.
pub(crate) async fn clean(store: &dyn ObjectStore, shard: &str, (last, n): (u64, u64)) {
    if !is_full(last, n) {
        return;
    }
    // The one before counts, and its chain does not reach beyond its own stretch of numbers.
    let keep_from = last / FULL_EVERY * FULL_EVERY;
    for number in numbers(store, shard).await.unwrap_or_default().into_iter().filter(|number| *number < keep_from) {
        let _gone_already = store.delete(&path(shard, number)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept::{Accept, LaneMark};
    use carebed_contract::labels::{Epoch, Labels, Lane};
    use carebed_contract::time::Timestamp;
    use object_store::memory::InMemory;

    fn take_next(accept: &mut Accept, gateway: &str) {
        let gateway = gateway.parse().unwrap();
        let epoch = Epoch::new(1);
        let mark = accept.marks(&gateway).map_or(LaneMark::ORIGIN, |m| m.lane(epoch, Lane::Routine));
        let (seq, prev) = (mark.next, mark.digest);
        let complete_to = Timestamp::from_millis(5);
        let labels = Labels { complete_to, ..Labels::of(epoch, Lane::Routine, seq, prev) };
        accept.offer(&gateway, &labels, "x", &seq.to_be_bytes(), Timestamp::from_millis(9));
        accept.note_home(&gateway, &"h1".parse().unwrap());
    }

    #[tokio::test]
    async fn a_chain_of_changes_reads_as_the_whole() {
        let store = InMemory::new();
        let mut accept = Accept::default();
        let mut committed = BTreeMap::new();
        let mut last = 0;
        for n in 1..=2 * FULL_EVERY + 3 {
            take_next(&mut accept, if n % 3 == 0 { "gw-a" } else { "gw-b" });
            let changes = accept.begin();
            write(&store, "0", (last, n), &committed, &changes).await.unwrap();
            assert_eq!(last_tried(&store, "0").await.unwrap(), n);
            if n % 5 == 0 || n == FULL_EVERY {
                // A commit that failed: whatever it was, it does not count.
                accept.finish(changes);
                continue;
            }
            committed.extend(changes.clone());
            accept.finish(changes);
            clean(&store, "0", (last, n)).await;
            last = n;
            assert_eq!(load(&store, "0", n).await.unwrap(), committed, "watermark {n}");
        }
        for (n, left) in [(1, false), (FULL_EVERY - 1, false), (FULL_EVERY + 1, true)] {
            assert_eq!(store.head(&path("0", n)).await.is_ok(), left, "watermark {n}");
        }
        // The number of the last one, for something else.
        let again = write(&store, "0", (last - 1, last), &committed, &Changes::new()).await;
        assert!(matches!(again, Err(WatermarkError::Write { .. })), "a number is taken once: {again:?}");
    }

    #[tokio::test]
    async fn changes_of_before_are_since_the_number_before() {
        let store = InMemory::new();
        let mut accept = Accept::default();
        take_next(&mut accept, "gw-a");
        let (first, mut all) = (accept.begin(), BTreeMap::new());
        write(&store, "0", (0, 1), &all, &first).await.unwrap();
        take_next(&mut accept, "gw-b");
        let second = accept.begin();
        let body = serde_json::to_vec(&second).unwrap();
        let header = format!("{MAGIC} {FORMAT} 2 changes {}\n", checksum(2, "changes", &body));
        store.put(&path("0", 2), [header.into_bytes(), body].concat().into()).await.unwrap();
        all.extend(first);
        all.extend(second);
        assert_eq!(load(&store, "0", 2).await.unwrap(), all);
    }

    #[tokio::test]
    async fn damage_is_told() {
        let mut accept = Accept::default();
        take_next(&mut accept, "gw-a");
        let good = encode(1, None, &accept.begin());
        assert!(decode(1, &good).is_ok());
        assert_eq!(decode(2, &good), Err("another number"));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x01;
            assert!(decode(1, &bad).is_err(), "byte {at}");
            assert!(decode(1, &good[..at]).is_err(), "cut at {at}");
        }
    }
}
