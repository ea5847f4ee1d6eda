//! One thing that was looked at, and what a list of them amounts to.

/// What a doctor looks at. The names are a promise to scripts, and `docs/operations.md` has the same table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckId {
    /// The key file.
    Identity,
    /// `opmesh.toml`.
    Config,
    /// The room under the store.
    Disk,
    /// Who has the data directory.
    Lock,
    /// The database.
    Store,
    /// This machine's clock against what it wrote itself.
    Clock,
    /// Whether a daemon runs.
    Daemon,
    /// What it listens on.
    Listeners,
    /// How many files it may have open.
    OpenFiles,
    /// This program.
    Version,
    /// Dialers that failed before they had said who they are.
    Dialers,
    /// The peer's entry in the list.
    Entry,
    /// Whether it is blocked here.
    Blocked,
    /// Whether somebody vouched for its key here.
    Verified,
    /// A pairing that has not happened yet.
    Pairing,
    /// Why it was turned away here last.
    Refusal,
    /// The hub's name.
    Name,
    /// A TCP connection to the hub.
    Tcp,
    /// TLS, or what the channel is.
    Channel,
    /// Whether it is the hub that is meant.
    KeyPin,
    /// Whether messages come while this side is still sending.
    Stream,
    /// Whether both speak a common version of the protocol.
    Protocol,
    /// Whether the hub lets this instance in.
    Admission,
    /// Whether both sides' grants leave anything to do.
    Grants,
    /// What the hub does with what it is sent.
    Standing,
    /// The hub's clock against this one.
    PeerClock,
    /// The hub's program against this one.
    PeerVersion,
    /// The hub's store and disk.
    PeerStore,
    /// Whether sessions are cut on the way.
    Cuts,
    /// How the session with the peer stands now.
    Connection,
}

/// Which side a check is about: who refuses, or whose fault it would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This instance.
    Here,
    /// The peer.
    Peer,
    /// What lies between.
    Network,
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It could not be looked at, because of an earlier fault.
    Skipped,
    /// As it should be.
    Ok,
    /// It works, and somebody should look.
    Warning,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub id: CheckId,
    /// Whom it is about; empty: this instance itself.
    pub peer: String,
    /// Which side.
    pub side: Side,
    /// What came out.
    pub state: State,
    /// What was seen, in words.
    pub seen: String,
    /// The next step; empty when there is none.
    pub next: String,
}

impl CheckId {
    /// All of them with their name, in the order in which they are made.
    pub const ALL: [(Self, &'static str); 30] = [
        (Self::Identity, "identity"),
        (Self::Config, "config"),
        (Self::Disk, "disk"),
        (Self::Lock, "lock"),
        (Self::Store, "store"),
        (Self::Clock, "clock"),
        (Self::Daemon, "daemon"),
        (Self::Listeners, "listeners"),
        (Self::OpenFiles, "open_files"),
        (Self::Version, "version"),
        (Self::Dialers, "dialers"),
        (Self::Entry, "entry"),
        (Self::Blocked, "blocked"),
        (Self::Verified, "verified"),
        (Self::Pairing, "pairing"),
        (Self::Refusal, "refusal"),
        (Self::Name, "name"),
        (Self::Tcp, "tcp"),
        (Self::Channel, "channel"),
        (Self::KeyPin, "key_pin"),
        (Self::Stream, "stream"),
        (Self::Protocol, "protocol"),
        (Self::Admission, "admission"),
        (Self::Grants, "grants"),
        (Self::Standing, "standing"),
        (Self::PeerClock, "peer_clock"),
        (Self::PeerVersion, "peer_version"),
        (Self::PeerStore, "peer_store"),
        (Self::Cuts, "cuts"),
        (Self::Connection, "connection"),
    ];

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(id, _)| *id == self).map_or("", |(_, name)| *name)
    }
}

impl Side {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Peer => "peer",
            Self::Network => "network",
        }
    }
}

impl State {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fail => "fail",
        }
    }
}

impl Check {
    /// As it should be.
    pub(super) fn ok(id: CheckId, side: Side, seen: impl Into<String>) -> Self {
        Self { id, peer: String::new(), side, state: State::Ok, seen: seen.into(), next: String::new() }
    }

    /// It works, and somebody should look.
    pub(super) fn warning(id: CheckId, side: Side, seen: impl Into<String>, next: impl Into<String>) -> Self {
        Self { state: State::Warning, next: next.into(), ..Self::ok(id, side, seen) }
    }

    /// It does not work.
    pub(super) fn fail(id: CheckId, side: Side, seen: impl Into<String>, next: impl Into<String>) -> Self {
        Self { state: State::Fail, next: next.into(), ..Self::ok(id, side, seen) }
    }

    /// It could not be looked at.
    pub(super) fn skipped(id: CheckId, side: Side, seen: impl Into<String>) -> Self {
        Self { state: State::Skipped, ..Self::ok(id, side, seen) }
    }

    /// The same about this peer.
    #[must_use]
    pub(super) fn about(mut self, peer: &str) -> Self {
        peer.clone_into(&mut self.peer);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_has_a_name_of_its_own() {
        let names: BTreeSet<_> = CheckId::ALL.iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), CheckId::ALL.len());
    }
}
