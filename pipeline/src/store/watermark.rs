//! The watermark files: how far every lane of every gateway is committed.
//!
//! Watermark `n` is written and synced before the commit that carries `txn{ingest/<shard>, n}`; the table's log says which
//! `n` counts. A file holds what changed since `n - 1`, and every so often everything, so that opening reads a bounded chain
//! and no file is ever changed after it counts. The rows are never asked: retention and erasure remove rows.
//!
//! A file is one line of header (`carebed-watermark 1 <n> <full|changes> <sha256>`) and one of JSON; the
//! checksum covers number, kind and JSON.

use bytes::Bytes;
use carebed_contract::digest::Digest;
use carebed_contract::id::GatewayId;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
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

fn encode(n: u64, full: bool, marks: &BTreeMap<GatewayId, Marks>) -> Vec<u8> {
    let body = serde_json::to_vec(marks).expect("marks are maps with text keys");
    let kind = if full { "full" } else { "changes" };
    let mut file = format!("{MAGIC} {FORMAT} {n} {kind} {}\n", checksum(n, kind, &body)).into_bytes();
    file.extend(body);
    file
}

fn checksum(n: u64, kind: &str, body: &[u8]) -> Digest {
    Digest::of_bytes(&[format!("{n} {kind} ").as_bytes(), body].concat())
}

/// Whether it holds everything, and what it holds.
fn decode(n: u64, bytes: &[u8]) -> Result<(bool, BTreeMap<GatewayId, Marks>), &'static str> {
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
    let marks = serde_json::from_slice(body).map_err(|_| "contents")?;
    Ok((kind == "full", marks))
}

/// Writes watermark `n`, which does not count before the table's log says so. It may be there from a commit that failed.
pub(crate) async fn write(
    store: &dyn ObjectStore,
    shard: &str,
    n: u64,
    committed: &BTreeMap<GatewayId, Marks>,
    changes: &Changes,
) -> Result<(), WatermarkError> {
    let bytes = if is_full(n) {
        let mut all = committed.clone();
        all.extend(changes.clone());
        encode(n, true, &all)
    } else {
        encode(n, false, changes)
    };
    let path = path(shard, n);
    let put = store.put(&path, Bytes::from(bytes).into()).await;
    put.map(drop).map_err(|source| WatermarkError::Write { path: path.to_string(), source })
}

/// Reads the state that watermark `n` stands for; nothing for 0.
pub(crate) async fn load(
    store: &dyn ObjectStore,
    shard: &str,
    n: u64,
) -> Result<BTreeMap<GatewayId, Marks>, WatermarkError> {
    let mut chain = Vec::new();
    for number in (1..=n).rev() {
        let path = path(shard, number);
        let read = async { store.get(&path).await?.bytes().await };
        let bytes = read.await.map_err(|source| WatermarkError::Read { path: path.to_string(), source })?;
        let damaged = |what| WatermarkError::Damaged { path: path.to_string(), what };
        let (full, marks) = decode(number, &bytes).map_err(damaged)?;
        chain.push(marks);
        if full {
            break;
        }
    }
    Ok(chain.into_iter().rev().flatten().collect())
}

fn is_full(n: u64) -> bool {
    n % FULL_EVERY == 1
}

/// After a full watermark: removes the files before the full one before it. Best effort, since a file too many does no harm.
pub(crate) async fn clean(store: &dyn ObjectStore, shard: &str, n: u64) {
    if !is_full(n) {
        return;
    }
    let keep_from = n.saturating_sub(FULL_EVERY);
    for number in keep_from.saturating_sub(FULL_EVERY)..keep_from {
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
        for n in 1..=2 * FULL_EVERY + 3 {
            take_next(&mut accept, if n % 3 == 0 { "gw-a" } else { "gw-b" });
            let changes = accept.begin();
            write(&store, "0", n, &committed, &changes).await.unwrap();
            committed.extend(changes.clone());
            accept.finish(changes);
            clean(&store, "0", n).await;
            assert_eq!(load(&store, "0", n).await.unwrap(), committed, "watermark {n}");
        }
        for (n, left) in [(1, false), (FULL_EVERY, false), (FULL_EVERY + 1, true)] {
            assert_eq!(store.head(&path("0", n)).await.is_ok(), left, "watermark {n}");
        }
    }

    #[tokio::test]
    async fn damage_is_told() {
        let mut accept = Accept::default();
        take_next(&mut accept, "gw-a");
        let good = encode(1, true, &accept.begin());
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
