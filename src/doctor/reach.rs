//! What the steps to a hub showed, as checks. Pure: the steps are made in `dial`.

use std::net::SocketAddr;
use std::time::Duration;

use opmesh_core::handshake::{HandshakeFault, VERSIONS};
use opmesh_core::model::KeyId;
use opmesh_core::permission::Grants;
use opmesh_core::protocol::{Findings, Room, Standing};

use super::check::{Check, CheckId, Side};
use super::grants::{Known, grants};
use super::words;
use crate::store::Role;
use crate::transport::probe::{Answer, Shown, Stage, Told};
use crate::transport::{Channel, DEFAULT_PORT, DialError, Ending, HubUrl, PROGRAM, Scheme};

/// Clocks that differ by more are pointed out.
const CLOCKS_DIFFER: Duration = Duration::from_mins(5);
/// Clocks that differ by so much mislead: tokens expire early or late, and lists show runs at wrong times.
const CLOCKS_WRONG: Duration = Duration::from_mins(30);

/// The peer that is looked at.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    /// What it is called here.
    pub(super) name: String,
    /// Its key.
    pub(super) key: KeyId,
    /// This instance's key.
    pub(super) own: KeyId,
}

impl Subject {
    fn set_url(&self) -> String {
        format!("`opmesh peer set {} --url https://HOST:PORT`", self.name)
    }

    fn ask_the_hub(&self) -> String {
        format!("on the hub run `opmesh doctor {}`", self.own)
    }
}

/// The URL's host as addresses.
pub(super) fn name(subject: &Subject, url: &HubUrl, found: &Result<Vec<SocketAddr>, String>) -> Check {
    let correct = || format!("correct the name with {}, or this machine's resolver", subject.set_url());
    match found {
        Ok(addresses) if !addresses.is_empty() => {
            let addresses: Vec<_> = addresses.iter().map(SocketAddr::ip).collect();
            Check::ok(CheckId::Name, Side::Network, format!("{} is {}", url.host, words::list(&addresses)))
        }
        Ok(_) => Check::fail(CheckId::Name, Side::Network, format!("{} has no address", url.host), correct()),
        Err(reason) => {
            let seen = format!("{} cannot be resolved: {reason}", url.host);
            Check::fail(CheckId::Name, Side::Network, seen, correct())
        }
    }
}

/// No TCP connection.
pub(super) fn no_tcp(subject: &Subject, url: &HubUrl, error: &std::io::Error) -> Check {
    if error.kind() == std::io::ErrorKind::ConnectionRefused {
        let seen = format!("nothing listens on port {} of {}: {error}", url.port, url.host);
        let next = format!(
            "start `opmesh serve` there, or correct the port with {} (hubs listen on {DEFAULT_PORT} unless told \
             otherwise)",
            subject.set_url()
        );
        return Check::fail(CheckId::Tcp, Side::Peer, seen, next);
    }
    let seen = format!("{} does not answer on port {}: {error}", url.host, url.port);
    let next =
        format!("open the port in the firewalls between, or correct the address with {}", subject.set_url());
    Check::fail(CheckId::Tcp, Side::Network, seen, next)
}

/// The channel came about.
pub(super) fn channel(url: &HubUrl) -> Check {
    let seen = match (url.channel, url.scheme) {
        (Channel::Tls, _) => "TLS 1.3, ALPN h2, X25519MLKEM768",
        (Channel::Sealed, Scheme::Https) => "somebody's TLS, ALPN h2, trusted for nothing: sealed inside",
        (Channel::Sealed, Scheme::Http) => "HTTP/2 without TLS: sealed inside",
        (Channel::Plain, _) => "plain HTTP/2, on this machine",
    };
    Check::ok(CheckId::Channel, Side::Network, seen)
}

/// The key in the hub's certificate is the one that is expected.
pub(super) fn pinned(shown: Option<KeyId>) -> Option<Check> {
    shown.map(|key| Check::ok(CheckId::KeyPin, Side::Peer, format!("the certificate carries {key}")))
}

