//! This instance itself: its files, its store, its disk, its clock, its daemon.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use opmesh_core::handshake::{HandshakeFault, VERSIONS};
use opmesh_core::model::{KeyId, UnixMs};
use opmesh_core::protocol::Room;
use rustix::process::{Resource, getrlimit};
use tokio::net::TcpStream;

use super::check::{Check, CheckId, Side};
use super::words;
use crate::config::Config;
use crate::identity::Identity;
use crate::node::{DataLock, LockError, Node, ServeFile};
use crate::places::Places;
use crate::store::{DISK_RESERVE_BYTES, Disk, Peer, StoreError, StoreHealth};
use crate::transport::{FailedDialer, PROGRAM};

/// A clock may be a little behind what it wrote: NTP steps.
const SET_BACK: Duration = Duration::from_mins(5);
/// See `peer_clock`: so much misleads.
const SET_FAR_BACK: Duration = Duration::from_mins(30);
/// Open files beside connections: the store, logs, the admin socket.
const OTHER_FILES: u64 = 512;
/// Dialers that failed longer ago are not told.
const LATELY: Duration = Duration::from_hours(1);
/// How long a listener of our own may take.
const OWN_PATIENCE: Duration = Duration::from_secs(2);

/// An instance that is open, in a daemon or here.
pub(super) async fn opened(node: &Node) -> Vec<Check> {
    let places = node.places();
    let peers = node.store().peers().await.unwrap_or_default();
    let mut checks = vec![identity(places, Some(node.identity().key_id())), config(places), disk(places)];
    let health = node.store().health().await;
    let schema = node.store().facts().await.map(|facts| facts.schema).ok();
    checks.push(store(&health, schema));
    if let Ok(health) = &health {
        checks.push(clock(node.clock().wall(), health.newest));
    }
    checks.push(daemon(node.serving()));
    if let Some(serving) = node.serving() {
        checks.push(listeners(serving, &peers).await);
        checks.push(open_files(&peers));
        checks.extend(dialers(&node.local().sessions.failed_dialers(), node.clock().wall()));
    }
    checks.push(version(schema));
    checks
}

/// An instance whose store could not be opened, and why not.
pub async fn unopened(places: &Places, reason: &str) -> Vec<Check> {
    let mut checks = vec![identity(places, None), config(places), disk(places)];
    let path = places.lock();
    let held = tokio::task::spawn_blocking(move || DataLock::try_take(&path).err()).await.ok().flatten();
    checks.push(match held {
        Some(error @ LockError::Held { .. }) => {
            let next = "wait until that process has ended, or stop it; if it is the daemon, look at its log: it does not \
                        answer on its admin socket";
            Check::fail(CheckId::Lock, Side::Here, error.to_string(), next)
        }
        Some(error @ LockError::Io { .. }) => Check::fail(
            CheckId::Lock,
            Side::Here,
            error.to_string(),
            "run as the user whom the data directory belongs to",
        ),
        None => Check::ok(CheckId::Lock, Side::Here, "no other process has the data directory"),
    });
    if checks.iter().all(|check| check.state != super::State::Fail) {
        let next =
            "docs/operations.md, \"The database is damaged, foreign or newer\", has the way for each message";
        checks.push(Check::fail(CheckId::Store, Side::Here, reason, next));
    } else {
        checks.push(Check::skipped(CheckId::Store, Side::Here, format!("not opened: {reason}")));
    }
    checks.push(version(None));
    checks
}

fn identity(places: &Places, expected: Option<KeyId>) -> Check {
    let path = places.key();
    match Identity::load(&path) {
        Ok(identity) if expected.is_none_or(|expected| expected == identity.key_id()) => {
            Check::ok(CheckId::Identity, Side::Here, format!("{}, for its owner only", identity.key_id()))
        }
        Ok(identity) => Check::fail(
            CheckId::Identity,
            Side::Here,
            format!("{} holds another key now: {}", path.display(), identity.key_id()),
            "put the right key back, or stop the daemon before keys are exchanged",
        ),
        Err(error) => {
            let next = "mend what the message names; without its key this is another instance to every peer";
            Check::fail(CheckId::Identity, Side::Here, error.to_string(), next)
        }
    }
}

