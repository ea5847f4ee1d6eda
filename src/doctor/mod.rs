//! `opmesh doctor`: looks at this instance and at the way to its peers, and says which side refuses and what to do.
//!
//! The looking is done step by step in [`examine`]; what was seen is judged by pure functions, in `here`, `entry`,
//! `grants`, `reach` and `cuts`. Changes nothing: a hub is asked instead of connected to, so that no live session is displaced.
//! Called by the admin service, in a daemon or in a command's own process, and by the command line where not even the
//! store can be opened.

mod check;
mod cuts;
mod dial;
mod entry;
mod grants;
mod here;
mod reach;
mod words;

use opmesh_core::model::KeyId;
use tokio::sync::mpsc;

use crate::node::Node;
use crate::store::{Peer, PeerError, Role, StoreError};

pub use check::{Check, CheckId, Side, State};
pub use here::unopened;

use reach::Subject;

/// Checks that wait to be shown; whoever reads paces what is looked at.
const QUEUE: usize = 4;

/// Where checks go as they are made.
#[derive(Debug, Clone)]
pub struct Report {
    checks: mpsc::Sender<Check>,
}

impl Report {
    /// A report, and where it is read.
    pub fn new() -> (Self, mpsc::Receiver<Check>) {
        let (checks, read) = mpsc::channel(QUEUE);
        (Self { checks }, read)
    }

    async fn say(&self, check: Check) {
        // Whoever asked may have gone; then nobody wants to know.
        drop(self.checks.send(check).await);
    }

    async fn all(&self, peer: &str, checks: impl IntoIterator<Item = Check>) {
        for check in checks {
            self.say(check.about(peer)).await;
        }
    }
}

/// Whom to look at.
#[derive(Debug, Clone)]
pub enum Patient {
    /// This instance, and all its peers in short.
    Here,
    /// One peer.
    Peer(Box<Peer>),
    /// A key that is no peer: why it was turned away.
    Stranger(KeyId),
}

impl Patient {
    /// Who is meant by what people type; nothing is this instance.
    pub async fn find(node: &Node, text: &str) -> Result<Self, PeerError> {
        if text.is_empty() || text == node.identity().key_id().to_string() {
            return Ok(Self::Here);
        }
        match (node.store().find_peer(text).await, text.parse()) {
            (Ok(peer), _) => Ok(Self::Peer(Box::new(peer))),
            (Err(PeerError::Unknown(_)), Ok(key)) => Ok(Self::Stranger(key)),
            (Err(error), _) => Err(error),
        }
    }
}

/// Looks, and reports each check as it is made.
pub async fn examine(node: &Node, patient: Patient, report: Report) -> Result<(), StoreError> {
    match patient {
        Patient::Here => {
            for check in here::opened(node).await {
                report.say(check).await;
            }
            in_short(node, &report).await
        }
        Patient::Peer(peer) => {
            whole(node, &peer, &report).await;
            Ok(())
        }
        Patient::Stranger(key) => {
            let last = node.store().last_refusal(&key).await?;
            report.all(&key.to_string(), entry::stranger(&key, last, node.clock().wall())).await;
            Ok(())
        }
    }
}

/// All peers: of each what is not as it should be, and one line for all others together.
async fn in_short(node: &Node, report: &Report) -> Result<(), StoreError> {
    let mut well = Vec::new();
    for peer in node.store().peers().await? {
        let (collect, mut collected) = Report::new();
        let looking = async {
            whole(node, &peer, &collect).await;
            drop(collect);
        };
        let mut faults = Vec::new();
        let reading = async {
            while let Some(check) = collected.recv().await {
                faults.extend(Some(check).filter(|check| is_worth_a_line(&peer, check)));
            }
        };
        tokio::join!(looking, reading);
        if faults.is_empty() {
            well.push(peer.name.clone());
        }
        report.all(&peer.name, faults).await;
    }
    report.say(entry::all_well(&well)).await;
    Ok(())
}

/// A host that is not connected is asleep or away: looked at by itself that is worth a line, among all others it is not.
fn is_worth_a_line(peer: &Peer, check: &Check) -> bool {
    let is_away = check.id == CheckId::Connection && check.state == State::Warning && !peer.roles.known_host;
    check.state > State::Ok && !is_away
}

/// One peer, in each role that it has.
async fn whole(node: &Node, peer: &Peer, report: &Report) {
    if peer.roles.known_host {
        known_host(node, peer, report).await;
    }
    if peer.roles.authorized_client {
        client(node, peer, report).await;
    }
    if !peer.roles.known_host && !peer.roles.authorized_client {
        let next = format!("`opmesh peer remove {}`, or pair it again", peer.name);
        let seen = "it is neither a hub of this host nor a host of this hub";
        report.all(&peer.name, [Check::warning(CheckId::Entry, Side::Here, seen, next)]).await;
    }
}

async fn known_host(node: &Node, peer: &Peer, report: &Report) {
    let (name, role) = (&peer.name, Role::KnownHost);
    report.all(name, entry::listed(peer, role, node.clock().wall())).await;
    if !entry::is_welcome(peer) {
        let seen = "not dialled: this side refuses it";
        report.all(name, [Check::skipped(CheckId::Name, Side::Here, seen)]).await;
        return;
    }
    let subject = Subject { name: name.clone(), key: peer.key, own: node.identity().key_id() };
    dial::dial(node, peer, &subject, report).await;
    report.all(name, session(node, peer, role)).await;
}

async fn client(node: &Node, peer: &Peer, report: &Report) {
    let (name, role) = (&peer.name, Role::AuthorizedClient);
    report.all(name, entry::listed(peer, role, node.clock().wall())).await;
    let own = node.identity().key_id();
    report.all(name, entry::client_grants(peer, &own)).await;
    report.all(name, [entry::client_standing(peer)]).await;
    report.all(name, session(node, peer, role)).await;
}

/// What only a daemon knows: how sessions went, and how the present one stands.
fn session(node: &Node, peer: &Peer, role: Role) -> [Check; 2] {
    let seat = node.live().seat(&peer.key, role);
    let is_daemon = node.serving().is_some();
    let cuts = if is_daemon {
        cuts::cuts(&seat.history.past())
    } else {
        Check::skipped(CheckId::Cuts, Side::Network, "no daemon runs here that would know how sessions went")
    };
    let head = node.store().head().borrow().modno;
    [cuts, entry::connection(peer, role, &seat, is_daemon.then_some(head), node.clock().wall())]
}
