//! Owners whose operations lie here.

use opmesh_core::model::{KeyId, UnixMs};

use super::freshness::Freshness;
use super::reply::{Out, Stop};
use super::{show, status};
use crate::admin::error::{Failure, Reason};
use crate::admin::pb;
use crate::node::{Node, Standing};
use crate::store::{HostRow, PeerError, PlanFacts, Retired, RetiredHow, Role};

pub(super) async fn list(node: Node, out: Out<pb::Host>) -> Result<(), Stop> {
    let plans = node.store().plans(None).await?;
    let (hosts, retired) = (node.store().hosts().await?, node.store().retired().await?);
    for row in hosts.iter().filter(|row| !is_adopted(row.owner, &hosts, &retired)) {
        out.send(host(&node, row, &hosts, &retired, &plans)).await?;
    }
    Ok(())
}

pub(super) async fn one(node: &Node, name: &str) -> Result<pb::Host, Failure> {
    let key = find(node, name).await?;
    let hosts = node.store().hosts().await?;
    let row = hosts.iter().find(|row| row.owner == key);
    let (plans, retired) = (node.store().plans(None).await?, node.store().retired().await?);
    row.map(|row| host(node, row, &hosts, &retired, &plans)).ok_or_else(|| unknown(name))
}

pub(super) async fn verify(
    node: Node,
    names: Vec<String>,
    out: Out<pb::HostVerification>,
) -> Result<(), Stop> {
    let mut wanted = Vec::new();
    for name in &names {
        wanted.push(find(&node, name).await?);
    }
    for row in node.store().hosts().await? {
        if wanted.is_empty() || wanted.contains(&row.owner) {
            let check = node.store().verify_host(&row.owner).await?;
            out.send(show::verification(row.name, &check)).await?;
        }
    }
    Ok(())
}

pub(super) async fn parked(node: Node, name: String, out: Out<pb::ParkedOperation>) -> Result<(), Stop> {
    let owner = find(&node, &name).await?;
    let mut after = 0;
    loop {
        let rows = node.store().parked(&owner, after).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.parked_id;
        for row in &rows {
            out.send(show::parked(row)).await?;
        }
    }
}

pub(super) async fn release(node: &Node, name: &str) -> Result<pb::Host, Failure> {
    let owner = find(node, name).await?;
    node.store().release(&owner).await?;
    one(node, &owner.to_string()).await
}

/// Both are named as hosts or as peers: a lost key may have left one, the other, or both.
pub(super) async fn adopt(node: &Node, request: pb::AdoptPeerRequest) -> Result<pb::Adoption, Failure> {
    let old = find_either(node, &request.old).await?;
    if request.undo {
        node.store().undo_adoption(&old).await?;
        return Ok(pb::Adoption { key_id: old.to_string(), by: None });
    }
    let by = find_either(node, &request.by).await?;
    node.store().adopt(&old, &by).await?;
    Ok(pb::Adoption { key_id: old.to_string(), by: Some(by.to_string()) })
}

async fn find_either(node: &Node, name: &str) -> Result<KeyId, Failure> {
    match node.store().find_peer(name).await {
        Ok(peer) => Ok(peer.key),
        Err(PeerError::Unknown(_)) => find(node, name).await,
        Err(other) => Err(other.into()),
    }
}

fn adopted_host(row: &HostRow) -> pb::AdoptedHost {
    pb::AdoptedHost {
        key_id: row.owner.to_string(),
        name: row.name.clone(),
        count: row.set.count(),
        digest: show::digest(&row.set),
        parked: row.parked,
    }
}

/// The deletion is the node's: a caller that leaves does not stop it.
pub(super) async fn forget(node: &Node, name: &str) -> Result<pb::ForgottenHost, Failure> {
    let owner = find(node, name).await?;
    let forgotten = node.forget_host(owner).await?;
    Ok(pb::ForgottenHost {
        name: forgotten.name,
        key_id: owner.to_string(),
        operations: forgotten.operations,
        parked: forgotten.parked,
    })
}

async fn find(node: &Node, name: &str) -> Result<KeyId, Failure> {
    node.store().find_host(name).await.map_err(unknown_as_host)
}

/// The store has one error for peers and hosts that it does not know; here a host was asked for.
pub(super) fn unknown_as_host(error: PeerError) -> Failure {
    match error {
        PeerError::Unknown(name) => unknown(&name),
        other => other.into(),
    }
}

fn unknown(name: &str) -> Failure {
    Failure::new(Reason::UnknownHost, format!("no operations of a host called {name:?} lie here"))
        .hint("`opmesh hosts list` shows all of them")
}

/// Whether a lost key's rows are shown with those of another host that lies here.
fn is_adopted(owner: KeyId, hosts: &[HostRow], retired: &[Retired]) -> bool {
    retired.iter().any(|retired| {
        retired.key == owner
            && retired.how == RetiredHow::Adoption
            && hosts.iter().any(|host| host.owner == retired.heir)
    })
}

fn host(node: &Node, row: &HostRow, hosts: &[HostRow], retired: &[Retired], plans: &[PlanFacts]) -> pb::Host {
    let now = node.clock().wall();
    let stands_for = |other: &&HostRow| {
        let by = |retired: &Retired| {
            retired.key == other.owner && retired.heir == row.owner && retired.how == RetiredHow::Adoption
        };
        retired.iter().any(by)
    };
    let adopted: Vec<&HostRow> = hosts.iter().filter(stands_for).collect();
    let own = |plan: &PlanFacts| plan.owner == row.owner;
    // A plan that goes on under the new key is judged by what the new key did.
    let plans = plans.iter().filter(|plan| {
        own(plan)
            || (adopted.iter().any(|host| host.owner == plan.owner)
                && !plans.iter().any(|other| own(other) && other.scope == plan.scope))
    });
    let latest =
        |of: fn(&HostRow) -> Option<UnixMs>| adopted.iter().copied().chain([row]).filter_map(of).max();
    let seat = node.live().seat(&row.owner, Role::AuthorizedClient);
    let connected = row.is_self || matches!(seat.standing, Standing::CatchingUp | Standing::Live);
    pb::Host {
        name: row.name.clone(),
        instance_id: row.instance.as_ref().map(ToString::to_string).unwrap_or_default(),
        key_id: row.owner.to_string(),
        is_self: row.is_self,
        connected,
        state: Freshness::of_host(plans, now).name().to_owned(),
        last_success_unix_ms: show::ms(latest(|row| row.last_success_unix_ms)),
        last_run_unix_ms: show::ms(latest(|row| row.last_run_unix_ms)),
        last_seen_unix_ms: show::ms(if row.is_self { Some(now) } else { row.last_seen_unix_ms }),
        count: row.set.count(),
        digest: show::digest(&row.set),
        position: Some(show::position(&row.position)),
        version: if row.is_self { status::VERSION.to_owned() } else { String::new() },
        parked: row.parked,
        adopted: adopted.into_iter().map(adopted_host).collect(),
    }
}