fn config(places: &Places) -> Check {
    match Config::load(places.config()) {
        Ok(_) => Check::ok(CheckId::Config, Side::Here, "every key is understood"),
        Err(error) => Check::fail(
            CheckId::Config,
            Side::Here,
            error.to_string(),
            "correct the file; a daemon that runs keeps what it read at its start",
        ),
    }
}

fn disk(places: &Places) -> Check {
    let folder = places.data_dir();
    match Disk::of(folder) {
        Ok(disk) => room(folder, disk),
        Err(error) => Check::fail(
            CheckId::Disk,
            Side::Here,
            format!("{}: {error}", folder.display()),
            "see that the data directory is there and mounted",
        ),
    }
}

fn room(folder: &Path, disk: Disk) -> Check {
    let seen = format!(
        "{} of {} are free under {}",
        words::bytes(disk.free_bytes),
        words::bytes(disk.total_bytes),
        folder.display()
    );
    let next = format!(
        "make room there: {} should stay free. What was acknowledged is kept; after that, restart `opmesh serve` if it \
         has stopped",
        words::bytes(DISK_RESERVE_BYTES)
    );
    match disk.room() {
        Room::Enough | Room::Unknown => Check::ok(CheckId::Disk, Side::Here, seen),
        Room::Low => Check::warning(CheckId::Disk, Side::Here, seen, next),
        Room::Full => Check::fail(CheckId::Disk, Side::Here, format!("the disk is full: {seen}"), next),
    }
}

fn store(health: &Result<StoreHealth, StoreError>, schema: Option<u32>) -> Check {
    let fail = |seen: String| {
        let next = "`opmesh hosts verify --all` shows the extent; docs/operations.md, \"The database is damaged, foreign \
                    or newer\", has the way back";
        Check::fail(CheckId::Store, Side::Here, seen, next)
    };
    let health = match health {
        Ok(health) => health,
        Err(error) => return fail(error.to_string()),
    };
    let size = words::bytes(health.bytes);
    let schema = schema.map_or_else(String::new, |schema| format!("schema {schema}, "));
    match &health.faults {
        None => Check::ok(
            CheckId::Store,
            Side::Here,
            format!("{schema}{size}: too large for a quick check; `opmesh hosts verify --all` reads it all"),
        ),
        Some(faults) if faults.is_empty() => {
            Check::ok(CheckId::Store, Side::Here, format!("{schema}{size}, every page is as it should be"))
        }
        Some(faults) => fail(format!("the database is damaged: {}", words::list(faults))),
    }
}

/// What was written cannot be later than now.
fn clock(now: UnixMs, newest: UnixMs) -> Check {
    let behind = Duration::from_millis(newest.since(now));
    if behind <= SET_BACK {
        return Check::ok(CheckId::Clock, Side::Here, "not before what this instance wrote last");
    }
    let seen =
        format!("this clock is {} before the last record that this instance wrote", words::span(behind));
    let next = "let NTP set the clock (`timedatectl`): tokens and times in lists go by it";
    if behind >= SET_FAR_BACK {
        Check::fail(CheckId::Clock, Side::Here, seen, next)
    } else {
        Check::warning(CheckId::Clock, Side::Here, seen, next)
    }
}

fn daemon(serving: Option<&ServeFile>) -> Check {
    match serving {
        Some(serving) => Check::ok(CheckId::Daemon, Side::Here, format!("runs, pid {}", serving.pid)),
        None => Check::warning(
            CheckId::Daemon,
            Side::Here,
            "no daemon runs: nothing is sent and nobody can connect",
            "start `opmesh serve`, best by the service manager",
        ),
    }
}

/// Whether each takes connections; connecting is all that is done.
async fn listeners(serving: &ServeFile, peers: &[Peer]) -> Check {
    let clients = peers.iter().filter(|peer| peer.roles.authorized_client).count();
    let mut well = Vec::new();
    for listener in &serving.listen {
        let shown = format!("{} on {}", listener.channel, listener.address);
        if let Ok(address) = listener.address.parse::<SocketAddr>() {
            let connecting = TcpStream::connect(reachable(address));
            if !matches!(tokio::time::timeout(OWN_PATIENCE, connecting).await, Ok(Ok(_))) {
                let seen = format!("the listener {shown} takes no connections");
                return Check::fail(
                    CheckId::Listeners,
                    Side::Here,
                    seen,
                    "look at the daemon's log and restart it",
                );
            }
        }
        well.push(shown);
    }
    if well.is_empty() && clients > 0 {
        let seen =
            format!("the daemon listens on nothing, and {clients} hosts are listed that should dial it");
        return Check::warning(
            CheckId::Listeners,
            Side::Here,
            seen,
            "start it with `opmesh serve --listen ADDRESS`",
        );
    }
    let seen = if well.is_empty() { "none, as a pure host has none".to_owned() } else { words::list(&well) };
    Check::ok(CheckId::Listeners, Side::Here, seen)
}

