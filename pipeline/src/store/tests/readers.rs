//! A reader never sees a row twice or not at all, while rows are accepted and committed.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_view_holds_each_accepted_row_once() {
    const ROUNDS: u64 = 25;
    let lake = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(lake.path()).unwrap()).await.unwrap();

    let reading = store.clone();
    let reader = tokio::spawn(async move {
        let mut views = reading.changed();
        let (mut before, mut read) = (0, 0);
        while before < 3 * ROUNDS {
            if views.changed().await.is_err() {
                break;
            }
            let view = Arc::clone(&views.borrow_and_update());
            let seen = numbers(&reading, &view).await;
            assert_eq!(seen, (0..seen.len() as u64).collect::<Vec<_>>(), "view {}", view.version);
            assert!(seen.len() as u64 >= before, "rows went away");
            before = seen.len() as u64;
            read += 1;
        }
        read
    });

    let mut home = Home::of(&store).await;
    for _ in 0..ROUNDS {
        // Two batches are committed while a third is accepted.
        let commit = home.batches(2);
        show(&store, &commit);
        store.begin();
        let committing = tokio::spawn({
            let (store, commit) = (store.clone(), commit.clone());
            async move { store.commit(&commit, START).await }
        });
        let late = home.batches(1);
        show(&store, &late);
        committing.await.unwrap().unwrap();
        home.good(commit);
        store.begin();
        store.commit(&late, START).await.unwrap();
        home.good(late);
    }
    assert!(reader.await.unwrap() > 3, "the reader saw too few views to mean anything");

    let lost = home.batches(3);
    show(&store, &lost);
    assert_eq!(store.view().observations.hot.iter().map(|hot| hot.n_rows()).sum::<usize>(), 3);
    store.take_back();
    assert_eq!(numbers(&store, &store.view()).await, (0..3 * ROUNDS).collect::<Vec<_>>());
}

fn show(store: &Store, commit: &Commit) {
    for rows in &commit.rows {
        store.show(std::slice::from_ref(rows), &[]);
    }
}
