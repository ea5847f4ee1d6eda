//! A thousand strangers with one pairing token, and what of it can be seen on the way.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use opmesh_core::handshake::DialerAwaitingAccepted;
use opmesh_core::model::UnixMs;
use prost::Message as _;
use tokio::task::JoinSet;
use tonic::Code;

use super::super::STRANGER;
use super::raw::Raw;
use super::*;
use crate::store::NewToken;
use crate::wire::{self, Frame};

const SEED: [u8; 32] = *b"a pairing seed that nobody sees!";
const RACERS: u16 = 1000;
/// Racers that hold their proof ready at the same time: each handshake has ten seconds.
const HEAT: u16 = 100;

/// Far more than any honest hub is asked for.
fn generous() -> Limits {
    let many = 1_000_000;
    Limits {
        unauthenticated: 2000,
        unauthenticated_per_address: 1900,
        accepts_per_second: many,
        accepts_per_second_per_address: many,
        attempts_per_minute: many,
        attempts_per_minute_per_address: many,
        attempts_per_minute_per_key: many,
        token_tries_per_minute: many,
        token_tries_per_minute_per_address: many,
        ..Limits::default()
    }
}

async fn hub_with_token(expires: UnixMs) -> Instance {
    let hub = Instance::with(1, Clock::system(), generous()).listening("127.0.0.1:0").await;
    add_token(&hub, expires).await;
    hub
}

async fn add_token(hub: &Instance, expires: UnixMs) {
    let token = NewToken {
        public_key: Identity::from_seed(&SEED).public_key(),
        grants: Grants::default(),
        label: String::new(),
        expires,
        uses: 1,
    };
    hub.local.store.add_token(token).await.unwrap();
}

fn racer(number: u16) -> Identity {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&number.to_le_bytes());
    Identity::from_seed(&seed)
}

/// A racer at the line: everything is said but its proof.
struct Ready {
    raw: Raw,
    waiting: DialerAwaitingAccepted,
    proof: Frame,
    /// What went over the wire so far, in both directions.
    heard: Vec<Vec<u8>>,
}

async fn ready(url: HubUrl, hub: KeyId, me: Identity) -> Ready {
    let token = Identity::from_seed(&SEED);
    let mut raw = Raw::open(&url, hub).await;
    let (hello, challenge, signing, request) = raw.greet(&me, Some(&token)).await;
    let signature = token.sign(&request.token.unwrap());
    let (waiting, proof) = signing.signed(me.sign(&request.identity), Some(signature));
    let said: [Frame; 2] = [hello.into(), challenge.into()];
    Ready { raw, waiting, proof: proof.into(), heard: said.iter().map(Frame::encode_to_vec).collect() }
}

/// Says the proof; whether the hub let it in, and all that was on the wire.
async fn run(mut ready: Ready) -> (bool, Vec<Vec<u8>>) {
    ready.heard.push(ready.proof.encode_to_vec());
    ready.raw.send(ready.proof).await;
    match ready.raw.receive().await {
        Ok(frame) => {
            ready.heard.push(frame.encode_to_vec());
            ready.waiting.accepted(wire::accepted(frame).unwrap()).unwrap();
            (true, ready.heard)
        }
        Err(refused) => {
            assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, STRANGER));
            (false, ready.heard)
        }
    }
}

/// Lets these race; how many won, and everything that was on any wire.
async fn race(hub: &Instance, racers: std::ops::Range<u16>) -> (usize, Vec<Vec<u8>>) {
    let mut line = JoinSet::new();
    for number in racers {
        line.spawn(ready(hub.url().clone(), hub.key(), racer(number)));
    }
    // Nobody runs before all are ready.
    let ready = line.join_all().await;
    let mut running = JoinSet::new();
    for ready in ready {
        running.spawn(run(ready));
    }
    let (mut winners, mut wire) = (0, Vec::new());
    for (won, heard) in running.join_all().await {
        winners += usize::from(won);
        wire.extend(heard);
    }
    (winners, wire)
}

fn contains(bytes: &[u8], secret: &[u8]) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_racers_with_one_token_one_wins_and_the_secret_is_on_no_wire() {
    let hub = hub_with_token(UnixMs(i64::MAX)).await;
    let hex = blake3::Hash::from_bytes(SEED).to_hex().to_string();
    let forms = [
        SEED.to_vec(),
        hex.into_bytes(),
        STANDARD_NO_PAD.encode(SEED).into(),
        URL_SAFE_NO_PAD.encode(SEED).into(),
    ];
    let mut winners = Vec::new();
    for heat in 0..RACERS / HEAT {
        let (won, wire) = race(&hub, heat * HEAT..(heat + 1) * HEAT).await;
        winners.push(won);
        assert!(wire.len() >= usize::from(HEAT) * 3);
        for bytes in &wire {
            assert!(!forms.iter().any(|form| contains(bytes, form)));
        }
    }
    assert_eq!((winners[0], winners.iter().sum::<usize>()), (1, 1), "{winners:?}");
    assert_eq!(hub.local.store.peers().await.unwrap().len(), 1);
    assert!(hub.local.store.tokens().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_wins_with_a_token_that_has_expired_or_was_used_before_a_restart() {
    let hub = hub_with_token(UnixMs(1)).await;
    assert_eq!(race(&hub, 0..30).await.0, 0);

    let hub = hub_with_token(UnixMs(i64::MAX)).await;
    assert_eq!(race(&hub, 0..10).await.0, 1);
    hub.stop.cancel();
    hub.local.store.close().await;
    let again = hub.reopened(1, generous()).listening("127.0.0.1:0").await;
    assert_eq!(race(&again, 10..40).await.0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_database_pairs_nobody() {
    let hub = hub_with_token(UnixMs(i64::MAX)).await;
    hub.local.store.close().await;
    let database = hub.folder.path().join("opmesh.db");
    let bytes = std::fs::read(&database).unwrap();
    assert!(!contains(&bytes, &SEED) && !contains(&bytes, URL_SAFE_NO_PAD.encode(SEED).as_bytes()));
    let public = Identity::from_seed(&SEED).public_key();
    assert!(contains(&bytes, &public.0), "what is there is the public half");
    // What the thief can take for a secret: any 32 bytes around the token's row.
    let at = bytes.windows(32).position(|window| window == public.0).unwrap();
    let near = bytes[at.saturating_sub(256)..at + 256].to_vec();
    assert!(
        near.windows(32).all(|seed| { Identity::from_seed(seed.try_into().unwrap()).public_key() != public })
    );
}