/// An address by which this machine reaches its own listener.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

fn open_files(peers: &[Peer]) -> Check {
    let wanted = u64::try_from(peers.len()).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < wanted => {
            let seen = format!("{limit} files may be open, {wanted} are needed when every peer is connected");
            Check::warning(CheckId::OpenFiles, Side::Here, seen, "raise LimitNOFILE of the service")
        }
        Some(limit) => Check::ok(CheckId::OpenFiles, Side::Here, format!("{limit} files may be open")),
        None => Check::ok(CheckId::OpenFiles, Side::Here, "any number of files may be open"),
    }
}

/// Who failed lately before it had said who it is: one line for each fault, of the latest that met it.
fn dialers(failed: &[FailedDialer], now: UnixMs) -> Vec<Check> {
    let lately = |dialer: &&FailedDialer| u128::from(now.since(dialer.at)) < LATELY.as_millis();
    let mut told = Vec::new();
    let mut checks = Vec::new();
    for dialer in failed.iter().rev().filter(lately) {
        if told.contains(&&dialer.fault) {
            continue;
        }
        told.push(&dialer.fault);
        let seen =
            format!("a dialer at {} failed {}: {}", dialer.address, words::ago(dialer.at, now), dialer.fault);
        let next = match dialer.fault {
            HandshakeFault::NoCommonVersion { .. } | HandshakeFault::MalformedVersions(_) => {
                "upgrade the older of the two programs; hubs first, so that no host is newer than its hub"
            }
            HandshakeFault::WrongTarget => "that host means another hub: correct the URL or the key ID there",
            _ => {
                "if it is one of yours: compare `opmesh version` on both sides, and run `opmesh doctor` there"
            }
        };
        checks.push(Check::warning(CheckId::Dialers, Side::Peer, seen, next));
    }
    checks
}

fn version(schema: Option<u32>) -> Check {
    let schema = schema.map_or_else(String::new, |schema| format!(", schema {schema}"));
    let seen = format!("opmesh {PROGRAM}, protocol {}{schema}", words::list(&VERSIONS));
    Check::ok(CheckId::Version, Side::Here, seen)
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    #[test]
    fn a_clock_before_its_own_records_is_pointed_out_and_an_hour_is_a_fault() {
        let minutes = |n: i64| UnixMs(1_700_000_000_000 + n * 60_000);
        assert_eq!(clock(minutes(0), minutes(0)).state, State::Ok);
        assert_eq!(clock(minutes(0), minutes(4)).state, State::Ok);
        assert_eq!(clock(minutes(0), minutes(10)).state, State::Warning);
        let hour = clock(minutes(0), minutes(60));
        assert_eq!(hour.state, State::Fail);
        assert!(hour.seen.contains("1 h 0 min"), "{}", hour.seen);
    }

    #[test]
    fn a_damaged_page_is_named_and_a_large_file_is_not_read() {
        let health = |faults| Ok(StoreHealth { bytes: 4096, faults, newest: UnixMs(0) });
        assert_eq!(store(&health(Some(Vec::new())), Some(2)).state, State::Ok);
        let damaged = store(&health(Some(vec!["row 7 missing from index own_changes".to_owned()])), Some(2));
        assert_eq!(damaged.state, State::Fail);
        assert!(damaged.seen.contains("own_changes"));
        assert_eq!(store(&health(None), Some(2)).state, State::Ok);
    }

    #[test]
    fn a_disk_without_room_is_a_fault_and_one_below_the_reserve_a_warning() {
        let state = |free_bytes| room(Path::new("/d"), Disk { free_bytes, total_bytes: 1 << 40 }).state;
        assert_eq!([state(0), state(100 << 20), state(1 << 30)], [State::Fail, State::Warning, State::Ok]);
    }
}
