use carebed_contract::command::{CommandResult, Outcome};

use bytes::Bytes;

use super::*;
use crate::gap::Reason;
use crate::schema;
use crate::store::Config;

const NOW: Timestamp = Timestamp::from_millis(1_772_403_300_000);

/// One home's gateway, as far as its batches go.
struct Gateway {
    lane: Lane,
    epoch: Epoch,
    seq: u64,
    prev: Digest,
}

impl Gateway {
    fn new(lane: Lane, epoch: u64) -> Self {
        Self { lane, epoch: Epoch::new(epoch), seq: 0, prev: Digest::ORIGIN }
    }

    /// The next batch: its labels and its payload.
    fn batch(&mut self, json: &str) -> (Labels, Bytes) {
        let labels = Labels {
            complete_to: Timestamp::from_millis(NOW.millis() - 1),
            ..Labels::of(self.epoch, self.lane, self.seq, self.prev)
        };
        self.prev = Digest::of_batch(self.epoch, self.lane, self.seq, self.prev, JSON, json.as_bytes());
        self.seq += 1;
        (labels, Bytes::copy_from_slice(json.as_bytes()))
    }
}

const JSON: &str = "application/senml+json";
const CALL: &str = r#"[{"n":"h1/b1/call-1/call_button","vb":true,"t":1772403299}]"#;

fn topic(channel: Channel) -> Topic {
    Topic::new("360702".parse().unwrap(), "gw-1".parse().unwrap(), channel)
}

struct Centre {
    _lake: tempfile::TempDir,
    store: Store,
    ingest: Ingest,
}

async fn centre() -> Centre {
    let lake = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(lake.path()).unwrap()).await.unwrap();
    Centre { _lake: lake, ingest: Ingest::new(store.clone()).await.unwrap(), store }
}

impl Centre {
    fn offer(&mut self, (labels, payload): &(Labels, Bytes)) -> Offered {
        self.hear(Channel::Batch(labels.lane), Some(&labels.encode()), payload)
    }

    fn hear(&mut self, channel: Channel, labels: Option<&[u8]>, payload: &Bytes) -> Offered {
        self.ingest.offer(Message::read(topic(channel), labels, JSON.to_owned(), payload.clone()), NOW)
    }

    async fn commit(&mut self) -> Vec<(Epoch, Lane, u64)> {
        let receipts = self.ingest.commit(NOW).await.unwrap();
        assert!(receipts.iter().all(|(to, _)| to.channel == Channel::Receipt));
        receipts.iter().map(|(_, r)| (r.epoch, r.lane, r.next)).collect()
    }

    fn counts(&self) -> (u64, u64, u64) {
        let view = self.store.view();
        let count = |table: &crate::view::TableView| {
            assert!(table.hot.is_empty());
            table.files.iter().filter_map(|f| f.rows).sum()
        };
        (count(&view.observations), count(&view.gaps), count(&view.dead_letters))
    }
}

fn kinds(offered: &Offered) -> Vec<&'static str> {
    let kind = |event: &Event| match event {
        Event::Accepted { .. } => "accepted",
        Event::Early { .. } => "early",
        Event::Status { .. } => "status",
        Event::Inventory { .. } => "inventory",
        Event::Result { .. } => "result",
        Event::Unreadable { .. } => "unreadable",
        Event::Gap(_) => "gap",
    };
    offered.events.iter().map(kind).collect()
}

#[tokio::test]
async fn a_call_is_told_at_once_shown_at_once_and_receipted_after_its_commit() {
    let mut centre = centre().await;
    let mut urgent = Gateway::new(Lane::Urgent, 1);
    let call = urgent.batch(CALL);
    let offered = centre.offer(&call);
    assert!(offered.receipt.is_none(), "a receipt before the commit");
    assert_eq!(kinds(&offered), ["accepted"]);
    centre.ingest.show();
    let hot = &centre.store.view().observations.hot;
    assert_eq!(schema::from_batch(&hot[0].columns().unwrap()).unwrap()[0].quantity.as_str(), "call_button");
    assert!(centre.ingest.is_pressing(), "a call waits for the next commit");

    // Sent again before the commit: nothing new, and still no receipt.
    let again = centre.offer(&call);
    assert!(again.receipt.is_none() && again.events.is_empty());
    assert_eq!(centre.commit().await, [(urgent.epoch, Lane::Urgent, 1)]);
    // Sent again after it: the receipt is repeated.
    let again = centre.offer(&call);
    assert_eq!(again.receipt.unwrap().1.next, 1);
    assert!(!centre.ingest.is_pending());
    assert_eq!(centre.counts(), (1, 0, 0));
}

