//! SQLite and PostgreSQL through one small interface whose queries are spans (SPEC S7).
//!
//! A query's span has its text and what it came to (rows, duration, error), never its parameters.
//!
//! ```no_run
//! # async fn example() -> Result<(), trackline_sdk_axum::db::Error> {
//! use trackline_sdk_axum::db::Database;
//!
//! let db = Database::connect("sqlite://demo.db").await?;
//! db.query("INSERT INTO sessions (id, user_id) VALUES ($1, $2)")
//!     .bind("s-1")
//!     .bind("u-7")
//!     .execute()
//!     .await?;
//! let rows = db.query("SELECT user_id FROM sessions WHERE id = $1").bind("s-1").fetch_all().await?;
//! let user: String = rows[0].get("user_id")?;
//! # Ok(())
//! # }
//! ```

mod query;
mod statement;
mod value;

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{Postgres, Sqlite};

pub use query::Query;
pub use value::{Column, Param, Row};

use query::On;

/// What went wrong with a database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL names no database that is known here.
    #[error(
        "the database URL {url:?} begins with neither sqlite: nor postgres: (examples: sqlite://demo.db, \
         postgres://user@localhost/demo)"
    )]
    UnknownKind {
        /// The URL without user and password.
        url: String,
    },
    /// What sqlx says.
    #[error(transparent)]
    Sqlx(#[from] sqlx::Error),
}

/// Connections in a pool: SQLite writes one at a time anyway, PostgreSQL's default limit of 100 is shared by services.
const MAX_CONNECTIONS: u32 = 8;
/// How long a writer waits for another in SQLite.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a query waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A database's connections. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct Database {
    pool: Pool,
    about: About,
}

#[derive(Debug, Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// What each query's span says about its database.
#[derive(Debug, Clone, Default)]
struct About {
    system: &'static str,
    namespace: Option<String>,
    host: Option<String>,
    port: Option<u16>,
}

impl Database {
    /// Connects to `sqlite://file.db` (made if missing), `sqlite::memory:` or `postgres://…`.
    pub async fn connect(url: &str) -> Result<Database, Error> {
        if url.starts_with("sqlite:") {
            let memory = url.contains(":memory:") || url.contains("mode=memory");
            let mut options = SqliteConnectOptions::from_str(url)?
                .create_if_missing(true)
                .busy_timeout(BUSY_TIMEOUT)
                .foreign_keys(true);
            if !memory {
                options = options.journal_mode(SqliteJournalMode::Wal);
            }
            let file = options.get_filename().display().to_string();
            let pool = SqlitePoolOptions::new()
                // Each connection to memory is a database of its own.
                .max_connections(if memory { 1 } else { MAX_CONNECTIONS })
                .acquire_timeout(ACQUIRE_TIMEOUT);
            let pool = if memory {
                pool.idle_timeout(None).max_lifetime(None)
            } else {
                pool
            };
            Ok(Database {
                pool: Pool::Sqlite(pool.connect_with(options).await?),
                about: About {
                    system: "sqlite",
                    namespace: Some(file),
                    ..About::default()
                },
            })
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let options = PgConnectOptions::from_str(url)?;
            let about = About {
                system: "postgresql",
                namespace: options.get_database().map(str::to_owned),
                host: Some(options.get_host().to_owned()),
                port: Some(options.get_port()),
            };
            let pool = PgPoolOptions::new()
                .max_connections(MAX_CONNECTIONS)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .connect_with(options)
                .await?;
            Ok(Database {
                pool: Pool::Postgres(pool),
                about,
            })
        } else {
            let url = match url.split_once('@') {
                Some((_, rest)) => format!("…@{rest}"),
                None => url.to_owned(),
            };
            Err(Error::UnknownKind { url })
        }
    }

    /// `sqlite` or `postgresql`, for the few statements in which they differ.
    pub fn system(&self) -> &'static str {
        self.about.system
    }

    /// Begins a query. Its parameters are written `$1`, `$2`, …, which both databases understand.
    pub fn query(&self, sql: &'static str) -> Query<'_> {
        let on = match &self.pool {
            Pool::Sqlite(pool) => On::SqlitePool(pool),
            Pool::Postgres(pool) => On::PostgresPool(pool),
        };
        Query::new(on, &self.about, sql)
    }

    /// Begins a transaction. Dropped without [`Transaction::commit`], it changes nothing.
    pub async fn begin(&self) -> Result<Transaction<'_>, Error> {
        let inner = match &self.pool {
            Pool::Sqlite(pool) => Inner::Sqlite(pool.begin().await?),
            Pool::Postgres(pool) => Inner::Postgres(pool.begin().await?),
        };
        Ok(Transaction {
            inner,
            about: &self.about,
        })
    }

    /// Closes all connections after their queries have ended.
    pub async fn close(&self) {
        match &self.pool {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
    }
}

/// Several queries that take effect together.
#[must_use = "a transaction takes effect with `commit`"]
#[derive(Debug)]
pub struct Transaction<'d> {
    inner: Inner,
    about: &'d About,
}

#[derive(Debug)]
enum Inner {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

impl Transaction<'_> {
    /// Begins a query inside the transaction.
    pub fn query(&mut self, sql: &'static str) -> Query<'_> {
        let on = match &mut self.inner {
            Inner::Sqlite(transaction) => On::Sqlite(transaction),
            Inner::Postgres(transaction) => On::Postgres(transaction),
        };
        Query::new(on, self.about, sql)
    }

    /// Makes the changes permanent.
    pub async fn commit(self) -> Result<(), Error> {
        match self.inner {
            Inner::Sqlite(transaction) => transaction.commit().await?,
            Inner::Postgres(transaction) => transaction.commit().await?,
        }
        Ok(())
    }

    /// Undoes the changes.
    pub async fn rollback(self) -> Result<(), Error> {
        match self.inner {
            Inner::Sqlite(transaction) => transaction.rollback().await?,
            Inner::Postgres(transaction) => transaction.rollback().await?,
        }
        Ok(())
    }
}
