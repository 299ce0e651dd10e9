//! Queries as spans, against real databases: SQLite always, PostgreSQL where `TRACKLINE_TEST_POSTGRES` names one.

mod sink;

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use sink::Sink;
use trackline_sdk::Telemetry;
use trackline_sdk_axum::db::{Database, Error};
use trackline_sdk_axum::{TrackingId, TrackingLayer};

/// Longer than any machine takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

async fn work(db: Database, id: TrackingId) -> Result<String, Error> {
    db.query("DROP TABLE IF EXISTS sdk_sessions").execute().await?;
    db.query(
        "CREATE TABLE sdk_sessions (id TEXT PRIMARY KEY, tracking_id TEXT, visits BIGINT, score DOUBLE PRECISION, \
         active BOOLEAN, note TEXT, picture BYTEA)",
    )
    .execute()
    .await?;
    let insert = "INSERT INTO sdk_sessions (id, tracking_id, visits, score, active, note, picture) \
                  VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let mut transaction = db.begin().await?;
    for name in ["s-1", "s-2"] {
        let changed = transaction
            .query(insert)
            .bind(name)
            .bind(id)
            .bind(7i64)
            .bind(0.5)
            .bind(true)
            .bind(None::<String>)
            .bind(b"top secret".to_vec())
            .execute()
            .await?;
        assert_eq!(changed, 1);
    }
    transaction.commit().await?;

    let mut undone = db.begin().await?;
    undone.query("DELETE FROM sdk_sessions").execute().await?;
    undone.rollback().await?;

    let again = db.query(insert).bind("s-1").bind(id).bind(1i64).bind(0.0).bind(false);
    let refused = again.bind(None::<String>).bind(None::<Vec<u8>>).execute().await;
    assert!(refused.is_err(), "the key exists");
    assert!(db.query("SELECT nothing FROM nowhere").fetch_all().await.is_err());

    let rows = db
        .query("SELECT * FROM sdk_sessions WHERE visits > 6 ORDER BY id")
        .fetch_all()
        .await?;
    assert_eq!(rows.len(), 2);
    let row = db
        .query("SELECT * FROM sdk_sessions WHERE id = $1")
        .bind("s-2")
        .fetch_one()
        .await?;
    assert_eq!(row.get::<String>("id")?, "s-2");
    assert_eq!(row.get::<i64>("visits")?, 7);
    assert_eq!(row.get::<Option<i64>>("visits")?, Some(7));
    assert_eq!(row.get::<f64>("score")?, 0.5);
    assert!(row.get::<bool>("active")?);
    assert_eq!(row.get::<Option<String>>("note")?, None);
    assert_eq!(row.get::<Vec<u8>>("picture")?, b"top secret");
    assert!(row.get::<i64>("note").is_err() && row.get::<String>("missing").is_err());
    let none = db.query("SELECT id FROM sdk_sessions WHERE id = $1").bind("s-9");
    assert!(none.fetch_optional().await?.is_none());
    row.get("tracking_id")
}

async fn check(url: &str, system: &str) {
    let sink = Sink::start().await;
    let telemetry = Telemetry::builder("rows").endpoint(&sink.url).stdout(false).build();
    let db = Database::connect(url).await.expect("a database");
    let app = Router::new().route(
        "/",
        get(async move |id: TrackingId| work(db, id).await.expect("the database works")),
    );
    let app = app.layer(TrackingLayer::with(telemetry.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    let answer = sink::client()
        .get(format!("http://{address}/"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    let id = answer.text().await.expect("a body");
    let flushed = tokio::task::spawn_blocking(move || telemetry.flush(PATIENCE)).await;
    assert!(flushed.expect("the flush ends"));

    let server = sink.span("GET /");
    assert_eq!(
        server.trace_id(),
        id,
        "the row was written with the request's tracking ID"
    );
    let spans = sink.spans();
    let queries: Vec<_> = spans
        .iter()
        .filter(|s| s.span.parent_span_id == server.span.span_id)
        .collect();
    assert_eq!(queries.len(), 10);
    for query in &queries {
        assert_eq!(query.attributes()["db.system.name"], system);
        assert_eq!(query.span.kind, 3, "a client span");
    }
    let inserts: Vec<_> = queries
        .iter()
        .filter(|s| s.span.name == "INSERT sdk_sessions")
        .collect();
    assert_eq!(inserts.len(), 3);
    let about = inserts[0].attributes();
    assert_eq!(about["db.operation.name"], "INSERT");
    assert_eq!(about["db.collection.name"], "sdk_sessions");
    assert_eq!(about["db.response.affected_rows"], "1");
    assert!(about["db.query.text"].ends_with("VALUES ($1, $2, $3, $4, $5, $6, $7)"));
    assert_eq!(inserts[2].status().0, 2, "the duplicate key");
    assert!(!inserts[2].attributes()["error.type"].is_empty());
    let selects: Vec<_> = queries
        .iter()
        .filter(|s| s.span.name == "SELECT sdk_sessions")
        .collect();
    let rows: Vec<_> = selects
        .iter()
        .map(|s| s.attributes()["db.response.returned_rows"].clone())
        .collect();
    assert_eq!(rows, ["2", "1", "0"]);
    assert!(
        selects[0].attributes()["db.query.text"].contains("visits > ?"),
        "literals do not leave"
    );
    let lost = queries
        .iter()
        .find(|s| s.span.name == "SELECT nowhere")
        .expect("the failed query");
    assert_eq!(lost.status().0, 2);
    assert_eq!(lost.events("exception").len(), 1);
    assert!(
        !sink.saw("top secret") && !sink.saw("s-2"),
        "parameters stay in the process"
    );
}

#[tokio::test]
async fn sqlite_queries_are_spans() {
    check("sqlite::memory:", "sqlite").await;
    let path = std::env::temp_dir().join(format!("trackline-sdk-{}.db", std::process::id()));
    check(&format!("sqlite://{}", path.display()), "sqlite").await;
    for suffix in ["", "-wal", "-shm"] {
        // Some of these exist only while the database is open.
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
}

#[tokio::test]
async fn postgres_queries_are_spans() {
    match std::env::var("TRACKLINE_TEST_POSTGRES") {
        Ok(url) => check(&url, "postgresql").await,
        Err(_) => {
            // Straight to standard error: what a passing test prints with a macro is not shown.
            let why = "skipped: TRACKLINE_TEST_POSTGRES names no database";
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{why}\n"));
        }
    }
}

#[tokio::test]
async fn unknown_urls_say_what_would_be_right() {
    let error = Database::connect("mysql://me:secret@localhost/x")
        .await
        .expect_err("unknown");
    let text = error.to_string();
    assert!(text.contains("sqlite://demo.db") && !text.contains("secret"), "{text}");
}
