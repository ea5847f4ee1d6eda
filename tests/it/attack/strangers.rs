//! Whoever is not let in hears the same, to the byte, whatever the reason.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use opmesh::identity::Identity;
use opmesh::pairing::PairingToken;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Target;
use super::http2::{END_STREAM, Http2, Received, grpc};
use crate::fleet::{Instance, until};

const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Why somebody is not let in, who that is, and with which token.
struct Case {
    name: &'static str,
    who: Identity,
    /// The token's secret.
    token: Option<[u8; 32]>,
    /// Whose signature the proof carries, if not its own.
    signed_by: Option<Identity>,
}

/// What somebody heard after its proof, and how long it took.
struct Heard {
    frames: Vec<Received>,
    took: Duration,
}

#[expect(clippy::disallowed_methods, reason = "the time of an answer is what is measured")]
async fn hear(target: Target, case: &Case) -> Heard {
    let mut connection = Http2::open(target, ATTACKER).await.unwrap();
    let token = case.token.as_ref().map(Identity::from_seed);
    let (signing, request) = connection.greet(&case.who, token.as_ref()).await.unwrap();
    let signer = case.signed_by.as_ref().unwrap_or(&case.who);
    let token = token.as_ref().zip(request.token.as_ref()).map(|(token, bytes)| token.sign(bytes));
    let (_, proof) = signing.signed(signer.sign(&request.identity), token);
    let said = Instant::now();
    connection.send(&grpc(&proof.into())).await.unwrap();
    connection.message().await.unwrap_err();
    Heard { took: said.elapsed(), frames: connection.others }
}

/// The fields of a block of headers, each as its bytes, without the date (RFC 7541, 6; all lengths here are short).
fn fields(block: &[u8]) -> Vec<&[u8]> {
    const DATE: u8 = 0x61; // literal with incremental indexing, name 33
    let mut fields = Vec::new();
    let mut rest = block;
    while let Some(first) = rest.first().copied() {
        let text = |at: usize| at + 1 + usize::from(rest[at] & 0x7f);
        let named = |index: u8| if index == 0 { text(1) } else { 1 };
        let end = match first {
            0x80.. => 1,
            0x40.. => text(named(first & 0x3f)),
            _ => text(named(first & 0x0f)),
        };
        if first != DATE {
            fields.push(&rest[..end]);
        }
        rest = &rest[end..];
    }
    fields
}

fn token(hub: &Instance, arguments: &[&str]) -> [u8; 32] {
    let token: PairingToken = hub.ok(&[&["pair", "token"], arguments].concat()).parse().unwrap();
    *token.seed()
}

fn key(number: u8) -> Identity {
    Identity::from_seed(&[number; 32])
}

/// Everything that one is not let in for, prepared at a real hub.
async fn prepare(hub: &Instance, target: Target) -> Vec<Case> {
    let add = |who: &Identity, verified: bool| {
        let id = who.key_id().to_string();
        hub.ok(&["peer", "add", "--key-id", &id]);
        if verified {
            hub.ok(&["peer", "verify", &id, "--key-id", &id]);
        }
        id
    };
    add(&key(2), true);
    add(&key(3), false);
    hub.ok(&["peer", "block", &add(&key(4), true), "--reason", "lost"]);
    let expired = token(hub, &["--ttl", "1s"]);
    let spent = token(hub, &[]);
    let mut pairing = Http2::open(target, ATTACKER).await.unwrap();
    pairing.prove(&key(5), Some(&Identity::from_seed(&spent))).await.unwrap();
    until("both tokens are useless", || hub.json(&["pair", "tokens"]).as_array().unwrap().is_empty());
    let case = |name, who, token| Case { name, who: key(who), token, signed_by: None };
    vec![
        case("unknown key", 6, None),
        Case { signed_by: Some(key(6)), ..case("bad signature of a listed key", 2, None) },
        Case { signed_by: Some(key(6)), ..case("bad signature of an unknown key", 7, None) },
        case("unverified key", 3, None),
        case("blocked key", 4, None),
        case("expired token", 6, Some(expired)),
        case("spent token", 6, Some(spent)),
        case("unknown token", 6, Some([90; 32])),
        case("blocked key with a spent token", 4, Some(spent)),
        case("unverified key with an expired token", 3, Some(expired)),
    ]
}

async fn compare(channel: &str) {
    let mut hub = Instance::new("hub");
    let limits = "[limits]\nattempts_per_minute_per_key = 20\nattempts_per_minute = 100000\n\
                  token_tries_per_minute = 100000\n";
    std::fs::write(hub.dir.join("opmesh.toml"), limits).unwrap();
    let ready = hub.serve(&format!("{channel}://127.0.0.1:0"));
    let target = Target::of(hub.ok(&["key", "show"]).trim(), &ready["listen"][0]);
    let cases = prepare(&hub, target).await;

    let first = hear(target, &cases[0]).await.frames;
    let [headers, trailers] = first.as_slice() else { panic!("headers and trailers: {first:?}") };
    assert_eq!(trailers.flags & END_STREAM, END_STREAM);
    let check = |name: &str, frames: &[Received]| {
        let [other_headers, other_trailers] = frames else { panic!("{name}: {frames:?}") };
        assert_eq!(fields(&other_headers.payload), fields(&headers.payload), "{name}");
        assert_eq!(other_headers.flags, headers.flags, "{name}");
        assert_eq!(other_trailers, trailers, "{name}");
    };
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..3 {
        for (case, times) in cases.iter().zip(&mut times) {
            let heard = hear(target, case).await;
            check(case.name, &heard.frames);
            times.push(heard.took);
        }
    }
    for (case, times) in cases.iter().zip(times) {
        let least = times.iter().min().unwrap().as_secs_f64() * 1e3;
        let most = times.iter().max().unwrap().as_secs_f64() * 1e3;
        println!("{channel}: {:40} {least:6.1} to {most:6.1} ms", case.name);
    }
    // The limit on attempts is one more reason, and looks like all the others.
    let mut hammering = JoinSet::new();
    let again = Arc::new(Case { name: "too many attempts", who: key(6), token: None, signed_by: None });
    for _ in 0..30 {
        let again = again.clone();
        hammering.spawn(async move { hear(target, &again).await });
    }
    let mut fastest = Duration::MAX;
    for heard in hammering.join_all().await {
        check("too many attempts", &heard.frames);
        fastest = fastest.min(heard.took);
    }
    until("the limit was reached", || hub.log().contains("asks too often"));
    println!("{channel}: {:40} {:6.1} ms at least", "too many attempts", fastest.as_secs_f64() * 1e3);
}

#[tokio::test]
async fn whoever_is_not_let_in_hears_the_same_bytes_over_tls() {
    compare("tls").await;
}

#[tokio::test]
async fn whoever_is_not_let_in_hears_the_same_bytes_over_plain() {
    compare("plain").await;
}
