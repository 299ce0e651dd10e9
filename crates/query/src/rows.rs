//! Rows of the services' own databases that carry a tracking id.
//!
//! Reads only: SQLite files are opened read-only, PostgreSQL sessions are told to be. A lookup is bounded in tables,
//! rows, bytes and time, and a database that cannot be asked is a sentence in the answer, never a failed lookup. A
//! connection lives for one lookup: a database that is restarted or replaced needs no attention.

use std::time::Duration;

use model::TraceId;
use serde_json::Value as Json;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Connection, Row, TypeInfo, ValueRef};

use crate::instant::parse_rfc3339;
use crate::story::TableRows;

/// The column that makes a table a place to look (SPEC's name for it).
const TRACKING_COLUMN: &str = "tracking_id";
/// Columns that say when a row was written.
const TIME_COLUMNS: [&str; 4] = ["created_at", "started_at", "inserted_at", "timestamp"];
/// Tables looked at per database; a schema with more is listed in the configuration.
const MAX_TABLES: usize = 32;
/// Rows shown per table: one request writes a few.
const MAX_ROWS: usize = 100;
/// Bytes shown of one value; documents in columns are not what the lookup is for.
const MAX_CELL_BYTES: usize = 4 << 10;
/// One database's whole share of a lookup. A person waits for it.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A database to look into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// `sqlite:path/to.db` or `postgres://user:password@host/name`.
    pub url: String,
    /// Tables with a `tracking_id` column; none means all that have one.
    pub tables: Vec<String>,
}

/// Why a database cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum BadDatabase {
    #[error("a database is named by a URL that starts with sqlite: or postgres://, but this one starts with `{0}`")]
    Scheme(String),
    /// The URL itself is not repeated: it may hold a password.
    #[error("the database URL of {source_name} cannot be read: {why}")]
    Url { source_name: String, why: String },
}

/// The configured databases.
#[derive(Debug)]
pub struct Rows {
    databases: Vec<Database>,
}

#[derive(Debug)]
struct Database {
    /// How it is shown: without user and password.
    source: String,
    kind: Kind,
    tables: Vec<String>,
}

#[derive(Debug)]
enum Kind {
    Sqlite(Box<SqliteConnectOptions>),
    Postgres(Box<PgConnectOptions>),
}

/// What the databases answered.
#[derive(Debug, Default)]
pub struct RowsFound {
    pub tables: Vec<TableRows>,
    /// One sentence per database that could not be asked.
    pub error: Option<String>,
    /// When the oldest of the rows was written, where a column says so.
    pub since_unix_nano: Option<u64>,
}

impl Rows {
    pub fn new(settings: Vec<DatabaseSettings>) -> Result<Rows, BadDatabase> {
        Ok(Rows {
            databases: settings.into_iter().map(Database::new).collect::<Result<_, _>>()?,
        })
    }

    /// Looks for the id, as 32 hex digits and as a dashed UUID, in every table; takes at most `TIMEOUT` a database.
    pub async fn find(&self, id: TraceId) -> RowsFound {
        let forms = forms(id);
        let mut found = RowsFound::default();
        let mut errors = Vec::new();
        for database in &self.databases {
            let asked = match tokio::time::timeout(TIMEOUT, database.find(&forms)).await {
                Ok(asked) => asked.map_err(|error| plain(&error)),
                Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
            };
            match asked {
                Ok(tables) => found.tables.extend(tables),
                Err(error) => errors.push(format!("{}: {error}", database.source)),
            }
        }
        found.since_unix_nano = found.tables.iter().filter_map(oldest).min();
        found.error = (!errors.is_empty()).then(|| errors.join("; "));
        found
    }
}

/// The two spellings that rows may hold.
fn forms(id: TraceId) -> [String; 2] {
    let hex = id.to_string();
    let dashed = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    [hex, dashed]
}

/// The database's own words, without the layers around them.
fn plain(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => other.to_string(),
    }
}

/// When the oldest row of a table was written.
fn oldest(table: &TableRows) -> Option<u64> {
    let column = TIME_COLUMNS
        .iter()
        .find_map(|name| table.columns.iter().position(|column| column == name))?;
    table.rows.iter().filter_map(|row| instant(row.get(column)?)).min()
}

