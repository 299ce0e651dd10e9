//! The lookup of rows in a real PostgreSQL, which `TRACKLINE_TEST_POSTGRES` names; SQLite's tests are beside the code.

use model::TraceId;
use query::rows::{DatabaseSettings, Rows, RowsFound};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const TRACE: TraceId = TraceId([7; 16]);
const HEX: &str = "07070707070707070707070707070707";
const DASHED: &str = "07070707-0707-0707-0707-070707070707";
/// More rows than an answer shows.
const MANY: usize = 150;

async fn make(url: &str) {
    let mut connection = PgConnection::connect(url).await.expect("a database");
    let statements = [
        "DROP SCHEMA IF EXISTS rows_test CASCADE; CREATE SCHEMA rows_test".to_owned(),
        "CREATE TABLE rows_test.orders (id BIGINT, tracking_id TEXT, paid NUMERIC, about JSONB, created_at TIMESTAMPTZ, note TEXT)"
            .to_owned(),
        "CREATE TABLE rows_test.events (tracking_id UUID, n INT)".to_owned(),
        "CREATE TABLE rows_test.other (id TEXT)".to_owned(),
        format!(
            "INSERT INTO rows_test.orders VALUES (1, '{HEX}', 9.5, '{{\"a\": 1}}', '2026-11-19T12:00:00Z', NULL), \
             (2, '{DASHED}', 1, NULL, '2026-11-20T12:00:00Z', 'dashed'), (3, 'another', 1, NULL, now(), NULL)"
        ),
        format!("INSERT INTO rows_test.events SELECT '{DASHED}', n FROM generate_series(1, {MANY}) n"),
    ];
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .expect("made");
    }
    connection.close().await.expect("closed");
}

async fn look(url: &str, tables: &[&str]) -> RowsFound {
    let settings = DatabaseSettings {
        url: url.to_owned(),
        tables: tables.iter().map(|&table| table.to_owned()).collect(),
    };
    Rows::new(vec![settings]).expect("a URL").find(TRACE).await
}

#[tokio::test]
async fn rows_are_found_in_postgresql() {
    let Ok(url) = std::env::var("TRACKLINE_TEST_POSTGRES") else {
        // Straight to standard error: what a passing test prints with a macro is not shown.
        let why = "skipped: TRACKLINE_TEST_POSTGRES names no database\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), why.as_bytes());
        return;
    };
    make(&url).await;

    let found = look(&url, &["rows_test.orders", "rows_test.events", "rows_test.other"]).await;
    assert_eq!(found.error, None);
    let names: Vec<_> = found.tables.iter().map(|table| table.table.as_str()).collect();
    assert_eq!(names, ["rows_test.events", "rows_test.orders"]);
    let (events, orders) = (&found.tables[0], &found.tables[1]);
    assert_eq!(
        (events.rows.len(), events.cut),
        (100, true),
        "a column of type uuid, and too many rows"
    );
    assert_eq!(
        orders.columns,
        ["id", "tracking_id", "paid", "about", "created_at", "note"]
    );
    let mut rows: Vec<_> = orders
        .rows
        .iter()
        .map(|row| serde_json::Value::from(row.clone()).to_string())
        .collect();
    rows.sort();
    assert_eq!(rows.len(), 2);
    assert!(
        rows[0].starts_with(&format!(r#"[1,"{HEX}",9.5,"{{\"a\":1}}","2026-11-19T"#)),
        "{}",
        rows[0]
    );
    assert!(
        rows[1].starts_with(&format!(r#"[2,"{DASHED}",1,null,"2026-11-20T"#)),
        "{}",
        rows[1]
    );
    assert!(found.since_unix_nano.is_some(), "the oldest row says since when");

    // Every table with the column is looked at if none is named; a name is never more than a name.
    let all = look(&url, &[]).await;
    assert!(
        all.tables.iter().any(|table| table.table == "rows_test.orders"),
        "{all:?}"
    );
    assert_eq!(look(&url, &["orders; DROP TABLE rows_test.orders"]).await.tables, []);
    assert_eq!(
        look(&url, &["orders"]).await.tables.len(),
        1,
        "the schema may be left out"
    );

    // Without user and password in what is shown.
    let (_, after_user) = url.split_once("://").expect("a URL");
    let host = after_user.rsplit_once('@').map_or(after_user, |(_, host)| host);
    assert_eq!(
        orders.source,
        format!("postgres://{}", host.split('?').next().expect("a part"))
    );

    let nowhere = look("postgres://nobody@127.0.0.1:1/none", &[]).await;
    assert!(
        nowhere
            .error
            .is_some_and(|error| error.starts_with("postgres://127.0.0.1:1/none: "))
    );
}
