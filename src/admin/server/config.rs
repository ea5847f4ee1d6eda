//! Federated config: what is here, what a peer shows, changes here, and requests to a peer.

use std::time::Duration;

use opmesh_core::config::{self, Change, Resources, Shown, Standing};
use opmesh_core::model::ConfigModno;
use opmesh_core::permission::GrantType;
use opmesh_core::protocol::{Outcome, Request, Write, WriteKey};

use crate::admin::config_json::{self, Asked, Owner};
use crate::admin::error::{Failure, Reason};
use crate::admin::pb;
use crate::node::Node;
use crate::store::{AuditEvent, AuditKind, Peer, Role};
use crate::transport::AskFault;

/// How long a peer's verdict is waited for unless the caller says otherwise.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn get(node: &Node, host: Option<String>) -> Result<pb::ConfigReply, Failure> {
    let Some(name) = host else {
        return reply(&own(node), &Shown::all(&node.store().config().await?));
    };
    let peer = node.store().find_peer(&name).await?;
    match node.store().peer_config(&peer.key).await?.shown {
        Some(shown) => reply(&owner(&peer), &shown),
        None => Err(Failure::new(Reason::NothingToDo, format!("{} has shown no config", peer.name))
            .hint("its operator grants READ_CONFIG or READ_WRITE_CONFIG with `opmesh peer grant` there")),
    }
}

pub(super) async fn reveal(node: &Node) -> Result<pb::ConfigReply, Failure> {
    let config = node.store().config().await?;
    let json = config_json::write(&own(node), config.modno(), config.repos(), config.plans())?;
    Ok(pb::ConfigReply { document_json: json })
}

pub(super) async fn apply(
    node: &Node,
    request: pb::ApplyConfigRequest,
) -> Result<pb::ConfigVerdict, Failure> {
    let Asked { base, change } = config_json::read(&request.document)?;
    let expected = request.expect_modno.map(ConfigModno::new).transpose().map_err(invalid)?;
    let base = match expected.or(base) {
        Some(base) => base,
        None => node.store().config().await?.modno(),
    };
    let judged = node.store().apply_config(Change { base, ..change }).await?;
    Ok(verdict(own(node), base, judged.into()))
}

pub(super) async fn push(node: &Node, request: pb::PushConfigRequest) -> Result<pb::ConfigVerdict, Failure> {
    let peer = node.store().find_peer(&request.host).await?;
    let Asked { base, change } = config_json::read(&request.document)?;
    let base = if let Some(base) = base {
        base
    } else {
        let shown = node.store().peer_config(&peer.key).await?.shown;
        shown.map_or_else(ConfigModno::default, |shown| shown.modno())
    };
    let timeout = match request.timeout_ms.map(u64::try_from) {
        None => VERDICT_TIMEOUT,
        Some(Ok(ms)) => Duration::from_millis(ms),
        Some(Err(_)) => return Err(Failure::new(Reason::InvalidArgument, "the timeout is negative")),
    };
    let write = Write { key: draw_key()?, request: Request::Config(Change { base, ..change }) };
    let asking = tokio::time::timeout(timeout, node.sessions().ask(&peer.key, write));
    let answered = asking.await.unwrap_or(Err(AskFault::TimedOut));
    let said = match &answered {
        Ok(outcome) => said(outcome),
        Err(fault) => fault.to_string(),
    };
    let detail = format!("made for modno {base}: {said}");
    let event = AuditEvent { event: AuditKind::ConfigPushed, peer: Some(peer.key), detail };
    node.store().note_audit(event).await?;
    match answered {
        Ok(outcome) => Ok(verdict(owner(&peer), base, outcome)),
        Err(fault) => Err(unanswered(&peer, fault)),
    }
}

fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Applied { modno } => format!("applied, now {modno}"),
        Outcome::Unchanged => "unchanged".to_owned(),
        Outcome::Stale { modno } => format!("stale, it is at {modno}"),
        Outcome::Refused(refused) => format!("refused by rule {} ({})", refused.rule, refused.object),
        Outcome::Taken { .. } => "an answer to something else".to_owned(),
    }
}

fn unanswered(peer: &Peer, fault: AskFault) -> Failure {
    let name = &peer.name;
    let (reason, hint) = match fault {
        AskFault::NotConnected => (
            Reason::Unreachable,
            format!(
                "see why with `opmesh peer show {name}`; nothing was sent, so push again once it is live"
            ),
        ),
        AskFault::Unable => (Reason::Version, "upgrade opmesh over there".to_owned()),
        AskFault::Busy => (Reason::Limit, "push again in a minute".to_owned()),
        AskFault::Ended | AskFault::TimedOut => {
            (Reason::TimedOut, format!("look with `opmesh config get --host {name}` once it is live"))
        }
    };
    let what = match fault {
        AskFault::NotConnected | AskFault::Unable | AskFault::Busy => "was not asked",
        AskFault::Ended | AskFault::TimedOut => "gave no verdict",
    };
    Failure::new(reason, format!("{name} {what}: {fault}")).hint(hint)
}

