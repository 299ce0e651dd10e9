//! The services' tables, in SQLite or PostgreSQL. Every row that a request writes carries its tracking ID.

use anyhow::{Context, Result};
use serde::Serialize;
use trackline_sdk::tracking_id;
use trackline_sdk_axum::db::{Database, Error, Row};

use crate::environment;
use crate::failure::{Failure, Inject};
use crate::workflow::Node;

/// Newest workflows that a list or the scheduler sees.
const LISTED: i64 = 20;
const TABLES: [&str; 6] = [
    "CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, user_id TEXT NOT NULL, tracking_id TEXT NOT NULL, created_at TEXT NOT NULL, status TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS workflows (id TEXT PRIMARY KEY, name TEXT NOT NULL, nodes TEXT NOT NULL, tracking_id TEXT NOT NULL, created_at TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS workflow_executions (id TEXT PRIMARY KEY, workflow_id TEXT NOT NULL, tracking_id TEXT NOT NULL, status TEXT NOT NULL, created_at TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS sessions_by_tracking_id ON sessions (tracking_id)",
    "CREATE INDEX IF NOT EXISTS workflows_by_tracking_id ON workflows (tracking_id)",
    "CREATE INDEX IF NOT EXISTS workflow_executions_by_tracking_id ON workflow_executions (tracking_id)",
];

#[derive(Clone)]
pub struct Tables {
    database: Database,
}

#[derive(Serialize)]
pub struct Session {
    pub session_id: String,
    pub user_id: String,
    pub status: String,
    pub tracking_id: String,
}

#[derive(Serialize)]
pub struct Workflow {
    pub workflow_id: String,
    pub name: String,
    pub nodes: Vec<Node>,
    pub tracking_id: String,
}

impl Tables {
    /// Connects and makes the tables where they are missing.
    pub async fn open() -> Result<Self> {
        Self::open_at(&environment::text("DATABASE_URL", "sqlite:./demo.sqlite?mode=rwc")).await
    }

    async fn open_at(url: &str) -> Result<Self> {
        let database = Database::connect(url).await.context("connecting to the database")?;
        make_tables(&database).await.context("making the tables")?;
        Ok(Self { database })
    }

    pub async fn new_session(&self, user_id: &str) -> Result<Session, Failure> {
        let session = Session {
            session_id: new_id("s"),
            user_id: user_id.to_owned(),
            status: "active".to_owned(),
            tracking_id: tracking_id().to_string(),
        };
        self.database
            .query("INSERT INTO sessions (id, user_id, tracking_id, created_at, status) VALUES ($1, $2, $3, $4, $5)")
            .bind(session.session_id.clone())
            .bind(session.user_id.clone())
            .bind(session.tracking_id.clone())
            .bind(now())
            .bind(session.status.clone())
            .execute()
            .await
            .map_err(failed)?;
        Ok(session)
    }

    pub async fn session(&self, id: &str) -> Result<Session, Failure> {
        let query = self
            .database
            .query("SELECT id, user_id, status, tracking_id FROM sessions WHERE id = $1");
        let row = query.bind(id.to_owned()).fetch_optional().await.map_err(failed)?;
        let row = row.ok_or_else(|| Failure::not_found("session", id))?;
        let read = |column| row.get::<String>(column).map_err(failed);
        Ok(Session {
            session_id: read("id")?,
            user_id: read("user_id")?,
            status: read("status")?,
            tracking_id: read("tracking_id")?,
        })
    }

    pub async fn new_workflow(&self, name: &str, nodes: Vec<Node>) -> Result<Workflow, Failure> {
        let workflow = Workflow {
            workflow_id: new_id("wf"),
            name: name.to_owned(),
            nodes,
            tracking_id: tracking_id().to_string(),
        };
        let nodes = serde_json::to_string(&workflow.nodes).map_err(|error| Failure::internal("Encoding", error))?;
        self.database
            .query("INSERT INTO workflows (id, name, nodes, tracking_id, created_at) VALUES ($1, $2, $3, $4, $5)")
            .bind(workflow.workflow_id.clone())
            .bind(workflow.name.clone())
            .bind(nodes)
            .bind(workflow.tracking_id.clone())
            .bind(now())
            .execute()
            .await
            .map_err(failed)?;
        Ok(workflow)
    }

    pub async fn workflow(&self, id: &str) -> Result<Workflow, Failure> {
        let query = self
            .database
            .query("SELECT id, name, nodes, tracking_id FROM workflows WHERE id = $1");
        let row = query.bind(id.to_owned()).fetch_optional().await.map_err(failed)?;
        workflow(&row.ok_or_else(|| Failure::not_found("workflow", id))?)
    }

    /// The newest ones first.
    pub async fn workflows(&self) -> Result<Vec<Workflow>, Failure> {
        let query = self
            .database
            .query("SELECT id, name, nodes, tracking_id FROM workflows ORDER BY created_at DESC LIMIT $1");
        let rows = query.bind(LISTED).fetch_all().await.map_err(failed)?;
        rows.iter().map(workflow).collect()
    }

