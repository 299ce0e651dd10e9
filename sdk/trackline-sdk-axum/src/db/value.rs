//! Values that go into queries and come out of rows, the same for both databases.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Postgres, Row as _};

use super::Error;

/// A parameter. An absent value keeps its type, which PostgreSQL wants to know of a NULL too.
#[derive(Debug, Clone, PartialEq)]
pub enum Param {
    /// Truth value.
    Bool(Option<bool>),
    /// Integer.
    Int(Option<i64>),
    /// Floating point.
    Real(Option<f64>),
    /// Text.
    Text(Option<String>),
    /// Bytes.
    Bytes(Option<Vec<u8>>),
}

macro_rules! params {
    ($($from:ty => $variant:ident($convert:expr)),+ $(,)?) => {$(
        impl From<$from> for Param {
            fn from(value: $from) -> Param {
                Param::$variant(Some($convert(value)))
            }
        }
        impl From<Option<$from>> for Param {
            fn from(value: Option<$from>) -> Param {
                Param::$variant(value.map($convert))
            }
        }
    )+};
}

params! {
    bool => Bool(std::convert::identity),
    i64 => Int(std::convert::identity),
    i32 => Int(i64::from),
    u32 => Int(i64::from),
    f64 => Real(std::convert::identity),
    String => Text(std::convert::identity),
    &str => Text(str::to_owned),
    &String => Text(String::clone),
    Vec<u8> => Bytes(std::convert::identity),
    trackline_sdk::TrackingId => Text(|id: trackline_sdk::TrackingId| id.to_string()),
    crate::TrackingId => Text(|id: crate::TrackingId| id.to_string()),
}

/// One row of a result.
#[derive(Debug)]
pub struct Row(Inner);

#[derive(Debug)]
enum Inner {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl From<SqliteRow> for Row {
    fn from(row: SqliteRow) -> Row {
        Row(Inner::Sqlite(row))
    }
}

impl From<PgRow> for Row {
    fn from(row: PgRow) -> Row {
        Row(Inner::Postgres(row))
    }
}

impl Row {
    pub(super) fn all<R: Into<Row>>(rows: Vec<R>) -> Vec<Row> {
        rows.into_iter().map(Into::into).collect()
    }

    /// The value of the named column; `Option<T>` where it may be NULL.
    pub fn get<T: Column>(&self, column: &str) -> Result<T, Error> {
        Ok(match &self.0 {
            Inner::Sqlite(row) => T::from_sqlite(row, column)?,
            Inner::Postgres(row) => T::from_postgres(row, column)?,
        })
    }
}

/// A type that a column's value can be read as: `bool`, `i64`, `f64`, `String`, `Vec<u8>`, and each in an `Option`.
pub trait Column: Sized {
    #[doc(hidden)]
    fn from_sqlite(row: &SqliteRow, column: &str) -> Result<Self, sqlx::Error>;
    #[doc(hidden)]
    fn from_postgres(row: &PgRow, column: &str) -> Result<Self, sqlx::Error>;
}

/// A NULL where a value was asked for.
fn absent(column: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: "the value is NULL; read it as an Option".into(),
    }
}

// SQLite's driver reads a NULL as 0 or as an empty text, so that the plain types go through `Option` too.
macro_rules! columns {
    ($($type:ty => $postgres:path),+ $(,)?) => {$(
        impl Column for Option<$type> {
            fn from_sqlite(row: &SqliteRow, column: &str) -> Result<Self, sqlx::Error> {
                row.try_get(column)
            }
            fn from_postgres(row: &PgRow, column: &str) -> Result<Self, sqlx::Error> {
                $postgres(row, column)
            }
        }
        impl Column for $type {
            fn from_sqlite(row: &SqliteRow, column: &str) -> Result<Self, sqlx::Error> {
                Option::<$type>::from_sqlite(row, column)?.ok_or_else(|| absent(column))
            }
            fn from_postgres(row: &PgRow, column: &str) -> Result<Self, sqlx::Error> {
                Option::<$type>::from_postgres(row, column)?.ok_or_else(|| absent(column))
            }
        }
    )+};
}

columns! {
    bool => plain,
    i64 => integer,
    f64 => plain,
    String => plain,
    Vec<u8> => plain,
}

fn plain<'r, T>(row: &'r PgRow, column: &str) -> Result<Option<T>, sqlx::Error>
where
    T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    row.try_get(column)
}

/// PostgreSQL's integers have three widths, and each wants its own type.
fn integer(row: &PgRow, column: &str) -> Result<Option<i64>, sqlx::Error> {
    row.try_get::<Option<i64>, _>(column)
        .or_else(|_| Ok(row.try_get::<Option<i32>, _>(column)?.map(i64::from)))
        .or_else(|_: sqlx::Error| Ok(row.try_get::<Option<i16>, _>(column)?.map(i64::from)))
}