/// The channel did not come about; `answer` is what answers there instead, where that was looked at.
pub(super) fn no_channel(
    subject: &Subject,
    url: &HubUrl,
    error: &DialError,
    answer: Option<&Answer>,
) -> Vec<Check> {
    let fail = |side, seen: String, next: String| vec![Check::fail(CheckId::Channel, side, seen, next)];
    match (error, answer) {
        (DialError::OtherKey { other, .. }, _) => vec![channel(url), other_key(subject, other.presented)],
        (DialError::NotAHub { .. } | DialError::OtherTls { .. } | DialError::NoWay { .. }, Some(answer)) => {
            vec![not_a_hub(subject, url, error, answer)]
        }
        (DialError::NotLoopback { .. }, _) => fail(Side::Here, error.to_string(), subject.set_url()),
        (DialError::Setup { .. }, _) => {
            fail(Side::Here, error.to_string(), "look at this instance's log".to_owned())
        }
        (
            DialError::NotAHub { .. }
            | DialError::OtherTls { .. }
            | DialError::NoWay { .. }
            | DialError::Unreachable { .. },
            _,
        ) => {
            let next = format!("look at the hub's log, and correct the address with {}", subject.set_url());
            fail(Side::Peer, error.to_string(), next)
        }
    }
}

fn other_key(subject: &Subject, presented: KeyId) -> Check {
    if presented == subject.own {
        let seen = "the URL leads back to this instance: it shows this instance's own key".to_owned();
        return Check::fail(
            CheckId::KeyPin,
            Side::Here,
            seen,
            format!("correct it with {}", subject.set_url()),
        );
    }
    let seen = format!("expected the key {}, but {presented} answered; this side refuses it", subject.key);
    let next = format!(
        "compare with `opmesh key show` on the hub: if the hub has a new key, `opmesh peer remove {0}` and pair \
         again; if not, another instance answers at this address, so correct it with {1}",
        subject.name,
        subject.set_url()
    );
    Check::fail(CheckId::KeyPin, Side::Here, seen, next)
}

fn not_a_hub(subject: &Subject, url: &HubUrl, error: &DialError, answer: &Answer) -> Check {
    let wrong_port = || {
        format!(
            "something else has this port: correct it with {} (hubs listen on {DEFAULT_PORT} unless told otherwise)",
            subject.set_url()
        )
    };
    let (side, seen, next) = match (answer, url.channel) {
        (Answer::PlainHttp2, Channel::Tls) => (
            Side::Peer,
            "it answers HTTP/2 without TLS: a plain listener, or a proxy that expects no TLS".to_owned(),
            format!(
                "let the hub listen with TLS (`opmesh serve --listen tls://ADDRESS`), or correct the port with {}",
                subject.set_url()
            ),
        ),
        (Answer::PlainHttp1, _) => (
            Side::Peer,
            format!("a web server answers on port {}, no hub: HTTP/1, without TLS", url.port),
            wrong_port(),
        ),
        (Answer::Other(words), _) => {
            (Side::Peer, format!("another service answers on port {}: {words:?}", url.port), wrong_port())
        }
        (Answer::Tls(_) | Answer::OnlyTls, Channel::Plain) => (
            Side::Peer,
            "it answers with TLS, and the entry says plain".to_owned(),
            format!(
                "`opmesh peer set {} --url https://{}:{} --channel tls`",
                subject.name, url.host, url.port
            ),
        ),
        (Answer::PlainHttp2, Channel::Sealed) if url.scheme == Scheme::Https => (
            Side::Network,
            "it answers HTTP/2 without TLS, and the entry says https".to_owned(),
            sealed_at(subject, url, "http"),
        ),
        (Answer::Tls(_) | Answer::OnlyTls, Channel::Sealed) if url.scheme == Scheme::Http => (
            Side::Network,
            "it answers with TLS, and the entry says http".to_owned(),
            sealed_at(subject, url, "https"),
        ),
        (Answer::Tls(_) | Answer::OnlyTls, Channel::Sealed) => (
            Side::Network,
            format!("TLS answers, but no stream can pass: {error}"),
            "allow HTTP/2 (ALPN h2) in the proxy (docs/operations.md, behind a proxy)".to_owned(),
        ),
        (Answer::Tls(shown), Channel::Tls) => return foreign_tls(subject, error, shown),
        (Answer::OnlyTls, Channel::Tls) => (
            Side::Network,
            format!(
                "TLS ends before the hub: what answers does not speak it as opmesh does (1.3, X25519MLKEM768, an \
                 ed25519 key): {error}"
            ),
            SEALED.to_owned(),
        ),
        (Answer::Nothing, _) | (Answer::PlainHttp2, Channel::Plain | Channel::Sealed) => {
            (Side::Peer, format!("it takes connections, but answers nothing: {error}"), wrong_port())
        }
    };
    Check::fail(CheckId::Channel, side, seen, next)
}