    /// Stores that an execution has begun; its id.
    pub async fn begin_execution(&self, workflow_id: &str) -> Result<String, Failure> {
        let id = new_id("ex");
        self.database
            .query("INSERT INTO workflow_executions (id, workflow_id, tracking_id, status, created_at) VALUES ($1, $2, $3, $4, $5)")
            .bind(id.clone())
            .bind(workflow_id.to_owned())
            .bind(tracking_id().to_string())
            .bind("running".to_owned())
            .bind(now())
            .execute()
            .await
            .map_err(failed)?;
        Ok(id)
    }

    pub async fn end_execution(&self, id: &str, status: &str) -> Result<(), Failure> {
        let query = self
            .database
            .query("UPDATE workflow_executions SET status = $1 WHERE id = $2");
        query
            .bind(status.to_owned())
            .bind(id.to_owned())
            .execute()
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// Stores what a node did; fails on purpose where that is asked for.
    pub async fn record_node(&self, execution: &str, inject: Option<Inject>) -> Result<(), Failure> {
        let statement = if inject == Some(Inject::Database) {
            "UPDATE node_results SET seen = 1 WHERE execution_id = $1"
        } else {
            "SELECT status FROM workflow_executions WHERE id = $1"
        };
        self.database
            .query(statement)
            .bind(execution.to_owned())
            .fetch_optional()
            .await
            .map_err(failed)?;
        Ok(())
    }
}

async fn make_tables(database: &Database) -> Result<(), Error> {
    if database.system() == "postgresql" {
        // Three services start at once, and `IF NOT EXISTS` alone lets two of them collide in PostgreSQL's catalog.
        let mut making = database.begin().await?;
        making.query("SELECT pg_advisory_xact_lock(8000)").execute().await?;
        for statement in TABLES {
            making.query(statement).execute().await?;
        }
        return making.commit().await;
    }
    for statement in TABLES {
        database.query(statement).execute().await?;
    }
    Ok(())
}

fn workflow(row: &Row) -> Result<Workflow, Failure> {
    let read = |column| row.get::<String>(column).map_err(failed);
    Ok(Workflow {
        workflow_id: read("id")?,
        name: read("name")?,
        nodes: serde_json::from_str(&read("nodes")?).map_err(|error| Failure::internal("Decoding", error))?,
        tracking_id: read("tracking_id")?,
    })
}

fn failed(error: Error) -> Failure {
    Failure::internal("DatabaseError", error)
}

/// Short, unique and recognisable by its beginning.
fn new_id(kind: &str) -> String {
    format!("{kind}-{:012x}", fastrand::u64(..) >> 16)
}

/// Seconds since 1970 with microseconds, as text that sorts.
fn now() -> String {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{}.{:06}", since.as_secs(), since.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the services do with their tables, from three of them that start at once.
    async fn check(url: &str) {
        let (gateway, engine, scheduler) =
            tokio::join!(Tables::open_at(url), Tables::open_at(url), Tables::open_at(url));
        let (gateway, engine) = (gateway.expect("opened"), engine.expect("opened"));
        let scheduler = scheduler.expect("opened");

        let session = gateway.new_session("u-7").await.expect("stored");
        let found = engine.session(&session.session_id).await.expect("found");
        assert_eq!((found.user_id.as_str(), found.status.as_str()), ("u-7", "active"));
        assert_eq!(found.tracking_id, session.tracking_id);
        assert!(gateway.session("s-none").await.is_err());

        let nodes = crate::workflow::design("a short wish");
        let workflow = engine.new_workflow("triage", nodes).await.expect("stored");
        let listed = scheduler.workflows().await.expect("listed");
        assert_eq!(listed[0].workflow_id, workflow.workflow_id);
        assert_eq!(listed[0].nodes.len(), workflow.nodes.len());

        let execution = engine.begin_execution(&workflow.workflow_id).await.expect("stored");
        assert!(engine.record_node(&execution, None).await.is_ok());
        assert!(engine.record_node(&execution, Some(Inject::Database)).await.is_err());
        assert!(engine.end_execution(&execution, "completed").await.is_ok());
        let query = gateway
            .database
            .query("SELECT status FROM workflow_executions WHERE id = $1");
        let row = query.bind(execution).fetch_one().await.expect("the row");
        assert_eq!(row.get::<String>("status").expect("text"), "completed");
    }

    #[tokio::test]
    async fn tables_in_sqlite() {
        let path = std::env::temp_dir().join(format!("trackline-demo-{}.sqlite", std::process::id()));
        check(&format!("sqlite:{}?mode=rwc", path.display())).await;
        for suffix in ["", "-wal", "-shm"] {
            // Some of these exist only while the database is open.
            let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
        }
    }

    #[tokio::test]
    async fn tables_in_postgresql() {
        let Ok(url) = std::env::var("TRACKLINE_TEST_POSTGRES") else {
            // Straight to standard error: what a passing test prints with a macro is not shown.
            let why = "skipped: TRACKLINE_TEST_POSTGRES names no database\n";
            let _ = std::io::Write::write_all(&mut std::io::stderr(), why.as_bytes());
            return;
        };
        let database = Database::connect(&url).await.expect("a database");
        // A schema of its own makes the tables new each time.
        for statement in ["DROP SCHEMA IF EXISTS demo_test CASCADE", "CREATE SCHEMA demo_test"] {
            database.query(statement).execute().await.expect("a schema");
        }
        let join = if url.contains('?') { '&' } else { '?' };
        check(&format!("{url}{join}options[search_path]=demo_test")).await;
    }
}
