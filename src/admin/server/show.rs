//! What the store holds, as messages. Nothing is decided here.

use opmesh_core::model::{KeyId, Position, SetDigest, UnixMs};

use crate::admin::pb;
use crate::record::{Details, Draft};
use crate::store::{AuditRecord, BadOperation, HostCheck, OpRow, ParkedRow, Token};

pub(super) fn operation(row: &OpRow) -> pb::Operation {
    let columns = &row.columns;
    let said = row.record.as_ref().map(Draft::decode);
    let shown = pb::Operation {
        id: row.id.get(),
        host: row.host.clone(),
        owner_key_id: row.owner.to_string(),
        original_id: row.original_id.get(),
        flow_id: row.flow_id.get(),
        original_flow_id: row.original_flow_id.get(),
        modno: row.modno.get(),
        kind: columns.kind.name().to_owned(),
        status: columns.status.name().to_owned(),
        repo_id: row.scope.repo.clone(),
        plan_id: row.scope.plan.clone(),
        start_unix_ms: Some(columns.start_unix_ms).filter(|start| *start != 0),
        end_unix_ms: Some(columns.end_unix_ms).filter(|end| *end != 0),
        details: Some(pb::Details::default()),
        ..pb::Operation::default()
    };
    match said {
        Some(said) => pb::Operation {
            repo_guid: said.repo_guid,
            snapshot_id: said.snapshot_id,
            message: said.message,
            details: Some(details(said.details)),
            ..shown
        },
        // The bytes have rotted; what was filed beside them is still shown.
        None => shown,
    }
}

fn details(details: Details) -> pb::Details {
    pb::Details {
        tool: details.tool,
        tool_version: details.tool_version,
        exit_code: details.exit_code,
        argv: details.argv,
        summary_json: details.summary_json,
        errors: details.errors,
        error_count: details.error_count,
        log_tail: details.log_tail,
    }
}

pub(super) fn parked(row: &ParkedRow) -> pb::ParkedOperation {
    pb::ParkedOperation {
        operation: Some(operation(&row.operation)),
        parked_id: row.parked_id,
        reason: row.reason.name().to_owned(),
        parked_unix_ms: row.parked_unix_ms.0,
    }
}

pub(super) fn position(position: &Position) -> pb::Position {
    pb::Position { modno: position.modno.get(), chain: position.chain.to_string() }
}

pub(super) fn verification(host: String, check: &HostCheck) -> pb::HostVerification {
    let bad = |row: &BadOperation| pb::BadOperation { id: row.id.get(), fault: row.fault.name().to_owned() };
    pb::HostVerification {
        host,
        equal: check.equal(),
        count: check.computed.count(),
        stored_count: check.stored.count(),
        digest: digest(&check.computed),
        stored_digest: digest(&check.stored),
        bad_operations: check.bad_operations.iter().map(bad).collect(),
    }
}

pub(super) fn token(token: &Token) -> pb::Token {
    pb::Token {
        id: token.id.to_string(),
        label: token.label.clone(),
        grants: token.grants.to_strings(),
        uses_left: token.uses_left,
        created_unix_ms: token.created.0,
        expires_unix_ms: token.expires.0,
    }
}

pub(super) fn audit(record: &AuditRecord) -> pb::AuditRecord {
    pb::AuditRecord {
        id: record.number,
        at_unix_ms: record.at.0,
        event: record.event.clone(),
        key_id: record.peer.as_ref().map(KeyId::to_string).unwrap_or_default(),
        detail: record.detail.clone(),
        chain: hex(&record.hash),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

pub(super) fn digest(set: &SetDigest) -> String {
    set.to_string()
}

pub(super) fn ms(time: Option<UnixMs>) -> Option<i64> {
    time.map(|time| time.0)
}