fn sealed_at(subject: &Subject, url: &HubUrl, scheme: &str) -> String {
    format!("`opmesh peer set {} --url {scheme}://{}:{} --channel sealed`", subject.name, url.host, url.port)
}

const SEALED: &str = "something between ends TLS: let it pass TCP through, or use the sealed channel on both sides \
                      (docs/operations.md, behind a proxy)";

/// TLS came about once nothing was demanded of it.
fn foreign_tls(subject: &Subject, error: &DialError, shown: &Shown) -> Check {
    let Shown { version, alpn, key } = shown;
    let alpn = if alpn.is_empty() { "none" } else { alpn };
    match key {
        Some(key) if *key != subject.key => other_key(subject, *key),
        Some(key) => {
            let seen = format!(
                "{key} answers with {version}, ALPN {alpn}, and yet no connection came about: {error}"
            );
            Check::fail(CheckId::Channel, Side::Peer, seen, subject.ask_the_hub())
        }
        None => {
            let seen = format!(
                "TLS ends before the hub: {version}, ALPN {alpn}, with a certificate that carries no key of opmesh, \
                 as a TLS-terminating proxy or a web server shows"
            );
            Check::fail(CheckId::Channel, Side::Network, seen, SEALED)
        }
    }
}

/// The inquiry failed at this stage.
pub(super) fn no_answer(subject: &Subject, url: &HubUrl, stage: Stage, ending: &Ending) -> Vec<Check> {
    if let Some(check) = other_channel(subject, ending) {
        return vec![check];
    }
    match stage {
        Stage::Stream => vec![no_stream(subject, url, ending)],
        Stage::Challenge => no_challenge(subject, url, ending),
        Stage::Admission => {
            let mut checks = streams_and_speaks();
            checks.push(not_admitted(subject, ending));
            checks
        }
        Stage::Findings => {
            let mut checks = streams_and_speaks();
            checks.push(Check::ok(CheckId::Admission, Side::Peer, "the hub lets this instance in"));
            let seen = format!("the hub broke off when it was asked how it stands: {ending}");
            checks.push(Check::fail(CheckId::PeerStore, Side::Peer, seen, "on the hub run `opmesh doctor`"));
            checks
        }
    }
}

/// The hub's listener is of another channel than the entry.
fn other_channel(subject: &Subject, ending: &Ending) -> Option<Check> {
    let Ending::HubError { code, text } = ending else { return None };
    let next = format!(
        "give the entry the channel that the hub names: `opmesh peer set {} --channel …`",
        subject.name
    );
    let seen = format!("the hub's listener and the entry have different channels: {text}");
    (code == "FailedPrecondition").then(|| Check::fail(CheckId::Channel, Side::Peer, seen, next))
}

fn no_stream(subject: &Subject, url: &HubUrl, ending: &Ending) -> Check {
    let fail = |side, seen: String, next: &str| Check::fail(CheckId::Stream, side, seen, next);
    match ending {
        Ending::HandshakeTimeout => silent(url),
        Ending::HubError { code, .. } if code == "ResourceExhausted" => fail(
            Side::Peer,
            format!("the hub has no room for another connection: {ending}"),
            "wait a minute; if it stays, look at the hub's log for connections that were turned away",
        ),
        Ending::HubError { .. } => fail(
            Side::Network,
            format!("HTTP/2 answers, but not a hub: {ending}"),
            "a web server or a proxy without a way to the hub is at this address: correct its configuration, or the \
             entry's URL",
        ),
        _ => fail(Side::Peer, format!("no stream came about: {ending}"), &subject.ask_the_hub()),
    }
}

