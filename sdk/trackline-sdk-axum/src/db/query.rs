//! One query and its span.

use std::future::Future;

use opentelemetry::KeyValue;
use opentelemetry::trace::TraceContextExt;
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection};
use trackline_sdk::{ActiveSpan, SpanKind, span};

use super::statement::{self, Statement};
use super::value::{Param, Row};
use super::{About, Error};

/// Where a query runs.
pub(super) enum On<'c> {
    SqlitePool(&'c SqlitePool),
    PostgresPool(&'c PgPool),
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

/// A query being put together.
#[must_use = "a query runs with `execute` or one of the `fetch` methods"]
pub struct Query<'c> {
    on: On<'c>,
    about: &'c About,
    sql: &'static str,
    params: Vec<Param>,
}

macro_rules! bound {
    ($database:ty, $query:expr) => {{
        let mut query = sqlx::query::<$database>($query.sql);
        for param in $query.params {
            query = match param {
                Param::Bool(value) => query.bind(value),
                Param::Int(value) => query.bind(value),
                Param::Real(value) => query.bind(value),
                Param::Text(value) => query.bind(value),
                Param::Bytes(value) => query.bind(value),
            };
        }
        query
    }};
}

impl<'c> Query<'c> {
    pub(super) fn new(on: On<'c>, about: &'c About, sql: &'static str) -> Query<'c> {
        Query {
            on,
            about,
            sql,
            params: Vec::new(),
        }
    }

    /// The value of the next parameter.
    pub fn bind(mut self, value: impl Into<Param>) -> Self {
        self.params.push(value.into());
        self
    }

    /// Runs the query and returns how many rows it changed.
    pub async fn execute(self) -> Result<u64, Error> {
        let span = self.span();
        let outcome = in_span(&span, async {
            Ok(match self.on {
                On::SqlitePool(on) => bound!(Sqlite, self).execute(on).await?.rows_affected(),
                On::Sqlite(on) => bound!(Sqlite, self).execute(on).await?.rows_affected(),
                On::PostgresPool(on) => bound!(Postgres, self).execute(on).await?.rows_affected(),
                On::Postgres(on) => bound!(Postgres, self).execute(on).await?.rows_affected(),
            })
        })
        .await;
        end(&span, &outcome, |rows| ("db.response.affected_rows", *rows));
        outcome
    }

    /// Runs the query and returns its rows.
    pub async fn fetch_all(self) -> Result<Vec<Row>, Error> {
        let span = self.span();
        let outcome: Result<Vec<Row>, Error> = in_span(&span, async {
            Ok(match self.on {
                On::SqlitePool(on) => Row::all(bound!(Sqlite, self).fetch_all(on).await?),
                On::Sqlite(on) => Row::all(bound!(Sqlite, self).fetch_all(on).await?),
                On::PostgresPool(on) => Row::all(bound!(Postgres, self).fetch_all(on).await?),
                On::Postgres(on) => Row::all(bound!(Postgres, self).fetch_all(on).await?),
            })
        })
        .await;
        end(&span, &outcome, |rows| ("db.response.returned_rows", rows.len() as u64));
        outcome
    }

    /// Runs the query and returns its first row, if there is one.
    pub async fn fetch_optional(self) -> Result<Option<Row>, Error> {
        let span = self.span();
        let outcome: Result<Option<Row>, Error> = in_span(&span, async {
            Ok(match self.on {
                On::SqlitePool(on) => bound!(Sqlite, self).fetch_optional(on).await?.map(Row::from),
                On::Sqlite(on) => bound!(Sqlite, self).fetch_optional(on).await?.map(Row::from),
                On::PostgresPool(on) => bound!(Postgres, self).fetch_optional(on).await?.map(Row::from),
                On::Postgres(on) => bound!(Postgres, self).fetch_optional(on).await?.map(Row::from),
            })
        })
        .await;
        end(&span, &outcome, |row| {
            ("db.response.returned_rows", u64::from(row.is_some()))
        });
        outcome
    }

    /// Runs the query and returns its first row; no row is an error.
    pub async fn fetch_one(self) -> Result<Row, Error> {
        self.fetch_optional()
            .await?
            .ok_or(Error::Sqlx(sqlx::Error::RowNotFound))
    }

    fn span(&self) -> ActiveSpan {
        let Statement { operation, collection } = statement::describe(self.sql);
        let name = match (&operation, &collection) {
            (Some(operation), Some(collection)) => format!("{operation} {collection}"),
            (Some(operation), None) => operation.clone(),
            _ => self.about.system.to_owned(),
        };
        let mut builder = span(name)
            .kind(SpanKind::Client)
            .attr("db.system.name", self.about.system)
            .attr("db.query.text", statement::without_literals(self.sql));
        for (key, value) in [
            ("db.operation.name", operation),
            ("db.collection.name", collection),
            ("db.namespace", self.about.namespace.clone()),
            ("server.address", self.about.host.clone()),
        ] {
            if let Some(value) = value {
                builder = builder.attr(key, value);
            }
        }
        if let Some(port) = self.about.port {
            builder = builder.attr("server.port", i64::from(port));
        }
        builder.start()
    }
}

async fn in_span<T>(span: &ActiveSpan, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    span.run(work).await
}

fn end<T>(span: &ActiveSpan, outcome: &Result<T, Error>, rows: impl Fn(&T) -> (&'static str, u64)) {
    match outcome {
        Ok(result) => {
            let (key, count) = rows(result);
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            span.context().span().set_attribute(KeyValue::new(key, count));
        }
        Err(error) => {
            let (kind, code) = classify(error);
            if let Some(code) = code {
                span.set("db.response.status_code", code);
            }
            span.fail(&kind, &error.to_string());
        }
    }
    span.end();
}

/// `error.type` of a failure, and the database's own code where it gave one.
fn classify(error: &Error) -> (String, Option<String>) {
    let Error::Sqlx(error) = error else {
        return ("configuration".to_owned(), None);
    };
    let kind = match error {
        sqlx::Error::Database(database) => {
            let code = database.code().map(|code| code.into_owned());
            return (code.clone().unwrap_or_else(|| "database".to_owned()), code);
        }
        sqlx::Error::PoolTimedOut => "pool_timeout",
        sqlx::Error::PoolClosed => "pool_closed",
        sqlx::Error::Io(_) => "connection",
        sqlx::Error::Protocol(_) => "protocol",
        sqlx::Error::RowNotFound => "row_not_found",
        sqlx::Error::ColumnNotFound(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => "decode",
        sqlx::Error::Encode(_) => "encode",
        _ => "sqlx",
    };
    (kind.to_owned(), None)
}