/// A column's instant: RFC 3339 or a number in seconds, ms, µs or ns, told apart by size (all since 1973).
fn instant(value: &Json) -> Option<u64> {
    match value {
        Json::String(text) => parse_rfc3339(text),
        Json::Number(number) => match number.as_f64()? {
            seconds if (1e8..1e11).contains(&seconds) => Some((seconds * 1e9) as u64),
            millis if (1e11..1e14).contains(&millis) => Some((millis * 1e6) as u64),
            micros if (1e14..1e17).contains(&micros) => Some((micros * 1e3) as u64),
            _ => number.as_u64().filter(|&nanos| nanos >= 100_000_000_000_000_000),
        },
        _ => None,
    }
}

impl Database {
    fn new(settings: DatabaseSettings) -> Result<Database, BadDatabase> {
        let DatabaseSettings { url, tables } = settings;
        let scheme = url.split(':').next().unwrap_or_default();
        match scheme {
            "sqlite" => {
                let path = url.split('?').next().unwrap_or_default();
                let source = format!("sqlite:{}", path.trim_start_matches("sqlite:").trim_start_matches("//"));
                let options: SqliteConnectOptions = url.parse().map_err(|error: sqlx::Error| BadDatabase::Url {
                    source_name: source.clone(),
                    why: error.to_string(),
                })?;
                let options = options
                    .read_only(true)
                    .create_if_missing(false)
                    .busy_timeout(TIMEOUT / 2);
                Ok(Database {
                    source,
                    kind: Kind::Sqlite(Box::new(options.disable_statement_logging())),
                    tables,
                })
            }
            "postgres" | "postgresql" => {
                let rest = url.split_once("://").map_or("", |(_, rest)| rest);
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                let source = format!("postgres://{}", host.split('?').next().unwrap_or_default());
                let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| BadDatabase::Url {
                    source_name: source.clone(),
                    why: error.to_string(),
                })?;
                let timeout = TIMEOUT.as_millis().to_string();
                let options = options
                    .application_name("trackline")
                    .options([("default_transaction_read_only", "on"), ("statement_timeout", &timeout)])
                    .disable_statement_logging();
                Ok(Database {
                    source,
                    kind: Kind::Postgres(Box::new(options)),
                    tables,
                })
            }
            // A scheme is shown only as far as it can be one: the text may be a pasted secret.
            other => Err(BadDatabase::Scheme(
                other.chars().take_while(char::is_ascii_alphabetic).take(16).collect(),
            )),
        }
    }

    async fn find(&self, forms: &[String; 2]) -> Result<Vec<TableRows>, sqlx::Error> {
        match &self.kind {
            Kind::Sqlite(options) => self.find_sqlite(options, forms).await,
            Kind::Postgres(options) => self.find_postgres(options, forms).await,
        }
    }

    async fn find_sqlite(
        &self,
        options: &SqliteConnectOptions,
        forms: &[String; 2],
    ) -> Result<Vec<TableRows>, sqlx::Error> {
        let mut connection = options.connect().await?;
        let tables = if self.tables.is_empty() {
            let sql = "SELECT m.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c \
                       WHERE m.type IN ('table', 'view') AND lower(c.name) = ?1 ORDER BY m.name LIMIT ?2";
            sqlx::query_scalar(sql)
                .bind(TRACKING_COLUMN)
                .bind(MAX_TABLES as i64)
                .fetch_all(&mut connection)
                .await?
        } else {
            self.tables.clone()
        };
        let mut found = Vec::new();
        for table in tables {
            // The name is quoted, which is what the assertion says.
            let sql = format!(
                "SELECT * FROM {} WHERE {TRACKING_COLUMN} IN (?1, ?2) LIMIT {}",
                quoted(&table),
                MAX_ROWS + 1
            );
            let rows = sqlx::query(AssertSqlSafe(sql))
                .bind(&forms[0])
                .bind(&forms[1])
                .fetch_all(&mut connection)
                .await?;
            let Some(first) = rows.first() else { continue };
            let columns = first.columns().iter().map(|column| column.name().to_owned()).collect();
            let values = rows.iter().take(MAX_ROWS).map(sqlite_row).collect::<Result<_, _>>()?;
            found.push(TableRows {
                source: self.source.clone(),
                table,
                columns,
                rows: values,
                cut: rows.len() > MAX_ROWS,
            });
        }
        connection.close().await?;
        Ok(found)
    }

    async fn find_postgres(
        &self,
        options: &PgConnectOptions,
        forms: &[String; 2],
    ) -> Result<Vec<TableRows>, sqlx::Error> {
        let mut connection = options.connect().await?;
        let sql = "SELECT table_schema::text, table_name::text, data_type::text FROM information_schema.columns \
                   WHERE lower(column_name) = $1 AND table_schema NOT IN ('pg_catalog', 'information_schema') \
                   ORDER BY table_schema, table_name LIMIT $2";
        let tables: Vec<(String, String, String)> = sqlx::query_as(sql)
            .bind(TRACKING_COLUMN)
            .bind(MAX_TABLES as i64)
            .fetch_all(&mut connection)
            .await?;
        let wanted = |schema: &str, table: &str| {
            self.tables.is_empty()
                || self
                    .tables
                    .iter()
                    .any(|name| name == table || *name == format!("{schema}.{table}"))
        };
        let mut found = Vec::new();
        for (schema, table, kind) in tables.into_iter().filter(|(schema, table, _)| wanted(schema, table)) {
            let name = format!("{}.{}", quoted(&schema), quoted(&table));
            // Compared in the column's own type, so that its index serves.
            let condition = match kind.as_str() {
                "uuid" => format!("t.{TRACKING_COLUMN} = $2::uuid AND $1 <> ''"),
                _ => format!("t.{TRACKING_COLUMN}::text IN ($1, $2)"),
            };
            let columns: Vec<String> = sqlx::query_scalar(
                "SELECT column_name::text FROM information_schema.columns \
                 WHERE table_schema = $1 AND table_name = $2 ORDER BY ordinal_position",
            )
            .bind(&schema)
            .bind(&table)
            .fetch_all(&mut connection)
            .await?;
            let sql = format!(
                "SELECT row_to_json(t)::text FROM {name} t WHERE {condition} LIMIT {}",
                MAX_ROWS + 1
            );
            let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql))
                .bind(&forms[0])
                .bind(&forms[1])
                .fetch_all(&mut connection)
                .await?;
            if rows.is_empty() {
                continue;
            }
            let values = rows.iter().take(MAX_ROWS).map(|row| {
                let object: serde_json::Map<String, Json> = serde_json::from_str(row).unwrap_or_default();
                columns
                    .iter()
                    .map(|column| cell(object.get(column).cloned().unwrap_or_default()))
                    .collect()
            });
            let rows_cut = rows.len() > MAX_ROWS;
            let table = if schema == "public" {
                table
            } else {
                format!("{schema}.{table}")
            };
            found.push(TableRows {
                source: self.source.clone(),
                table,
                rows: values.collect(),
                columns,
                cut: rows_cut,
            });
        }
        connection.close().await?;
        Ok(found)
    }
}

