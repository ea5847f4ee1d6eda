//! What runs beside the operations of one session: the sharing machine, those who wait for the peer's answers, and
//! what the store is asked for it. The driver owns it and performs what the machine wants.

use std::collections::HashMap;
use std::time::Duration;

use opmesh_core::config::{self, Config};
use opmesh_core::model::{ConfigModno, KeyId};
use opmesh_core::permission::{GrantType, Grants};
use opmesh_core::protocol::{Outcome, Refused, Request, Write, WriteKey, Written};
use opmesh_core::session::{Kept, Look, Offer, Sharing, SharingInput, SharingOutput};
use tokio::sync::oneshot;

use crate::store::{Epoch, Peer, Role, Store, StoreError};

use super::Local;

/// Why a request got no answer of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskFault {
    /// There is no session.
    #[error("it is not connected")]
    NotConnected,
    /// The peer did not name the capability.
    #[error("its program is too old to be asked for anything")]
    Unable,
    /// Too many requests wait already.
    #[error("too many requests wait for its answer already")]
    Busy,
    /// The session ended first: the request may have had its effect.
    #[error("the session ended before it answered: whether the change was made is not known")]
    Ended,
    /// No answer came in time: the request may have its effect yet.
    #[error("it did not answer in time: whether the change was made is not known")]
    TimedOut,
}

/// A request, and who waits for what comes of it.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) write: Write,
    pub(super) answer: oneshot::Sender<Result<Outcome, AskFault>>,
}

impl Ask {
    /// The peer does not understand requests.
    pub(super) fn unable(self) {
        tell(self.answer, Err(AskFault::Unable));
    }
}

/// What came of offering the shared repositories to a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offered {
    /// How many it has taken.
    pub taken: u32,
    /// Which it has not, and why.
    pub refused: Vec<Refused>,
}

/// The machine, and who waits for answers.
#[derive(Debug, Default)]
pub(super) struct Beside {
    sharing: Sharing,
    waiting: HashMap<WriteKey, oneshot::Sender<Result<Outcome, AskFault>>>,
}

impl Beside {
    pub(super) fn deadline(&self) -> Duration {
        self.sharing.deadline()
    }

    pub(super) fn handle(&mut self, now: Duration, input: SharingInput) -> Vec<SharingOutput> {
        let mut out = Vec::new();
        self.sharing.handle(now, input, &mut out);
        out
    }

    /// Remembers who asks; the request itself comes back.
    pub(super) fn asks(&mut self, ask: Ask) -> Write {
        self.waiting.insert(ask.write.key, ask.answer);
        ask.write
    }

    pub(super) fn busy(&mut self, key: WriteKey) {
        if let Some(answer) = self.waiting.remove(&key) {
            tell(answer, Err(AskFault::Busy));
        }
    }

    /// Tells whoever asked. Nobody asked for the offer of shared repositories: what came of it comes back.
    pub(super) fn answered(&mut self, written: Written) -> Option<Offered> {
        match (self.waiting.remove(&written.key), written.outcome) {
            (Some(answer), outcome) => {
                tell(answer, Ok(outcome));
                None
            }
            (None, Outcome::Taken { taken, refused }) => Some(Offered { taken, refused }),
            (None, Outcome::Refused(refused)) => Some(Offered { taken: 0, refused: vec![refused] }),
            (None, Outcome::Applied { .. } | Outcome::Unchanged | Outcome::Stale { .. }) => None,
        }
    }
}

/// The asker may have given up.
fn tell(answer: oneshot::Sender<Result<Outcome, AskFault>>, outcome: Result<Outcome, AskFault>) {
    if answer.send(outcome).is_err() {
        tracing::debug!("nobody waits for the answer to a request any more");
    }
}

/// What this side shows and offers the peer now.
pub(super) async fn look(store: &Store, peer: &KeyId, role: Role) -> Result<Look, StoreError> {
    // Most instances keep none: a reconnect costs them no read.
    if *store.config_modno().borrow() == ConfigModno::default() {
        return Ok(Look::default());
    }
    let Some(peer) = store.peer(peer).await? else { return Ok(Look::default()) };
    let config = store.config().await?;
    Ok(what_is_shown(&config, &peer, role, draw_key()?))
}

/// Nothing was ever shown of a config that never was; of one that is, the peer hears also that it may see nothing of
/// it. What the grants do not speak of is not spoken of.
fn what_is_shown(config: &Config, peer: &Peer, role: Role, key: WriteKey) -> Look {
    if config.modno() == ConfigModno::default() {
        return Look::default();
    }
    let grants = |kind| peer.given.names(kind);
    let reads_config = grants(GrantType::ReadConfig) || grants(GrantType::ReadWriteConfig);
    let reads_names = reads_config || grants(GrantType::ReadOperations);
    // Both sides must want it.
    let shares = role == Role::AuthorizedClient
        && grants(GrantType::ReceiveSharedRepos)
        && Grants::understood(&peer.received).names(GrantType::ReceiveSharedRepos);
    Look {
        config: reads_config.then(|| config::shown(config, &peer.given)),
        resources: reads_names.then(|| config::resources(config, &peer.given)),
        offer: shares.then(|| Offer { key, repos: config::shared_for(config, &peer.given) }),
    }
}

/// Remembers what the peer shows.
pub(super) async fn keep(store: &Store, peer: &KeyId, kept: Kept) -> Result<(), StoreError> {
    match kept {
        Kept::Config(shown) => store.keep_shown(peer, shown).await,
        Kept::Resources(resources) => store.keep_resources(peer, resources).await,
    }
}

/// Performs a request of the peer in a session with this role of it and, if it is a client, this epoch; or refuses it.
pub(super) async fn judge(
    local: &Local,
    peer: &KeyId,
    (role, epoch): (Role, Option<Epoch>),
    write: Write,
) -> Result<Written, StoreError> {
    let Write { key, request } = write;
    let (store, allowed) = (&local.store, local.allowed.clone());
    let outcome = match (request, role) {
        (Request::Config(change), _) => {
            Outcome::from(store.write_config(peer, role, epoch, change, allowed).await?)
        }
        (Request::Shared(repos), Role::KnownHost) => {
            let offered = repos.len();
            let taken = store.take_shared(peer, repos, allowed).await?;
            let refused: Vec<_> = taken.refused.iter().map(Refused::from).collect();
            let taken = u32::try_from(offered.saturating_sub(refused.len())).unwrap_or(u32::MAX);
            Outcome::Taken { taken, refused }
        }
        (Request::Shared(_), Role::AuthorizedClient) => Outcome::Refused(Refused {
            rule: "not_a_hub".to_owned(),
            object: String::new(),
            reason: "only a hub shares repositories with its hosts; pair the other way round".to_owned(),
        }),
    };
    Ok(Written { key, outcome })
}

fn draw_key() -> Result<WriteKey, StoreError> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| StoreError::Engine { reason: error.to_string() })?;
    Ok(WriteKey(key))
}