#[tokio::test]
async fn a_call_behind_a_hole_or_from_a_cloned_box_rings_too() {
    let mut centre = centre().await;
    let mut urgent = Gateway::new(Lane::Urgent, 1);
    let (first, second) = (urgent.batch(CALL), urgent.batch(CALL));
    let offered = centre.offer(&second);
    assert_eq!((kinds(&offered), offered.receipt.unwrap().1.next), (vec!["early"], 0));
    assert_eq!(kinds(&centre.offer(&first)), ["accepted"]);
    assert_eq!(kinds(&centre.offer(&second)), ["accepted"]);
    centre.commit().await;

    let other_call = CALL.replace("b1", "b2");
    let clone = Gateway::new(Lane::Urgent, 1).batch(&other_call);
    assert_eq!(kinds(&centre.offer(&clone)), Vec::<&str>::new(), "batch 0 is long receipted");
    let mut clone = Gateway::new(Lane::Urgent, 1);
    clone.batch(CALL);
    let offered = centre.offer(&clone.batch(&other_call));
    assert_eq!((kinds(&offered), offered.receipt.unwrap().1.next), (vec!["early"], 2));
    assert_eq!(centre.counts(), (2, 0, 0));
}

#[tokio::test]
async fn what_cannot_be_used_is_kept_and_its_lane_goes_on() {
    let mut centre = centre().await;
    let mut routine = Gateway::new(Lane::Routine, 1);
    let garbage = routine.batch("{");
    let good = routine.batch(r#"[{"n":"h1/b1/mat-1/heart_rate","v":70}]"#);
    let records: Vec<String> =
        (0..=DAYS_MAX).map(|d| format!(r#"{{"n":"h1/b1/mat-1/heart_rate","v":1,"t":-{}}}"#, d * 86_400)).collect();
    let scattered = routine.batch(&format!("[{}]", records.join(",")));
    for batch in [&garbage, &good, &scattered] {
        assert_eq!(kinds(&centre.offer(batch)), ["accepted"]);
    }
    assert_eq!(centre.commit().await, [(routine.epoch, Lane::Routine, 3)]);
    assert_eq!(centre.counts(), (1, 0, 2));
    // What nobody can read in the lane of calls may have been a call: it is told, once.
    let mut urgent = Gateway::new(Lane::Urgent, 1);
    let unread = urgent.batch("{");
    assert_eq!(kinds(&centre.offer(&unread)), ["unreadable", "accepted"]);
    assert_eq!(kinds(&centre.offer(&unread)), [""; 0]);
    centre.commit().await;

    // Without readable labels: one letter per payload, however often it comes; a call rings each time.
    let bytes = Bytes::from_static(CALL.as_bytes());
    let mut wrong_lane = garbage.0;
    wrong_lane.lane = Lane::Routine;
    let mut huge = garbage.0;
    (huge.lane, huge.seq) = (Lane::Urgent, u64::MAX - 1);
    for labels in [None, Some(b"junk".to_vec()), Some(wrong_lane.encode()), Some(huge.encode())] {
        let offered = centre.hear(Channel::Batch(Lane::Urgent), labels.as_deref(), &bytes);
        assert_eq!((kinds(&offered), offered.receipt), (vec!["early"], None), "{labels:?}");
    }
    centre.hear(Channel::Status, None, &Bytes::from_static(b"{"));
    centre.hear(Channel::Status, None, &Bytes::new());
    assert_eq!(centre.commit().await, []);
    assert_eq!(centre.counts(), (1, 0, 5));
}

#[tokio::test]
async fn a_failed_commit_is_forgotten_and_sent_again() {
    let mut centre = centre().await;
    let mut routine = Gateway::new(Lane::Routine, 1);
    let batches: Vec<_> = (0..3).map(|_| routine.batch(r#"[{"n":"h1/b1/mat-1/heart_rate","v":70}]"#)).collect();
    centre.offer(&batches[0]);
    centre.ingest.show();
    let work = centre.ingest.begin().unwrap();
    assert!(centre.ingest.begin().is_none(), "two commits at a time");
    centre.offer(&batches[1]);
    centre.ingest.show();
    assert_eq!(centre.store.view().observations.hot.len(), 2);
    let failed = Done { result: Err(StoreError::Stopped), ..work.run(NOW).await };
    // (The work did commit: a failure told after the deed is the worst case, and the store must not be asked again.)
    assert!(centre.ingest.finish(failed).is_err());
    assert!(centre.store.view().observations.hot.is_empty());
    assert_eq!(kinds(&centre.offer(&batches[1])), Vec::<&str>::new(), "accepted behind what was forgotten");
}

#[tokio::test]
async fn a_failed_commit_drops_no_letter_that_nobody_sends_again() {
    let mut centre = centre().await;
    let mut routine = Gateway::new(Lane::Routine, 1);
    centre.offer(&routine.batch("{"));
    centre.hear(Channel::Status, None, &Bytes::from_static(b"before"));
    // Taken away from under the commit, so that it fails with nothing on disk.
    let lake = centre._lake.path().join("dead_letters");
    std::fs::rename(&lake, lake.with_extension("away")).unwrap();
    std::fs::write(&lake, "a file where the table was").unwrap();
    let work = centre.ingest.begin().unwrap();
    centre.hear(Channel::Status, None, &Bytes::from_static(b"while"));
    let failed = work.run(NOW).await;
    assert!(centre.ingest.finish(failed).is_err());
    std::fs::remove_file(&lake).unwrap();
    std::fs::rename(lake.with_extension("away"), &lake).unwrap();
    assert!(centre.ingest.is_pending());
    assert_eq!(centre.commit().await, [], "the batch is sent again, and not before");
    assert_eq!(centre.counts(), (0, 0, 2));
}

#[tokio::test]
async fn a_gateway_that_empties_its_spool_is_not_kept_waiting() {
    let mut centre = centre().await;
    let mut routine = Gateway::new(Lane::Routine, 1);
    for _ in 0..AHEAD_MAX {
        centre.offer(&routine.batch("[]"));
        assert!(!centre.ingest.is_pressing());
    }
    centre.offer(&routine.batch("[]"));
    assert!(centre.ingest.is_pressing());
    centre.commit().await;
    centre.offer(&routine.batch("[]"));
    assert!(!centre.ingest.is_pressing(), "its receipts have caught up");
}

#[tokio::test]
async fn a_flood_of_unusable_messages_is_cut() {
    let mut centre = centre().await;
    for n in 0..UNLABELLED_MAX + 5 {
        centre.hear(Channel::Result, None, &Bytes::from(format!("junk {n}")));
    }
    centre.commit().await;
    assert_eq!(centre.counts(), (0, 0, UNLABELLED_MAX as u64));
}

#[tokio::test]
async fn losses_are_declared_and_a_restart_remembers_everything() {
    let mut centre = centre().await;
    let heart = r#"[{"n":"h1/b1/mat-1/heart_rate","v":70}]"#;
    let mut old = Gateway::new(Lane::Routine, 1);
    let batches: Vec<_> = (0..4).map(|_| old.batch(heart)).collect();
    centre.offer(&batches[0]);
    let mut jumped = batches[2].clone();
    jumped.0.base = 2;
    let offered = centre.offer(&jumped);
    assert_eq!(kinds(&offered), ["gap", "accepted"]);
    let Event::Gap(gap) = &offered.events[0] else { unreachable!() };
    assert_eq!((gap.missing.from_seq, gap.missing.to_seq, gap.missing.reason), (1, Some(1), Reason::Released));
    centre.commit().await;

    centre.ingest = Ingest::new(centre.store.clone()).await.unwrap();
    assert_eq!(centre.offer(&batches[2]).receipt.unwrap().1.next, 3, "taken before the restart");
    let offered = centre.offer(&Gateway::new(Lane::Routine, 2).batch(heart));
    assert_eq!(kinds(&offered), ["gap", "gap", "accepted"], "the old epoch's two lanes, of unknown extent");
    centre.commit().await;
    assert_eq!(centre.counts(), (3, 3, 0));
    let complete = centre.store.view().complete["h1"];
    assert_eq!((complete.complete_to.millis(), complete.received), (NOW.millis() - 1, NOW));
}

#[tokio::test]
async fn status_inventory_and_results_are_passed_on() {
    let mut centre = centre().await;
    let inventory = r#"{"version":"1","since":0,"area":"360702","gateway":"gw-1","home":"h1","time_zone":"Asia/Shanghai",
        "residents":1,"rooms":["hall"],"beds":[],"devices":[{"id":"call-1","room":"hall","profile":"p","quantities":[]}]}"#;
    let status = r#"{"state":"online","since":0,"home":"h1","software":"1"}"#;
    let result = CommandResult { id: "c1".into(), outcome: Outcome::Done, reason: None, at: NOW };
    let result = serde_json::to_string(&result).unwrap();
    for (channel, json, kind) in [
        (Channel::Inventory, inventory, vec!["inventory"]),
        // Retained: it comes again on every connection, and says nothing new.
        (Channel::Inventory, inventory, vec![]),
        (Channel::Status, status, vec!["status"]),
        (Channel::Result, &*result, vec!["result"]),
        (Channel::Receipt, "", vec![]),
    ] {
        let payload = Bytes::copy_from_slice(json.as_bytes());
        assert_eq!(kinds(&centre.hear(channel, None, &payload)), kind, "{channel:?}");
    }
    let offered = centre.offer(&Gateway::new(Lane::Urgent, 1).batch(CALL));
    let Event::Accepted { rows, .. } = &offered.events[0] else { unreachable!() };
    assert_eq!(rows.iter().next().unwrap().room.as_ref().map(|r| r.as_str()), Some("hall"));
}
