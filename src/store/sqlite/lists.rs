//! Lists of operations, hosts, plans and parked copies.

use std::collections::HashMap;
use std::fmt::Write as _;

use opmesh_core::model::{InstanceId, KeyId, Kind, OpId, Position, Record, Scope, SetDigest, Status, UnixMs};
use opmesh_core::replica::{ParkReason, Replica};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};

use super::schema::OWN;
use super::session_reads::head;
use super::value::{Columnar as _, count, counted, stored};
use super::{memory, replica_row};
use crate::store::{
    HostRow, MAX_PAGE_ROWS, OpRow, OpsCursor, OpsPage, OpsQuery, ParkedRow, PlanFacts, StoreError,
};

/// With at most so many rows to choose from, a list sorts them; with more it walks all rows, newest first, until the
/// page is full.
const SORTED_ROWS: u64 = 8192;

/// The columns of an operation, from `operations` or `parked` as `o`, in the order in which [`op_row`] reads them.
macro_rules! op_columns {
    () => {
        "o.local_id, o.owner, o.original_id, o.flow_id, o.original_flow_id, o.modno, o.group_id, o.kind, o.status,
         o.start_unix_ms, o.end_unix_ms, o.received_unix_ms, o.record"
    };
}

/// How many columns those are.
const OP_COLUMNS: usize = 13;

/// Names of owners and scopes of groups, looked up once per list.
#[derive(Debug, Default)]
pub(in crate::store) struct Names {
    owners: HashMap<i64, (KeyId, String)>,
    scopes: HashMap<i64, Scope>,
}

impl Names {
    fn owner(&mut self, connection: &Connection, owner: i64) -> Result<(KeyId, String), StoreError> {
        if let Some(known) = self.owners.get(&owner) {
            return Ok(known.clone());
        }
        let (key, name) = connection
            .prepare_cached(
                "SELECT w.key_id, coalesce(h.name, p.name, w.name) FROM owners AS w
                 LEFT JOIN retired AS r ON r.key_id = w.key_id AND r.how = 'adoption'
                 LEFT JOIN owners AS h ON h.key_id = r.heir LEFT JOIN peers AS p ON p.key_id = r.heir
                 WHERE w.owner = ?1",
            )?
            .query_row([owner], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let known: (KeyId, String) = (KeyId::from_bytes(key), name);
        self.owners.insert(owner, known.clone());
        Ok(known)
    }

    fn scope(&mut self, connection: &Connection, group: i64) -> Result<Scope, StoreError> {
        if let Some(scope) = self.scopes.get(&group) {
            return Ok(scope.clone());
        }
        let scope = connection
            .prepare_cached("SELECT repo_id, plan_id FROM groups WHERE group_id = ?1")?
            .query_row([group], |row| Ok(Scope { repo: row.get(0)?, plan: row.get(1)? }))?;
        self.scopes.insert(group, scope.clone());
        Ok(scope)
    }
}

fn op_row(connection: &Connection, names: &mut Names, row: &Row<'_>) -> Result<OpRow, StoreError> {
    let (owner, host) = names.owner(connection, row.get(1)?)?;
    Ok(OpRow {
        id: row.op_id(0)?,
        owner,
        host,
        original_id: row.op_id(2)?,
        flow_id: row.flow_id(3)?,
        original_flow_id: row.flow_id(4)?,
        modno: row.modno(5)?,
        scope: names.scope(connection, row.get(6)?)?,
        columns: row.columns(7)?,
        received_unix_ms: UnixMs(row.get(11)?),
        record: Record::parse(row.get(12)?).ok(),
    })
}

/// One live operation by its number here.
pub(in crate::store) fn live_row(
    connection: &Connection,
    names: &mut Names,
    id: OpId,
) -> Result<Option<OpRow>, StoreError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        op_columns!(),
        " FROM operations AS o WHERE o.local_id = ?1"
    ))?;
    let mut rows = statement.query([id.to_i64()])?;
    rows.next()?.map(|row| op_row(connection, names, row)).transpose()
}

