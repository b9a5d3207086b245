use super::*;
use crate::home::HomeFacts;

fn engine() -> Engine {
    Engine::new(Limits::default()).unwrap()
}

fn source(sql: &str) -> Source {
    let (sources, _) = Source::builtin();
    Source { name: "tried".into(), sql: sql.into(), sql_file: "tried/detection.sql".into(), ..sources[0].clone() }
}

const GOOD: &str = "SELECT 'home' AS subject_kind, home_id AS subject_id, home_id, complete_to AS raised_at,
  NULL::timestamp AS cleared_at, residents, $now AS seen_at, CAST(1.5 AS double) AS half, residents > 0 AS lived_in
FROM homes WHERE complete_to <= $now";

fn inputs(residents: u8) -> Inputs {
    let facts = HomeFacts { residents, ..HomeFacts::unregistered("h1".parse().unwrap(), "area-1".parse().unwrap()) };
    Inputs::new(&[], [(&facts, Some(Timestamp::from_millis(1_000)))])
}

#[tokio::test]
async fn each_evaluation_has_its_own_rows_and_time() {
    let engine = engine();
    let detection = engine.prepare(source(GOOD)).await.unwrap();
    let find = async |residents, now| {
        engine.evaluate(&detection, &inputs(residents), Timestamp::from_millis(now)).await.unwrap()
    };
    assert_eq!(find(1, 999).await, []);
    for (residents, now) in [(1, 1_000), (2, 2_000), (1, 1_000)] {
        let findings = find(residents, now).await;
        assert_eq!(findings.len(), 1);
        let expected = serde_json::json!({
            "residents": residents, "seen_at": Timestamp::from_millis(now).to_string(), "half": 1.5, "lived_in": true,
        });
        assert_eq!(serde_json::Value::from(findings[0].evidence.clone()), expected);
        assert_eq!((findings[0].raised_at, findings[0].cleared_at), (Timestamp::from_millis(1_000), None));
    }
    let (one, two) = (inputs(1), inputs(2));
    let now = Timestamp::from_millis(1_000);
    let (one, two) = tokio::join!(engine.evaluate(&detection, &one, now), engine.evaluate(&detection, &two, now));
    assert_eq!(
        (&one.unwrap()[0].evidence["residents"], &two.unwrap()[0].evidence["residents"]),
        (&1.into(), &2.into())
    );
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_at_its_place_and_the_others_go_on() {
    let engine = engine();
    for (sql, place, says) in [
        ("SELECT (1,\n  FROM homes", ":2:8", "Expected"),
        ("SELECT 1 AS a\nFROM nowhere", ":2:6", "nowhere"),
        ("SELECT\n  nothing FROM homes", ":2:3", "nothing"),
        ("SELECT 'home' AS subject_kind, home_id FROM homes", "", "no column subject_id"),
        (&GOOD.replace("complete_to AS raised_at", "1 AS raised_at"), "", "raised_at is Int64"),
        (&GOOD.replace("<= $now", "<= $then"), "", "$then"),
        ("DELETE FROM homes", "", "not one SELECT"),
        ("SELECT 1; SELECT 2", "", ""),
        ("WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r) SELECT a FROM r", "", "ecursive"),
        (&GOOD.replace("residents,", "CAST('x' AS int) AS wrong,"), "", "x"),
    ] {
        let refused = engine.prepare(source(sql)).await.unwrap_err();
        assert_eq!(refused.place(), format!("tried/detection.sql{place}"), "{sql}: {refused}");
        assert!(refused.to_string().contains(says), "{sql}: {refused}");
    }
    let (good, _) = Source::builtin();
    let sources = vec![source("SELECT"), good[0].clone()];
    let (detections, refused) = engine.prepare_all(sources, vec![]).await;
    assert_eq!((detections.len(), refused.len()), (1, 1));
}

#[tokio::test]
async fn a_row_that_is_no_finding_and_an_endless_one_are_told() {
    let engine = Engine::new(Limits { time: Duration::from_millis(300), ..Limits::default() }).unwrap();
    let now = Timestamp::from_millis(2_000);
    let detection = engine.prepare(source(&GOOD.replace("'home' AS", "'room' AS"))).await.unwrap();
    let error = engine.evaluate(&detection, &inputs(1), now).await.unwrap_err();
    assert!(error.to_string().contains("\"room\""), "{error}");
    let endless = GOOD.replace("FROM homes WHERE", "FROM homes, generate_series(1, 100000000000) WHERE value < 0 AND");
    let detection = engine.prepare(source(&endless)).await.unwrap();
    assert!(matches!(engine.evaluate(&detection, &inputs(1), now).await, Err(EvaluateError::Time { .. })));
}

#[tokio::test]
async fn one_that_looks_ahead_is_refused_and_those_that_come_along_do_not() {
    let engine = engine();
    let raised = |at: &str, from: &str| {
        format!(
            "SELECT 'home' AS subject_kind, home_id AS subject_id, home_id, {at} AS raised_at, NULL::timestamp AS cleared_at
             FROM {from} WHERE kind = 'quiet'"
        )
    };
    let later =
        "(SELECT *, lead(started_at) OVER (PARTITION BY home_id, kind ORDER BY started_at) AS next FROM episodes)";
    for (sql, says) in [
        (raised("start_known_at", later) + " AND next IS NOT NULL", "was not found then"),
        (raised("start_known_at", later) + " AND next IS NULL", "is not found any more"),
        (raised("started_at", "episodes"), "was not found then"),
        (raised("start_known_at", "episodes").replace("NULL::timestamp", "end_known_at"), ""),
        (raised("plus_minutes(start_known_at, 60.0)", "episodes"), "it looks ahead: at "),
    ] {
        match engine.try_out(source(&sql)).await {
            Ok(_) => assert_eq!(says, "", "{sql}"),
            Err(refused) => {
                assert!(!says.is_empty() && refused.to_string().contains(says), "{sql}: {refused}");
                assert_eq!(refused.place(), "tried/detection.sql");
            }
        }
    }
    let (detections, _) = engine.builtin().await;
    for detection in detections {
        assert_eq!(engine.looks_ahead(&detection).await.unwrap(), None, "{}", detection.name);
    }
}
