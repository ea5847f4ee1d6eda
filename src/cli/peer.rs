//! `opmesh peer`: who may speak with this instance, and what each may do.

use std::process::ExitCode;

use super::context::Context;
use super::output::{Columns, confirmed, visible};
use super::status;
use super::time;
use crate::admin::{Client, Exit, pb};

/// Peers: who may speak with this instance, and what each may do
///
/// A peer is named by its name here, its instance id, its key ID, or the start of its key ID (8 characters or more).
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Peer {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// All peers
    #[command(after_help = "Examples:
  opmesh peer list
  opmesh peer list --json | jq -r '.[] | select(.blocked) | .name'")]
    List,
    /// One peer
    #[command(after_help = "Examples:
  opmesh peer show web-1
  opmesh peer show ed25519.kA9b2c3d --json")]
    Show {
        /// Name, instance id, key ID, or the start of the key ID
        peer: String,
    },
    /// How peers stand, then how that changes, one JSON line for each
    ///
    /// First a line with "event":"snapshot" for each peer and role, then "synced", then "changed" and "removed" as it
    /// happens. Who reads slowly misses states between, never the last one.
    #[command(after_help = "Examples:
  opmesh peer watch
  opmesh peer watch | jq -r 'select(.peer.state == \"offline\") | .peer.name'")]
    Watch,
    Add(Add),
    /// Vouch for a peer's key, compared by a person
    #[command(after_help = "Examples:
  opmesh peer verify web-1 --key-id ed25519.…")]
    Verify {
        /// Name, instance id, key ID, or the start of the key ID
        peer: String,
        /// As `opmesh key show` prints it over there
        #[arg(long, value_name = "K")]
        key_id: String,
        /// The peer has another key than the one that is listed, and K is the new one: entry, grants and operations go on
        /// under it, and the old key is let in no more
        #[arg(long)]
        new_key: bool,
    },
    /// Vouch for a peer's key no longer; ends its session at once, until it is verified again
    #[command(after_help = "Examples:
  opmesh peer unverify web-1")]
    Unverify {
        /// Name, instance id, key ID, or the start of the key ID
        peer: String,
    },
    /// Say what a peer may do with this instance's things; replaces that type
    #[command(after_help = "Types: READ_OPERATIONS READ_CONFIG READ_WRITE_CONFIG RECEIVE_SHARED_REPOS
Scopes: * repo:ID plan:ID !repo:ID !plan:ID

Examples:
  opmesh peer grant hub 'READ_OPERATIONS:*'
  opmesh peer grant hub 'READ_OPERATIONS:repo:nas,!plan:private'")]
    Grant {
        /// Name, instance id, key ID, or the start of the key ID
        peer: String,
        /// The type and all its scopes
        #[arg(value_name = "TYPE:SCOPE,…")]
        grant: String,
    },
    /// Take back a type, or exactly the listed scopes of it
    #[command(after_help = "To leave something out of a wider grant, grant it with an exclusion instead:
`opmesh peer grant hub 'READ_OPERATIONS:*,!plan:private'`.

Examples:
  opmesh peer revoke hub READ_OPERATIONS
  opmesh peer revoke hub READ_OPERATIONS:plan:home")]
    Revoke {
        /// Name, instance id, key ID, or the start of the key ID
        peer: String,
        /// The types, with the scopes that go
        #[arg(required = true, value_name = "TYPE[:SCOPE,…]")]
        grants: Vec<String>,
    },
    /// Refuse a peer from now on; ends its session at once
    #[command(after_help = "Examples:
  opmesh peer block web-1 --reason 'stolen laptop'")]
    Block {
        /// Name, instance id, key ID, or the start of the key ID
        peer: String,
        /// Why, for whoever looks later
        #[arg(long, value_name = "T", default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Refuse a peer no longer
    #[command(after_help = "Examples:
  opmesh peer unblock web-1")]
    Unblock {
        /// Name, instance id, key ID, or the start of the key ID
        peer: String,
    },
    /// Give a peer another name here
    #[command(after_help = "Examples:
  opmesh peer rename ed25519.kA9b2c3d web-1")]
    Rename {
        /// Name, instance id, key ID, or the start of the key ID
        peer: String,
        /// The new name
        name: String,
    },
    /// Change how a hub is reached, or what is taken in from a host
    ///
    /// What no longer fits is set aside on this side (`opmesh hosts parked`), and the host sends it no more.
    #[command(after_help = "Scopes: * repo:ID plan:ID !repo:ID !plan:ID

Examples:
  opmesh peer set hub --url https://hub.example:9850 --url https://10.0.0.7:9850
  opmesh peer set web-1 --accept '*,!plan:scratch'")]
    Set {
        /// Name, instance id, key ID, or the start of the key ID
        peer: String,
        /// All its addresses
        #[arg(long, value_name = "URL", required_unless_present_any = ["channel", "accept"])]
        url: Vec<String>,
        /// How it is spoken to: tls, sealed behind a proxy, or plain on loopback
        #[arg(long, value_name = "C")]
        channel: Option<String>,
        /// All of what is taken in of its operations
        #[arg(long, value_name = "SCOPE,…")]
        accept: Option<String>,
    },
    /// Remove a peer
    #[command(after_help = "Examples:
  opmesh peer remove web-1 --yes")]
    Remove {
        /// Name, instance id, key ID, or the start of the key ID
        peer: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// A host lost its key and has a new one: show its old operations under the new one
    ///
    /// Nothing is rewritten: the operations keep the old key as their owner, and are listed under the new host's name. The
    /// old key is let in no more.
    #[command(after_help = "Examples:
  opmesh peer adopt web-1 --by web-1-2
  opmesh peer adopt ed25519.kA9b2c3d --undo")]
    Adopt {
        /// The lost key: name, instance id, key ID, or the start of the key ID
        old: String,
        /// The host that it is now
        #[arg(long, value_name = "NEW", required_unless_present = "undo")]
        by: Option<String>,
        /// Take it back
        #[arg(long, conflicts_with = "by")]
        undo: bool,
    },
    /// Decide an identity conflict: which of two databases of a peer is the right one
    #[command(group = clap::ArgGroup::new("decision").required(true), after_help = "Examples:
  opmesh peer resolve web-1 --accept-presented
  opmesh peer resolve web-1 --refuse")]
    Resolve {
        /// Name, instance id, key ID, or the start of the key ID
        peer: String,
        /// The database that now presents itself is the right one
        #[arg(long, group = "decision")]
        accept_presented: bool,
        /// It is the wrong one and stays refused
        #[arg(long, group = "decision")]
        refuse: bool,
    },
}

/// Add a peer by its key ID; unverified, so that nothing is allowed before `peer verify`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  opmesh peer add --key-id ed25519.… --instance-id web-1
  opmesh peer add --key-id ed25519.… --url https://hub.example:9850 --grant 'READ_OPERATIONS:*'")]
struct Add {
    /// As `opmesh key show` prints it over there
    #[arg(long, value_name = "K")]
    key_id: String,
    /// What the peer calls itself
    #[arg(long, value_name = "N", default_value = "", hide_default_value = true)]
    instance_id: String,
    /// Where it is reached: makes it a hub that this instance dials
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    /// How it is spoken to: tls, sealed behind a proxy, or plain on loopback
    #[arg(long, value_name = "C", requires = "url")]
    channel: Option<String>,
    /// What it may do with this instance's things [default: nothing]
    #[arg(long, value_name = "TYPE:SCOPE,…")]
    grant: Vec<String>,
}

impl Peer {
    pub(super) async fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let client = context.client().await?;
        let peer = match self.command {
            Command::Watch => return watch(context).await,
            Command::List => return list(context, &client).await,
            Command::Adopt { old, by, undo } => return adopt(context, &client, old, by, undo).await,
            Command::Remove { peer, yes } => return remove(context, &client, peer, yes).await,
            Command::Show { peer } => client.get_peer(pb::GetPeerRequest { peer }).await?,
            Command::Add(add) => {
                let Add { key_id, instance_id, url: urls, channel, grant: grants } = add;
                client.add_peer(pb::AddPeerRequest { key_id, instance_id, urls, channel, grants }).await?
            }
            Command::Verify { peer, key_id, new_key: true } => {
                client.replace_peer_key(pb::ReplacePeerKeyRequest { peer, key_id }).await?
            }
            Command::Verify { peer, key_id, new_key: false } => {
                client.verify_peer(pb::VerifyPeerRequest { peer, key_id }).await?
            }
            Command::Unverify { peer } => client.unverify_peer(pb::UnverifyPeerRequest { peer }).await?,
            Command::Grant { peer, grant } => client.grant_peer(pb::GrantPeerRequest { peer, grant }).await?,
            Command::Revoke { peer, grants } => revoke(&client, peer, grants).await?,
            Command::Block { peer, reason } => {
                client.block_peer(pb::BlockPeerRequest { peer, reason }).await?
            }
            Command::Unblock { peer } => client.unblock_peer(pb::UnblockPeerRequest { peer }).await?,
            Command::Rename { peer, name } => {
                client.rename_peer(pb::RenamePeerRequest { peer, name }).await?
            }
            Command::Set { peer, url: urls, channel, accept: accepted_scopes } => {
                client.set_peer(pb::SetPeerRequest { peer, urls, channel, accepted_scopes }).await?
            }
            Command::Resolve { peer, accept_presented, refuse: _ } => {
                let decision = if accept_presented { "accept_presented" } else { "refuse" }.to_owned();
                client.resolve_peer(pb::ResolvePeerRequest { peer, decision }).await?
            }
        };
        show(context, &peer)
    }
}

async fn list(context: &mut Context, client: &Client) -> anyhow::Result<ExitCode> {
    let mut peers = client.list_peers(pb::ListPeersRequest {}).await?;
    if context.output.is_json() {
        let mut array = context.output.array();
        while let Some(peer) = peers.next().await? {
            array.push(&peer)?;
        }
        array.finish()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Columns::new(["PEER", "KEY ID", "ROLES", "VERIFIED", "STATE", "GIVES"]);
    while let Some(peer) = peers.next().await? {
        let state = state(&peer);
        table.row([
            peer.name,
            peer.key_id,
            peer.roles.join(", ").replace('_', " "),
            if peer.verified { "yes".to_owned() } else { "no".to_owned() },
            state,
            status::gives(peer.grants.as_ref()),
        ]);
    }
    context.output.table(&table)?;
    Ok(ExitCode::SUCCESS)
}

async fn watch(context: &mut Context) -> anyhow::Result<ExitCode> {
    let mut events = context.daemon().await?.watch_peers(pb::WatchPeersRequest {}).await?;
    while let Some(event) = events.next().await? {
        context.output.json_line(&event)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The states of a peer's roles in one cell.
fn state(peer: &pb::Peer) -> String {
    let states: Vec<_> = peer.status.iter().map(|status| status.state.replace('_', " ")).collect();
    match (peer.blocked, states.is_empty()) {
        (true, _) => "blocked".to_owned(),
        (false, true) => "-".to_owned(),
        (false, false) => states.join(", "),
    }
}

fn show(context: &mut Context, peer: &pb::Peer) -> anyhow::Result<ExitCode> {
    if context.output.is_json() {
        context.output.object(peer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let received = peer.grants.as_ref().map(|grants| grants.received.join(" ")).unwrap_or_default();
    let unmet = peer.grants.as_ref().map(|grants| grants.unmet.join("; ")).unwrap_or_default();
    let why: Vec<_> =
        peer.status.iter().map(|status| status.reason.clone()).filter(|why| !why.is_empty()).collect();
    context.output.fields([
        ("peer", peer.name.clone()),
        ("instance", peer.instance_id.clone()),
        ("key ID", peer.key_id.clone()),
        ("roles", peer.roles.join(", ").replace('_', " ")),
        ("verified", if peer.verified { "yes".to_owned() } else { "no".to_owned() }),
        ("state", state(peer)),
        ("why", why.join("; ")),
        ("blocked for", peer.blocked_reason.clone()),
        ("reached at", peer.urls.join(" ")),
        ("channel", peer.channel.clone()),
        ("may do here", status::gives(peer.grants.as_ref())),
        ("lets us", received),
        ("not met", unmet),
        ("taken in", peer.accepted_scopes.clone()),
        ("shown to it", in_view(peer.config.as_ref().and_then(|config| config.shown.as_ref()))),
        ("shows us", in_view(peer.config.as_ref().and_then(|config| config.shows.as_ref()))),
        ("received", received_repos(peer.config.as_ref())),
        ("offered", offered(peer.config.as_ref())),
        ("last seen", peer.last_seen_unix_ms.map(time::show_ms).unwrap_or_default()),
        ("succeeds", peer.succeeds.join(" ")),
    ])?;
    Ok(ExitCode::SUCCESS)
}

/// What one side shows: repositories and plans by id.
fn in_view(shown: Option<&pb::ShownConfig>) -> String {
    let Some(shown) = shown else { return String::new() };
    let list = |what: &str, ids: Vec<&str>| format!("{what} {}", ids.join(" "));
    let mut parts = Vec::new();
    if !shown.repos.is_empty() {
        parts.push(list("repos", shown.repos.iter().map(|repo| repo.id.as_str()).collect()));
    }
    if !shown.plans.is_empty() {
        parts.push(list("plans", shown.plans.iter().map(|plan| plan.id.as_str()).collect()));
    }
    if let Some(modno) = shown.modno {
        parts.push(format!("at modno {modno}"));
    }
    parts.join("; ")
}

/// Repositories that came from the peer.
fn received_repos(config: Option<&pb::PeerConfig>) -> String {
    let repo = |repo: &pb::ReceivedRepo| {
        if repo.withdrawn { format!("{} (withdrawn)", repo.id) } else { repo.id.clone() }
    };
    config.map(|config| config.received.iter().map(repo).collect::<Vec<_>>().join(" ")).unwrap_or_default()
}

/// What the peer made of the repositories that are shared with it.
fn offered(config: Option<&pb::PeerConfig>) -> String {
    let Some(offered) = config.and_then(|config| config.offered.as_ref()) else { return String::new() };
    let refused = offered.refused.iter().map(|refused| format!("{}: {}", refused.object, refused.reason));
    [format!("{} taken", offered.taken)].into_iter().chain(refused).collect::<Vec<_>>().join("; ")
}

/// One grant after the other; a failure says which ones are gone by then.
async fn revoke(client: &Client, peer: String, grants: Vec<String>) -> anyhow::Result<pb::Peer> {
    let mut gone: Vec<String> = Vec::new();
    let mut after = pb::Peer::default();
    for grant in grants {
        let request = pb::RevokePeerRequest { peer: peer.clone(), grant: grant.clone() };
        after = client.revoke_peer(request).await.map_err(|mut failure| {
            if !gone.is_empty() {
                failure.message = format!("{} ({} was revoked before)", failure.message, gone.join(" "));
            }
            failure
        })?;
        gone.push(grant);
    }
    Ok(after)
}

async fn adopt(
    context: &mut Context,
    client: &Client,
    old: String,
    by: Option<String>,
    undo: bool,
) -> anyhow::Result<ExitCode> {
    let request = pb::AdoptPeerRequest { old, by: by.unwrap_or_default(), undo };
    let adoption = client.adopt_peer(request).await?;
    if context.output.is_json() {
        context.output.object(&adoption)?;
    } else {
        match &adoption.by {
            Some(by) => context.output.line(format_args!("{by} stands for {}", adoption.key_id))?,
            None => context.output.line(format_args!("nothing stands for {} any more", adoption.key_id))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn remove(context: &mut Context, client: &Client, peer: String, yes: bool) -> anyhow::Result<ExitCode> {
    if !yes {
        let found = client.get_peer(pb::GetPeerRequest { peer: peer.clone() }).await?;
        if !confirmed(&format!("remove {} ({})", visible(&found.name), found.key_id))? {
            context.output.note("nothing was removed");
            return Ok(ExitCode::from(Exit::Error.code()));
        }
    }
    let removed = client.remove_peer(pb::RemovePeerRequest { peer }).await?;
    context.output.note(format_args!("removed {} ({})", visible(&removed.name), removed.key_id));
    if context.output.is_json() {
        context.output.object(&removed)?;
    }
    Ok(ExitCode::SUCCESS)
}