/// Own operations in progress.
pub(in crate::store) fn unfinished(connection: &Connection) -> Result<Vec<OpRow>, StoreError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        op_columns!(),
        " FROM operations AS o WHERE o.owner = 1 AND o.status = 2 ORDER BY o.local_id"
    ))?;
    let mut rows = statement.query([])?;
    let mut names = Names::default();
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(op_row(connection, &mut names, row)?);
    }
    Ok(found)
}

/// A page of live operations, newest first.
pub(in crate::store) fn operations(connection: &Connection, query: &OpsQuery) -> Result<OpsPage, StoreError> {
    let limit = if query.limit == 0 { MAX_PAGE_ROWS } else { query.limit.min(MAX_PAGE_ROWS) };
    let Some(groups) = chosen_groups(connection, query)? else {
        return Ok(OpsPage { rows: Vec::new(), next: None });
    };
    let (sql, values) = page_statement(query, &groups, limit);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut names = Names::default();
    let mut page = OpsPage { rows: Vec::new(), next: None };
    while let Some(row) = rows.next()? {
        page.rows.push(op_row(connection, &mut names, row)?);
    }
    if page.rows.len() == limit {
        page.next =
            page.rows.last().map(|row| OpsCursor { start_unix_ms: row.columns.start_unix_ms, id: row.id });
    }
    Ok(page)
}

/// The groups that host, repository and plan leave over.
struct Chosen {
    /// None: all of them.
    groups: Option<Vec<i64>>,
    rows: u64,
}

/// None: no group fits.
fn chosen_groups(connection: &Connection, query: &OpsQuery) -> Result<Option<Chosen>, StoreError> {
    if query.hosts.is_empty() && query.repos.is_empty() && query.plans.is_empty() {
        return Ok(Some(Chosen { groups: None, rows: u64::MAX }));
    }
    let mut statement = connection.prepare_cached(
        "SELECT g.group_id, w.key_id, g.repo_id, g.plan_id, g.count
         FROM groups AS g JOIN owners AS w ON w.owner = g.owner",
    )?;
    let mut rows = statement.query([])?;
    let mut groups = Vec::new();
    let mut total = 0_u64;
    while let Some(row) = rows.next()? {
        let (repo, plan): (String, String) = (row.get(2)?, row.get(3)?);
        let fits = (query.hosts.is_empty() || query.hosts.contains(&row.key_id(1)?))
            && (query.repos.is_empty() || query.repos.contains(&repo))
            && (query.plans.is_empty() || query.plans.contains(&plan));
        if fits {
            groups.push(row.get(0)?);
            total = total.saturating_add(counted(row.get(4)?));
        }
    }
    Ok((!groups.is_empty()).then_some(Chosen { groups: Some(groups), rows: total }))
}

fn page_statement(query: &OpsQuery, chosen: &Chosen, limit: usize) -> (String, Vec<Value>) {
    let index = if chosen.rows <= SORTED_ROWS { "operations_by_group" } else { "operations_newest" };
    let mut sql =
        format!(concat!("SELECT ", op_columns!(), " FROM operations AS o INDEXED BY {} WHERE 1"), index);
    let mut values = Vec::new();
    let integers = |numbers: Vec<i64>| numbers.into_iter().map(Value::Integer).collect::<Vec<_>>();
    if let Some(groups) = &chosen.groups {
        one_of(&mut sql, &mut values, "o.group_id", integers(groups.clone()));
    }
    let kinds = query.kinds.iter().map(|kind| i64::from(kind.field())).collect();
    one_of(&mut sql, &mut values, "o.kind", integers(kinds));
    let statuses = query.statuses.iter().map(|status| i64::from(status.number())).collect();
    one_of(&mut sql, &mut values, "o.status", integers(statuses));
    let flows = query.flows.iter().map(|flow| flow.to_i64()).collect();
    one_of(&mut sql, &mut values, "o.flow_id", integers(flows));
    let mut bound = |condition: &str, bounds: &[i64]| {
        sql.push_str(condition);
        values.extend(bounds.iter().map(|bound| Value::Integer(*bound)));
    };
    if let Some(since) = query.since {
        bound(" AND o.start_unix_ms >= ?", &[since.0]);
    }
    if let Some(until) = query.until {
        bound(" AND o.start_unix_ms < ?", &[until.0]);
    }
    if let Some(after) = query.after {
        bound(" AND (o.start_unix_ms, o.local_id) < (?, ?)", &[after.start_unix_ms, after.id.to_i64()]);
    }
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    bound(" ORDER BY o.start_unix_ms DESC, o.local_id DESC LIMIT ?", &[limit]);
    (sql, values)
}

