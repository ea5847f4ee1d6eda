//! The steps to a hub, one after the other; the first that fails is the last.

use std::net::SocketAddr;

use opmesh_core::permission::Grants;
use tokio::net::TcpStream;

use super::Report;
use super::check::{Check, CheckId, Side};
use super::reach::{self, Subject};
use crate::node::Node;
use crate::store::Peer;
use crate::transport::probe::{self, Answer, Stage};
use crate::transport::{Channel, DialError, HubUrl, Scheme};

/// Tries every URL of the hub in turn until one leads to it, as the dialer does.
pub(super) async fn dial(node: &Node, peer: &Peer, subject: &Subject, report: &Report) {
    let mut checks = Vec::new();
    for url in &peer.dial.urls {
        checks = match address(peer, url) {
            Ok(url) => steps(node, subject, &url, &peer.given).await,
            Err(fault) => vec![fault],
        };
        if checks.iter().any(|check| check.id == CheckId::Admission) {
            break;
        }
    }
    report.all(&peer.name, checks).await;
}

fn address(peer: &Peer, url: &str) -> Result<HubUrl, Check> {
    let fault = |fault: &dyn std::fmt::Display| {
        let next = format!("`opmesh peer set {} --url https://HOST:PORT`", peer.name);
        Check::fail(CheckId::Name, Side::Here, fault.to_string(), next)
    };
    let channel = peer.dial.channel.as_deref().map(str::parse::<Channel>).transpose();
    let channel = channel.map_err(|error| fault(&error))?;
    HubUrl::parse(url, channel).map_err(|error| fault(&error))
}

async fn steps(node: &Node, subject: &Subject, url: &HubUrl, given: &Grants) -> Vec<Check> {
    let found = probe::resolve(url).await;
    let mut checks = vec![reach::name(subject, url, &found)];
    let addresses = found.unwrap_or_default();
    if addresses.is_empty() {
        return checks;
    }
    let clock = node.clock();
    let begun = clock.monotonic();
    let socket = match probe::connect(&addresses).await {
        Ok(socket) => socket,
        Err(error) => {
            checks.push(reach::no_tcp(subject, url, &error));
            return checks;
        }
    };
    let took = clock.monotonic().saturating_sub(begun);
    checks.push(connected(&socket, took));
    checks.extend(inquire(node, subject, url, &addresses, socket, given).await);
    checks
}

fn connected(socket: &TcpStream, took: std::time::Duration) -> Check {
    let address = socket.peer_addr().map_or_else(|_| "it".to_owned(), |address| address.to_string());
    Check::ok(
        CheckId::Tcp,
        Side::Network,
        format!("{address} takes connections, after {} ms", took.as_millis()),
    )
}

async fn inquire(
    node: &Node,
    subject: &Subject,
    url: &HubUrl,
    addresses: &[SocketAddr],
    socket: TcpStream,
    given: &Grants,
) -> Vec<Check> {
    let line = match probe::secure(url, subject.key, socket).await {
        Ok(line) => line,
        Err(error) => {
            let answer = match error {
                DialError::NotAHub { .. } | DialError::OtherTls { .. } | DialError::NoWay { .. } => {
                    Some(probe::look(url, addresses).await)
                }
                _ => None,
            };
            return reach::no_channel(subject, url, &error, answer.as_ref());
        }
    };
    let secured = [Some(reach::channel(url)), reach::pinned(line.shown())];
    match probe::ask(node.local(), line, subject.key, url.clone()).await {
        Ok(asked) => secured.into_iter().flatten().chain(reach::admitted(subject, given, &asked)).collect(),
        Err((stage, ending)) => {
            // Without TLS nothing has been heard until here: whatever answers may be anything.
            if url.scheme == Scheme::Http && stage == Stage::Stream {
                let answer = probe::look(url, addresses).await;
                if answer != Answer::PlainHttp2 {
                    let error = DialError::NotAHub { url: url.to_string(), reason: ending.to_string() };
                    return reach::no_channel(subject, url, &error, Some(&answer));
                }
            }
            let failed = reach::no_answer(subject, url, stage, &ending);
            secured.into_iter().flatten().chain(failed).collect()
        }
    }
}
