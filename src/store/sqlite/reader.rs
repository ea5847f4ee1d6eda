//! Threads that read: each has a connection of its own and answers one short transaction at a time. What they see is
//! committed and on the disk.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use opmesh_core::model::Scope;
use opmesh_core::permission::View;
use rusqlite::Connection;

use super::queue::{Consumer, Waited};
use crate::store::StoreError;

/// How long a reader sleeps at a time; it is woken by work.
const IDLE: Duration = Duration::from_mins(10);

/// Something that a reader performs.
pub(super) type Question = Box<dyn FnOnce(&mut Reader) + Send>;

/// One reading connection.
pub(super) struct Reader {
    pub(super) connection: Connection,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Serves until all callers are gone.
    pub(super) fn run(mut self, questions: Consumer<Question>) {
        loop {
            match questions.wait(IDLE) {
                Waited::Item(question) => question(&mut self),
                Waited::Nothing => {}
                Waited::Ended => break questions.close(),
            }
        }
    }

    /// Runs one reading transaction.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.connection.prepare_cached("BEGIN DEFERRED")?.execute([])?;
        let outcome = work(&self.connection);
        let ended = self.connection.prepare_cached("COMMIT").and_then(|mut statement| statement.execute([]));
        let value = outcome?;
        ended?;
        Ok(value)
    }
}

/// Which groups a view includes, decided once per group and read.
pub(super) struct Visible<'v> {
    view: &'v View,
    decided: HashMap<i64, bool>,
}

impl<'v> Visible<'v> {
    pub(super) fn through(view: &'v View) -> Self {
        Self { view, decided: HashMap::new() }
    }

    /// Whether the operations of a group are in the view.
    pub(super) fn shows(&mut self, connection: &Connection, group: i64) -> Result<bool, StoreError> {
        if let Some(shown) = self.decided.get(&group) {
            return Ok(*shown);
        }
        let scope = connection
            .prepare_cached("SELECT repo_id, plan_id FROM groups WHERE group_id = ?1")?
            .query_row([group], |row| Ok(Scope { repo: row.get(0)?, plan: row.get(1)? }))?;
        let shown = self.view.includes(&scope);
        self.decided.insert(group, shown);
        Ok(shown)
    }
}