/// Nothing comes back while this side keeps its half of the stream open.
fn silent(url: &HubUrl) -> Check {
    let (side, seen, next) = match url.channel {
        // The hub itself ended TLS: nobody between can hold messages back.
        Channel::Tls => (
            Side::Peer,
            "the hub takes the connection, but does not answer on it",
            "the hub's process stands still or is overloaded: look at its machine and its log",
        ),
        Channel::Plain | Channel::Sealed => (
            Side::Network,
            "nothing came back for as long as this side kept its stream open: something between collects a request \
             before it passes it on, or the hub stands still",
            "turn request and response buffering off in the proxy, or let it pass TCP through",
        ),
    };
    Check::fail(CheckId::Stream, side, seen, next)
}

fn no_challenge(subject: &Subject, url: &HubUrl, ending: &Ending) -> Vec<Check> {
    let speaks = words::list(&VERSIONS);
    let streams = || Check::ok(CheckId::Stream, Side::Network, STREAMS);
    let old = |seen: String| {
        let next = "upgrade the older side, hubs first: compare `opmesh version` here and there; the hub's \
                    `opmesh doctor` names what was offered to it";
        Check::fail(CheckId::Protocol, Side::Peer, seen, next)
    };
    match ending {
        Ending::HandshakeTimeout => vec![silent(url)],
        Ending::TurnedAway(_) => vec![
            streams(),
            old(format!(
                "the hub turned us away before it showed who it is: it speaks no version of the protocol that this \
                 program ({PROGRAM}, protocol {speaks}) speaks"
            )),
        ],
        Ending::Handshake(HandshakeFault::VersionNotOffered { version }) => vec![
            streams(),
            old(format!(
                "the hub chose protocol {version}; this program ({PROGRAM}) speaks protocol {speaks}"
            )),
        ],
        Ending::Handshake(HandshakeFault::WrongHub { presented, .. }) => {
            vec![streams(), other_key(subject, *presented)]
        }
        Ending::Handshake(HandshakeFault::OwnKey) => vec![streams(), other_key(subject, subject.own)],
        Ending::Handshake(fault) => {
            let seen = format!("the hub could not show who it is: {fault}");
            let next = "somebody changes what is said, or the programs do not fit: compare `opmesh version` on both sides";
            vec![streams(), Check::fail(CheckId::KeyPin, Side::Peer, seen, next)]
        }
        _ => vec![no_stream(subject, url, ending)],
    }
}

const STREAMS: &str = "messages come back while this side is still sending";

fn streams_and_speaks() -> Vec<Check> {
    vec![
        Check::ok(CheckId::Stream, Side::Network, STREAMS),
        Check::ok(CheckId::Protocol, Side::Peer, format!("protocol {}", words::list(&VERSIONS))),
    ]
}

fn not_admitted(subject: &Subject, ending: &Ending) -> Check {
    match ending {
        Ending::TurnedAway(_) => Check::fail(
            CheckId::Admission,
            Side::Peer,
            "the hub turns us away; it tells no dialer why",
            format!("{}: it names the reason and the command", subject.ask_the_hub()),
        ),
        Ending::HubError { code, .. } if matches!(code.as_str(), "Unavailable" | "Internal") => Check::fail(
            CheckId::PeerStore,
            Side::Peer,
            format!("the hub cannot look into its store: {ending}"),
            "on the hub run `opmesh doctor`: a full disk or a damaged store is named there",
        ),
        _ => Check::fail(
            CheckId::Admission,
            Side::Peer,
            format!("the handshake did not end well: {ending}"),
            subject.ask_the_hub(),
        ),
    }
}