/// A row in JSON, by the type that each value has, for SQLite's columns have none of their own.
fn sqlite_row(row: &sqlx::sqlite::SqliteRow) -> Result<Vec<Json>, sqlx::Error> {
    let value = |i: usize| -> Result<Json, sqlx::Error> {
        let raw = row.try_get_raw(i)?;
        if raw.is_null() {
            return Ok(Json::Null);
        }
        let kind = raw.type_info().name().to_owned();
        Ok(match kind.as_str() {
            "INTEGER" | "BOOLEAN" => row.try_get_unchecked::<i64, _>(i)?.into(),
            "REAL" => row.try_get_unchecked::<f64, _>(i)?.into(),
            "BLOB" => format!("{} bytes", row.try_get_unchecked::<Vec<u8>, _>(i)?.len()).into(),
            _ => Json::String(row.try_get_unchecked::<String, _>(i)?),
        })
    };
    (0..row.columns().len()).map(|i| value(i).map(cell)).collect()
}

/// A value as it is shown: long text is cut, documents become text.
fn cell(value: Json) -> Json {
    let text = match value {
        Json::String(text) => text,
        Json::Array(_) | Json::Object(_) => value.to_string(),
        other => return other,
    };
    if text.len() <= MAX_CELL_BYTES {
        return Json::String(text);
    }
    let end = (0..=MAX_CELL_BYTES)
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    Json::String(format!("{}…", &text[..end]))
}

