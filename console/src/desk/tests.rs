use std::sync::Mutex;

use carebed_contract::clock::ManualClock;
use carebed_contract::finding::Subject;
use carebed_contract::id::{Area, BedId, HomeId};

use super::*;

struct Open {
    desk: Desk,
    database: Database,
    clock: Arc<ManualClock>,
    shutdown: Shutdown,
    running: tokio::task::JoinHandle<Result<(), DeskError>>,
}

async fn start(dir: &std::path::Path) -> Open {
    let database = Database::open(&dir.join("console.sqlite")).await.unwrap();
    let registry = Registry::load(&database).await.unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_772_400_000_000)));
    let shared: Arc<ManualClock> = Arc::clone(&clock);
    let (outgoing, _) = mpsc::channel(1);
    let (desk, task) = open(database.clone(), registry, Policy::new([]), outgoing, shared).await.unwrap();
    let shutdown = Shutdown::new();
    let running = tokio::spawn(task.run(shutdown.clone()));
    Open { desk, database, clock, shutdown, running }
}

fn press(at: Timestamp) -> Finding {
    Finding {
        detection: "call_for_help".to_owned(),
        subject: Subject::Bed(BedId::new("b1").unwrap()),
        home: HomeId::new("h1").unwrap(),
        area: Area::new("a1").unwrap(),
        raised_at: at,
        cleared_at: None,
        evidence: serde_json::Map::new(),
    }
}

async fn run(database: &Database, sql: &'static str) {
    sqlx::query(sql).execute(&database.pool).await.unwrap();
}

#[tokio::test]
async fn a_log_that_cannot_be_written_does_not_silence_a_call() {
    let dir = tempfile::tempdir().unwrap();
    let open = start(dir.path()).await;
    let mut live = open.desk.subscribe(None).await.unwrap().live;
    run(&open.database, "ALTER TABLE transitions RENAME TO away").await;
    let finding = press(open.clock.now());
    let id = AlertId::of(&finding);
    open.desk.findings(vec![finding], Evaluated::default()).await.unwrap();
    assert_eq!(live.recv().await.unwrap().alert.id, id, "the call is told all the same");
    assert_eq!(open.desk.overview().await.unwrap().log_failing_since, Some(open.clock.now()));
    // The disk is repaired: the next try writes what was kept.
    run(&open.database, "ALTER TABLE away RENAME TO transitions").await;
    open.clock.advance(LOG_RETRY);
    while open.desk.overview().await.unwrap().log_failing_since.is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(open.desk.log(&id).await.unwrap().len(), 1);
    open.shutdown.cancel();
    open.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_log_lost_for_too_long_ends_the_desk() {
    let dir = tempfile::tempdir().unwrap();
    let open = start(dir.path()).await;
    run(&open.database, "DROP TABLE transitions").await;
    // One transition each: another bed, another call.
    let many = (0..=UNWRITTEN_MAX)
        .map(|n| Finding { subject: Subject::Bed(BedId::new(format!("b{n}")).unwrap()), ..press(open.clock.now()) });
    let answer = open.desk.findings(many.collect(), Evaluated::default()).await;
    assert_eq!(answer, Err(RequestError::Stopped));
    assert!(matches!(open.running.await.unwrap(), Err(DeskError::LogLost)));
}

#[tokio::test]
async fn subscribers_miss_nothing_and_get_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let open = start(dir.path()).await;
    let numbers = Arc::new(Mutex::new(Vec::new()));
    // One subscriber comes back again and again while calls come in.
    let (desk, seen) = (open.desk.clone(), Arc::clone(&numbers));
    let reader = tokio::spawn(async move {
        let mut last = 0;
        while last < 60 {
            let Subscription { missed, mut live } = desk.subscribe(Some(last)).await.unwrap();
            let missed = missed.expect("not that much was missed");
            let mut told: Vec<_> = missed.iter().map(|told| told.transition.number).collect();
            while told.len() < 2 {
                told.push(live.recv().await.unwrap().transition.number);
            }
            last = *told.last().unwrap();
            seen.lock().unwrap().extend(told);
        }
    });
    for n in 0..60 {
        open.desk.findings(vec![press(open.clock.now() - Duration::from_secs(n))], Evaluated::default()).await.unwrap();
    }
    reader.await.unwrap();
    assert_eq!(*numbers.lock().unwrap(), (1..=60).collect::<Vec<u64>>());
    open.shutdown.cancel();
    open.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_damaged_log_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open(&dir.path().join("console.sqlite")).await.unwrap();
    run(&database, "INSERT INTO transitions VALUES (1, 0, 'x', '{\"number\": 1}')").await;
    let registry = Registry::load(&database).await.unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
    let (outgoing, _) = mpsc::channel(1);
    let error = open(database, registry, Policy::new([]), outgoing, clock).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("transition 1") && cause.contains("backup"), "{cause}");
}