/// The hub lets us in; what both sides' grants leave over.
pub(super) fn admitted(
    subject: &Subject,
    given: &Grants,
    asked: &crate::transport::probe::Asked,
) -> Vec<Check> {
    let mut checks = streams_and_speaks();
    checks.push(Check::ok(
        CheckId::Admission,
        Side::Peer,
        format!("this instance is let in by {}", asked.instance),
    ));
    checks.extend(grants(Known {
        role: Role::KnownHost,
        name: &subject.name,
        own: &subject.own,
        given,
        received: &asked.grants_received,
        accepted: Some(&asked.accepted),
    }));
    match &asked.findings {
        Some(told) => {
            checks.push(standing(subject, told.findings.standing));
            checks.push(clocks(told));
            checks.push(versions(&told.findings));
            checks.push(peer_store(&told.findings));
        }
        None => checks.push(Check::warning(
            CheckId::PeerVersion,
            Side::Peer,
            "the hub's program is older than this one: it cannot be asked for its clock, version and store",
            "upgrade the hub: hubs first",
        )),
    }
    checks
}

fn standing(subject: &Subject, standing: Standing) -> Check {
    let (own, id) = (&subject.own, CheckId::Standing);
    match standing {
        Standing::Well => Check::ok(id, Side::Peer, "the hub takes what it is sent"),
        Standing::CatchingUp => Check::ok(id, Side::Peer, "the hub compares and catches up"),
        Standing::NeedsDecision => Check::warning(
            id,
            Side::Peer,
            "the hub held deletes back: too many at once",
            format!("on the hub look at `opmesh hosts parked {own}`"),
        ),
        Standing::Quarantined => Check::fail(
            id,
            Side::Peer,
            "the hub has this host in quarantine: repairs kept ending unequal",
            format!(
                "`opmesh hosts verify --all` here and there, then `opmesh hosts release {own}` on the hub"
            ),
        ),
        Standing::IdentityConflict => Check::fail(
            id,
            Side::Peer,
            "the hub saw two histories of this identity and applies neither",
            format!(
                "find out whether this database or another one is the right one, then on the hub `opmesh peer resolve \
                 {own} --accept-presented` or `--refuse`"
            ),
        ),
    }
}

fn clocks(told: &Told) -> Check {
    let half = i64::try_from(told.round_trip.as_millis() / 2).unwrap_or(0);
    let ahead_ms = told.findings.at.0.saturating_sub(told.asked.0.saturating_add(half));
    let apart = Duration::from_millis(ahead_ms.unsigned_abs());
    let seen = match ahead_ms {
        _ if apart < Duration::from_secs(1) => "both clocks agree".to_owned(),
        1.. => format!("the hub's clock is {} ahead of this one", words::span(apart)),
        _ => format!("the hub's clock is {} behind this one", words::span(apart)),
    };
    let next = "find out which one is wrong (`timedatectl` on both machines) and let NTP set it: tokens and times in \
                lists go by it";
    if apart >= CLOCKS_WRONG {
        Check::fail(CheckId::PeerClock, Side::Peer, seen, next)
    } else if apart > CLOCKS_DIFFER {
        Check::warning(CheckId::PeerClock, Side::Peer, seen, next)
    } else {
        Check::ok(CheckId::PeerClock, Side::Peer, seen)
    }
}

fn versions(findings: &Findings) -> Check {
    let spoken = words::list(&findings.protocol_versions);
    let seen = format!(
        "the hub runs {} (protocol {spoken}), this host {PROGRAM} (protocol {})",
        findings.version,
        words::list(&VERSIONS)
    );
    if parts(&findings.version) < parts(PROGRAM) {
        let next = "upgrade the hub: hubs first, so that no host is newer than its hub";
        return Check::warning(CheckId::PeerVersion, Side::Peer, seen, next);
    }
    Check::ok(CheckId::PeerVersion, Side::Peer, seen)
}

/// The numbers of a version, for comparing; what is no number ends it.
fn parts(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

fn peer_store(findings: &Findings) -> Check {
    let next = "make room on the hub's disk: `opmesh doctor` there says how much";
    let seen = |words: &str| format!("the hub's store has schema {} and {words}", findings.schema);
    match findings.room {
        Room::Enough => Check::ok(CheckId::PeerStore, Side::Peer, seen("enough room")),
        Room::Unknown => Check::ok(CheckId::PeerStore, Side::Peer, seen("does not say how much room")),
        Room::Low => Check::warning(CheckId::PeerStore, Side::Peer, seen("little room left"), next),
        Room::Full => Check::fail(CheckId::PeerStore, Side::Peer, seen("a full disk"), next),
    }
}
