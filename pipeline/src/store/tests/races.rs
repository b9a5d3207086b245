//! Another committer on the same table.

use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{Action, Remove};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableBuilder};

use super::*;

async fn other(config: &Config) -> DeltaTable {
    let url = config.lake.join("observations/").unwrap();
    DeltaTableBuilder::from_url(url).unwrap().load().await.unwrap()
}

async fn commit_other(table: &DeltaTable, actions: Vec<Action>, properties: CommitProperties) {
    let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
    let builder: CommitBuilder = properties.into();
    builder.with_actions(actions).build(Some(table.snapshot().unwrap()), table.log_store(), operation).await.unwrap();
}

#[tokio::test]
async fn a_lost_race_is_looked_at_and_committed_again() {
    let lake = tempfile::tempdir().unwrap();
    let config = Config::local(lake.path()).unwrap();
    let store = Store::open(config.clone()).await.unwrap();
    let mut home = Home::of(&store).await;
    let commit = home.batches(4);
    store.commit(&commit, START).await.unwrap();
    home.good(commit);

    // Somebody else takes a file away (retention, say) and so the next version.
    let gone = Arc::clone(&store.view().observations.files[0]);
    let gone_rows = gone.rows.unwrap();
    let remove = Remove {
        path: gone.path.to_string(),
        data_change: true,
        deletion_timestamp: Some(START.millis()),
        ..Remove::default()
    };
    commit_other(&other(&config).await, vec![Action::Remove(remove)], CommitProperties::default()).await;

    let commit = home.batches(4);
    let committed = store.commit(&commit, START).await.unwrap();
    home.good(commit);
    assert_eq!(committed.version, 3);
    let left = numbers(&store, &store.view()).await;
    assert_eq!(left.len() as u64, 8 - gone_rows);
    assert!(left.ends_with(&[4, 5, 6, 7]), "{left:?}");
    drop(store);
    let again = Store::open(config).await.unwrap();
    assert_eq!(numbers(&again, &again.view()).await, left);
}

#[tokio::test]
async fn another_process_committing_under_our_name_stops_us() {
    let lake = tempfile::tempdir().unwrap();
    let config = Config::local(lake.path()).unwrap();
    let store = Store::open(config.clone()).await.unwrap();
    let mut home = Home::of(&store).await;
    let theirs = deltalake_core::kernel::Transaction::new("ingest/0", 1);
    let properties = CommitProperties::default().with_application_transaction(theirs);
    commit_other(&other(&config).await, Vec::new(), properties).await;
    let commit = home.batches(2);
    let error = store.commit(&commit, START).await.unwrap_err();
    assert!(matches!(error, StoreError::Table(TableError::Overtaken { .. })), "{error}");
    let view = store.view();
    assert!(numbers(&store, &view).await.is_empty(), "rows of a commit that did not count are seen");
}