/// Adds ` AND column IN (…)` unless the list is empty.
fn one_of(sql: &mut String, values: &mut Vec<Value>, column: &str, wanted: Vec<Value>) {
    if wanted.is_empty() {
        return;
    }
    let marks = vec!["?"; wanted.len()].join(",");
    // Writing to a String cannot fail.
    write!(sql, " AND {column} IN ({marks})").unwrap_or_default();
    values.extend(wanted);
}

/// Parked copies of an owner with a number above `after`.
pub(in crate::store) fn parked(
    connection: &Connection,
    owner: i64,
    after: u64,
) -> Result<Vec<ParkedRow>, StoreError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        op_columns!(),
        ", o.parked_id, o.reason, o.parked_unix_ms
         FROM parked AS o WHERE o.owner = ?1 AND o.parked_id > ?2 ORDER BY o.parked_id LIMIT ?3"
    ))?;
    let limit = i64::try_from(MAX_PAGE_ROWS).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![owner, count(after), limit])?;
    let mut names = Names::default();
    let mut copies = Vec::new();
    while let Some(row) = rows.next()? {
        let reason: String = row.get(OP_COLUMNS + 1)?;
        copies.push(ParkedRow {
            parked_id: counted(row.get(OP_COLUMNS)?),
            reason: stored("park reason", ParkReason::from_name(&reason).ok_or(reason))?,
            parked_unix_ms: UnixMs(row.get(OP_COLUMNS + 2)?),
            operation: op_row(connection, &mut names, row)?,
        });
    }
    Ok(copies)
}

/// An owner as `owners` and `peers` name it.
struct Owner {
    number: i64,
    key: KeyId,
    name: String,
    instance: Option<InstanceId>,
    seen: Option<UnixMs>,
}

fn owners(connection: &Connection) -> Result<Vec<Owner>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT w.owner, w.key_id, w.name, coalesce(p.instance, m.instance), p.last_seen_unix_ms
         FROM owners AS w LEFT JOIN peers AS p ON p.key_id = w.key_id LEFT JOIN meta AS m ON w.owner = 1
         ORDER BY w.owner > 1, w.name",
    )?;
    let mut rows = statement.query([])?;
    let mut owners = Vec::new();
    while let Some(row) = rows.next()? {
        let instance: Option<String> = row.get(3)?;
        owners.push(Owner {
            number: row.get(0)?,
            key: row.key_id(1)?,
            name: row.get(2)?,
            instance: instance.and_then(|text| text.parse().ok()),
            seen: row.get::<_, Option<i64>>(4)?.map(UnixMs),
        });
    }
    Ok(owners)
}

/// All owners, this instance first.
pub(in crate::store) fn hosts(connection: &Connection) -> Result<Vec<HostRow>, StoreError> {
    owners(connection)?.into_iter().map(|owner| host(connection, owner)).collect()
}

fn host(connection: &Connection, owner: Owner) -> Result<HostRow, StoreError> {
    let is_self = owner.number == OWN;
    let replica = if is_self { Replica::default() } else { replica_row::load(connection, owner.number)? };
    let position: Position = if is_self { head(connection)? } else { replica.cursor };
    let set: SetDigest = memory::stored_total(connection, owner.number)?;
    let plans = plans_of(connection, &owner)?;
    Ok(HostRow {
        owner: owner.key,
        name: owner.name,
        instance: owner.instance,
        is_self,
        set,
        position,
        parked: parked_count(connection, owner.number, None)?,
        guarded: parked_count(connection, owner.number, Some(ParkReason::Guard))?,
        last_run_unix_ms: last_run(connection, owner.number)?,
        last_success_unix_ms: plans.iter().filter_map(|plan| plan.last_success_unix_ms).max(),
        last_seen_unix_ms: owner.seen,
        quarantined: replica.quarantined,
        conflict: replica.conflict,
        catching_up: replica.diff.is_some(),
    })
}