fn verdict(owner: Owner, base: ConfigModno, outcome: Outcome) -> pb::ConfigVerdict {
    let blank = pb::ConfigVerdict {
        host: owner.name,
        key_id: owner.key.to_string(),
        base_modno: base.get(),
        ..pb::ConfigVerdict::default()
    };
    let named = |verdict: &str, modno: Option<ConfigModno>| pb::ConfigVerdict {
        verdict: verdict.to_owned(),
        modno: modno.map(ConfigModno::get),
        ..blank.clone()
    };
    match outcome {
        Outcome::Applied { modno } => named("applied", Some(modno)),
        // Judged against the base, and nothing was to be done.
        Outcome::Unchanged | Outcome::Taken { .. } => named("unchanged", Some(base)),
        Outcome::Stale { modno } => named("stale", Some(modno)),
        Outcome::Refused(refused) => pb::ConfigVerdict {
            rule: refused.rule,
            object: refused.object,
            reason: refused.reason,
            ..named("refused", None)
        },
    }
}

/// What this instance and the peer have in view of each other.
pub(super) async fn in_view(node: &Node, peer: &Peer) -> Result<pb::PeerConfig, Failure> {
    let config = node.store().config().await?;
    let may_see = named(&config::resources(&config, &peer.given));
    let reads_config =
        peer.given.names(GrantType::ReadConfig) || peer.given.names(GrantType::ReadWriteConfig);
    let said = node.store().peer_config(&peer.key).await?;
    let modno = said.shown.as_ref().map(|shown| shown.modno().get());
    let shows = (said.shown.is_some() || said.resources.is_some()).then(|| pb::ShownConfig {
        modno,
        at_unix_ms: said.shown_at.map(|at| at.0),
        ..named(&said.resources.unwrap_or_default())
    });
    let received = config.repos().iter().filter_map(|repo| {
        let origin = repo.origin.filter(|origin| origin.from == peer.key)?;
        let withdrawn = origin.standing == Standing::Withdrawn;
        Some(pb::ReceivedRepo { id: repo.id().to_owned(), guid: repo.guid.to_string(), withdrawn })
    });
    let offered = node.live().seat(&peer.key, Role::AuthorizedClient).offered;
    Ok(pb::PeerConfig {
        shown: Some(pb::ShownConfig { modno: reads_config.then(|| config.modno().get()), ..may_see }),
        shows,
        received: received.collect(),
        offered: offered.map(|offered| pb::OfferedRepos {
            taken: offered.taken,
            refused: offered
                .refused
                .into_iter()
                .map(|refused| pb::RefusedRepo {
                    rule: refused.rule,
                    object: refused.object,
                    reason: refused.reason,
                })
                .collect(),
        }),
    })
}

fn named(names: &Resources) -> pb::ShownConfig {
    let repo = |repo: &config::ListedRepo| pb::NamedRepo { id: repo.id.clone(), guid: repo.guid.to_string() };
    let plan = |plan: &config::ListedPlan| pb::NamedPlan { id: plan.id.clone(), repo_id: plan.repo.clone() };
    pb::ShownConfig {
        modno: None,
        repos: names.repos.iter().map(repo).collect(),
        plans: names.plans.iter().map(plan).collect(),
        at_unix_ms: None,
    }
}

fn reply(owner: &Owner, shown: &Shown) -> Result<pb::ConfigReply, Failure> {
    let json = config_json::write(owner, shown.modno(), shown.repos(), shown.plans())?;
    Ok(pb::ConfigReply { document_json: json })
}

fn own(node: &Node) -> Owner {
    Owner { name: node.instance().to_string(), key: node.identity().key_id() }
}

fn owner(peer: &Peer) -> Owner {
    Owner { name: peer.name.clone(), key: peer.key }
}

fn draw_key() -> Result<WriteKey, Failure> {
    let mut key = [0; 16];
    getrandom::fill(&mut key)
        .map_err(|_| Failure::new(Reason::Internal, "the operating system gave no randomness"))?;
    Ok(WriteKey(key))
}

fn invalid(fault: impl std::fmt::Display) -> Failure {
    Failure::new(Reason::InvalidArgument, fault)
}
