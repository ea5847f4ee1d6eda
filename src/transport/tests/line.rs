//! Attackers on the line of real `tls` connections, by their number in the threat model.

use std::io;

use opmesh_core::handshake::HandshakeFault;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::super::tls;
use super::*;
use crate::transport::DialError;

/// Somebody who ends the TLS of both sides, with a key of its own, and passes on what is inside.
struct Between {
    url: HubUrl,
    _tasks: JoinSet<()>,
}

impl Between {
    async fn new(attacker: Identity, hub: &Instance) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = HubUrl { port: listener.local_addr().unwrap().port(), ..hub.url().clone() };
        let (acceptor, connector) = (tls::acceptor(&attacker).unwrap(), tls::connector(hub.key()).unwrap());
        let address = (hub.url().host.clone(), hub.url().port);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let (acceptor, connector, address) = (acceptor.clone(), connector.clone(), address.clone());
                connections.spawn(async move {
                    let mut near = acceptor.accept(near).await?;
                    let far = TcpStream::connect(address).await?;
                    let name = ServerName::try_from("127.0.0.1").map_err(io::Error::other)?;
                    let mut far = connector.connect(name, far).await?;
                    tokio::io::copy_bidirectional(&mut near, &mut far).await
                });
            }
        });
        Self { url, _tasks: tasks }
    }
}

#[tokio::test]
async fn attacker_01_ends_both_tls_connections_with_a_key_of_its_own() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let attacker = Identity::from_seed(&[66; 32]);
    let between = Between::new(attacker, &hub).await;
    let mut host = Instance::new(2);
    hub.authorize(&host.local.me().identity).await;
    host.dial(hub.key(), &between.url, ALL).await;
    let ending = host.hears_ending(hub.key()).await;
    assert!(matches!(ending, Ending::Dial(DialError::OtherKey { .. })), "{ending:?}");
    assert_eq!(hub.local.sessions.live(), []);
}

/// The attacker is a hub that the host trusts: its certificate is the pinned one, what is said comes from elsewhere.
#[tokio::test]
async fn attackers_02_and_16_relay_under_a_trusted_certificate_to_another_hub() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let attacker = Identity::from_seed(&[66; 32]);
    let trusted = attacker.key_id();
    let between = Between::new(attacker, &hub).await;
    let mut host = Instance::new(2);
    hub.authorize(&host.local.me().identity).await;
    host.dial(trusted, &between.url, ALL).await;
    // The hub is the first to notice: it is not the one that is meant.
    let ending = host.hears_ending(trusted).await;
    assert!(matches!(ending, Ending::TurnedAway(_)), "{ending:?}");

    // An attacker that also makes the Hello fit: the answer has another key than the certificate.
    let url = between.url.clone();
    let mut raw = raw::Raw::open(&url, trusted).await;
    raw.hub = hub.key();
    let me = host.local.me().identity;
    let (waiting, hello) = opmesh_core::handshake::Dialer::start(raw.config(&me, None), raw::NONCE);
    drop(waiting);
    raw.send(hello.clone()).await;
    let challenge = crate::wire::challenge(raw.receive().await.unwrap()).unwrap();
    raw.hub = trusted;
    let (as_meant, _) = opmesh_core::handshake::Dialer::start(raw.config(&me, None), raw::NONCE);
    let fault = as_meant.challenge(challenge).unwrap_err();
    let other = matches!(fault, HandshakeFault::WrongHub { .. } | HandshakeFault::TlsKeyDiffers { .. });
    assert!(other, "{fault}");
    assert_eq!(hub.local.sessions.live(), []);
}

/// What is done to the records that a dialer sends after the handshake.
#[derive(Debug, Clone, Copy)]
enum Mischief {
    Swap,
    Repeat,
    LeaveOut,
    Cut,
    Flip,
}

/// Encrypted records of the dialer that pass before the mischief: the handshake and the first frames.
const SPARED: usize = 12;

/// Passes records on, and does its mischief once. Later connections pass unharmed.
struct Wire {
    url: HubUrl,
    _tasks: JoinSet<()>,
}

impl Wire {
    async fn new(hub: &Instance, mischief: Mischief) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = HubUrl { port: listener.local_addr().unwrap().port(), ..hub.url().clone() };
        let address = (hub.url().host.clone(), hub.url().port);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            let mut mischief = Some(mischief);
            while let Ok((near, _)) = listener.accept().await {
                let (address, mischief) = (address.clone(), mischief.take());
                connections.spawn(async move {
                    let far = TcpStream::connect(address).await?;
                    let (near_in, mut near_out) = near.into_split();
                    let (mut far_in, far_out) = far.into_split();
                    let there = spoil(near_in, far_out, mischief);
                    let back = async { tokio::io::copy(&mut far_in, &mut near_out).await.map(drop) };
                    tokio::try_join!(there, back).map(drop)
                });
            }
        });
        Self { url, _tasks: tasks }
    }
}

type In = tokio::net::tcp::OwnedReadHalf;
type Out = tokio::net::tcp::OwnedWriteHalf;

async fn record(from: &mut In) -> io::Result<Vec<u8>> {
    let mut record = vec![0; 5];
    from.read_exact(&mut record).await?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    from.read_exact(&mut record[5..]).await?;
    Ok(record)
}

async fn spoil(mut from: In, mut to: Out, mut mischief: Option<Mischief>) -> io::Result<()> {
    let mut encrypted = 0;
    loop {
        let mut one = record(&mut from).await?;
        encrypted += usize::from(one[0] == 23);
        if encrypted <= SPARED {
            to.write_all(&one).await?;
            continue;
        }
        match mischief.take() {
            None => to.write_all(&one).await?,
            Some(Mischief::Swap) => {
                let two = record(&mut from).await?;
                to.write_all(&two).await?;
                to.write_all(&one).await?;
            }
            Some(Mischief::Repeat) => {
                to.write_all(&one).await?;
                to.write_all(&one).await?;
            }
            Some(Mischief::LeaveOut) => {}
            Some(Mischief::Cut) => {
                to.write_all(&one[..one.len() / 2]).await?;
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Some(Mischief::Flip) => {
                let last = one.len() - 1;
                one[last] ^= 1;
                to.write_all(&one).await?;
            }
        }
    }
}

#[tokio::test]
async fn attacker_15_reorders_repeats_leaves_out_cuts_and_changes_what_follows_the_handshake() {
    for mischief in [Mischief::Swap, Mischief::Repeat, Mischief::LeaveOut, Mischief::Cut, Mischief::Flip] {
        let hub = Instance::hub(1, "127.0.0.1:0").await;
        let wire = Wire::new(&hub, mischief).await;
        let mut host = Instance::new(2);
        host.record_many(1_500).await;
        hub.authorize(&host.local.me().identity).await;
        host.dial(hub.key(), &wire.url, ALL).await;
        // The line's work is noticed: the session breaks, and nobody says that it ended.
        let ending = host.hears_ending(hub.key()).await;
        let broken = matches!(ending, Ending::Interrupted(_) | Ending::HubError { .. });
        assert!(broken, "{mischief:?}: {ending:?}");
        let held = hub.local.store.verify_host(&host.key()).await.unwrap();
        assert!(held.bad_operations.is_empty(), "{mischief:?}: what arrived is what was sent");
        host.redial.notify_one();
        host.hears_proof_of(hub.key(), 1_500).await;
        assert!(hub.local.store.verify_host(&host.key()).await.unwrap().equal(), "{mischief:?}");
        host.shut_down().await;
        hub.shut_down().await;
    }
}