/// How many copies of an owner are parked, for one reason or all.
pub(in crate::store) fn parked_count(
    connection: &Connection,
    owner: i64,
    reason: Option<ParkReason>,
) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT count(*) FROM parked INDEXED BY parked_by_reason
         WHERE owner = ?1 AND (?2 IS NULL OR reason = ?2)",
    )?;
    Ok(counted(statement.query_row(params![owner, reason.map(ParkReason::name)], |row| row.get(0))?))
}

/// What freshness is judged by.
pub(in crate::store) fn plans(
    connection: &Connection,
    wanted: Option<KeyId>,
) -> Result<Vec<PlanFacts>, StoreError> {
    let mut facts = Vec::new();
    for owner in owners(connection)?.iter().filter(|owner| wanted.is_none_or(|key| key == owner.key)) {
        facts.extend(plans_of(connection, owner)?);
    }
    Ok(facts)
}

fn plans_of(connection: &Connection, owner: &Owner) -> Result<Vec<PlanFacts>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT group_id, repo_id, plan_id, first_seen_unix_ms FROM groups WHERE owner = ?1 AND count > 0
         ORDER BY repo_id, plan_id",
    )?;
    let mut rows = statement.query([owner.number])?;
    let mut facts = Vec::new();
    while let Some(row) = rows.next()? {
        let scope = Scope { repo: row.get(1)?, plan: row.get(2)? };
        facts.push(plan(connection, owner.key, scope, row.get(0)?, UnixMs(row.get(3)?))?);
    }
    Ok(facts)
}

fn plan(
    connection: &Connection,
    owner: KeyId,
    scope: Scope,
    group: i64,
    first_seen: UnixMs,
) -> Result<PlanFacts, StoreError> {
    let mut newest = Vec::new();
    for (status, ..) in Status::ALL {
        newest.extend(newest_of(connection, group, Kind::Backup, status)?.map(|run| (status, run)));
    }
    let latest = |fits: &dyn Fn(Status) -> bool| {
        newest.iter().filter(|(status, _)| fits(*status)).max_by_key(|(_, run)| run.start)
    };
    let started = latest(&|status| status != Status::Pending);
    let success = latest(&|status| matches!(status, Status::Success | Status::Warning));
    Ok(PlanFacts {
        owner,
        scope,
        first_seen_unix_ms: first_seen,
        last_start_unix_ms: started.map(|(_, run)| UnixMs(run.start)),
        last_finished: latest(&|status| {
            !matches!(status, Status::Pending | Status::InProgress | Status::Unknown)
        })
        .map(|(status, _)| *status),
        last_success_unix_ms: success.map(|(_, run)| run.over()),
        running: started.is_some_and(|(status, _)| *status == Status::InProgress),
    })
}

/// When an operation ran. A time that nobody noted is 0.
struct Run {
    start: i64,
    end: i64,
    received: i64,
}

impl Run {
    /// When it was over: its end, else its start, and never later than it was received.
    fn over(&self) -> UnixMs {
        let noted = [self.end, self.start].into_iter().find(|time| *time != 0);
        UnixMs(noted.unwrap_or(self.received).min(self.received))
    }
}

fn newest_of(
    connection: &Connection,
    group: i64,
    kind: Kind,
    status: Status,
) -> Result<Option<Run>, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT start_unix_ms, end_unix_ms, received_unix_ms FROM operations INDEXED BY operations_by_group
             WHERE group_id = ?1 AND kind = ?2 AND status = ?3 ORDER BY start_unix_ms DESC LIMIT 1",
        )?
        .query_row(params![group, kind.field(), status.number()], |row| {
            Ok(Run { start: row.get(0)?, end: row.get(1)?, received: row.get(2)? })
        })
        .optional()?)
}

/// The start of an owner's newest operation, from the ends of the index.
fn last_run(connection: &Connection, owner: i64) -> Result<Option<UnixMs>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT group_id FROM groups WHERE owner = ?1 AND count > 0")?;
    let mut rows = statement.query([owner])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let group = row.get(0)?;
        let kinds = Kind::ALL.iter().map(|(kind, ..)| *kind).chain([Kind::Unknown]);
        for kind in kinds {
            for (status, ..) in Status::ALL {
                last = last.max(newest_of(connection, group, kind, status)?.map(|run| run.start));
            }
        }
    }
    Ok(last.map(UnixMs))
}