/// A name as both databases quote it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TRACE;

    /// Makes a database with the given statements and looks `TRACE` up in it.
    async fn look(statements: &[&str], tables: &[&str]) -> RowsFound {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        for statement in statements {
            sqlx::query(AssertSqlSafe((*statement).to_owned()))
                .execute(&mut connection)
                .await
                .unwrap();
        }
        connection.close().await.unwrap();
        let url = format!("sqlite:{}", path.display());
        let tables = tables.iter().map(|&table| table.to_owned()).collect();
        Rows::new(vec![DatabaseSettings { url, tables }])
            .unwrap()
            .find(TRACE)
            .await
    }

    #[tokio::test]
    async fn rows_are_found_by_hex_and_by_uuid_in_every_table_that_has_the_column() {
        let found = look(
            &[
                "CREATE TABLE sessions (id INTEGER, tracking_id TEXT, score REAL, picture BLOB, created_at TEXT, note TEXT)",
                "CREATE TABLE \"odd \"\"name\" (tracking_id TEXT)",
                "CREATE TABLE other (id INTEGER)",
                "INSERT INTO sessions VALUES (1, '07070707070707070707070707070707', 0.5, x'00ff', '2026-11-20 12:00:00', NULL)",
                "INSERT INTO sessions VALUES (2, '07070707-0707-0707-0707-070707070707', 1.5, NULL, '2026-11-19T12:00:00Z', 'x')",
                "INSERT INTO sessions VALUES (3, 'another', 0, NULL, '2020-01-01', '')",
                "INSERT INTO \"odd \"\"name\" VALUES ('07070707070707070707070707070707')",
            ],
            &[],
        )
        .await;
        assert_eq!(found.error, None);
        assert_eq!(found.tables.len(), 2);
        assert_eq!(found.tables[0].table, "odd \"name");
        let sessions = &found.tables[1];
        assert_eq!(
            sessions.columns,
            ["id", "tracking_id", "score", "picture", "created_at", "note"]
        );
        assert_eq!(
            serde_json::to_string(&sessions.rows[0]).unwrap(),
            r#"[1,"07070707070707070707070707070707",0.5,"2 bytes","2026-11-20 12:00:00",null]"#
        );
        assert_eq!(sessions.rows.len(), 2);
        assert_eq!(found.since_unix_nano, parse_rfc3339("2026-11-19T12:00:00Z"));
    }

    #[tokio::test]
    async fn many_rows_and_long_values_are_cut_and_said() {
        let found = look(
            &[
                "CREATE TABLE t (tracking_id TEXT, body TEXT)",
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) \
                 INSERT INTO t SELECT '07070707070707070707070707070707', printf('%.*c', 10000, 'x') FROM n",
            ],
            &["t"],
        )
        .await;
        assert_eq!((found.tables[0].rows.len(), found.tables[0].cut), (MAX_ROWS, true));
        assert_eq!(
            found.tables[0].rows[0][1].as_str().unwrap().chars().count(),
            MAX_CELL_BYTES + 1
        );
    }

    #[tokio::test]
    async fn a_database_that_is_not_there_is_a_sentence() {
        let rows = Rows::new(vec![DatabaseSettings {
            url: "sqlite:/nonexistent/app.db".into(),
            tables: vec![],
        }])
        .unwrap();
        let found = rows.find(TRACE).await;
        assert_eq!(found.tables, []);
        assert!(found.error.unwrap().starts_with("sqlite:/nonexistent/app.db: "));
    }

    #[tokio::test]
    async fn nothing_is_written_even_by_a_table_name() {
        let found = look(&["CREATE TABLE t (tracking_id TEXT)"], &["t; DROP TABLE t"]).await;
        assert!(found.error.unwrap().contains("no such table: t; DROP TABLE t"));
    }

    #[test]
    fn passwords_are_never_shown() {
        let url = "postgres://app:s3cret@db.local:5432/app?sslmode=disable";
        let rows = Rows::new(vec![DatabaseSettings {
            url: url.into(),
            tables: vec![],
        }])
        .unwrap();
        assert_eq!(rows.databases[0].source, "postgres://db.local:5432/app");
        let error = Rows::new(vec![DatabaseSettings {
            url: "hunter2-is-my-password".into(),
            tables: vec![],
        }])
        .unwrap_err();
        assert!(!error.to_string().contains("password"), "{error}");
    }

    #[test]
    fn instants_of_rows_are_read_in_any_unit() {
        for value in [
            Json::from(1_795_201_445u64),
            Json::from(1_795_201_445_000u64),
            Json::from(1_795_201_445_000_000u64),
            Json::from(1_795_201_445_000_000_000u64),
        ] {
            assert_eq!(instant(&value), Some(1_795_201_445_000_000_000), "{value}");
        }
        assert_eq!(instant(&Json::from(7)), None);
    }
}
