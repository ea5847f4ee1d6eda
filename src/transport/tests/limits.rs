//! The limits on connections, attempts and sessions, over real sockets.

use std::net::SocketAddr;

use opmesh_core::protocol::EndReason;
use opmesh_core::session::Finish;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tonic::Code;

use super::super::connection::{USER_TIMEOUT, prepare};
use super::super::{STRANGER, client};
use super::raw::Raw;
use super::*;
use crate::store::{NewToken, Refusal};
use crate::wire;
use opmesh_core::model::UnixMs;

/// An address of this machine that is not shared, so that the limits on one address count for it.
const ELSEWHERE: &str = "127.0.0.9:0";

fn hub_address(hub: &Instance) -> SocketAddr {
    format!("{}:{}", hub.url().host, hub.url().port).parse().unwrap()
}

async fn reach_from(from: &str, hub: &Instance) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(from.parse().unwrap()).unwrap();
    socket.connect(hub_address(hub)).await.unwrap()
}

/// Whether the hub has closed the connection, or does within the time that a handshake may not even take.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut [0])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

fn hub_with(limits: Limits) -> Instance {
    Instance::with(1, Clock::system(), limits)
}

#[tokio::test]
async fn an_address_with_eight_silent_connections_loses_one_of_them_to_a_ninth() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let mut silent = Vec::new();
    for _ in 0..9 {
        silent.push(reach_from(ELSEWHERE, &hub).await);
    }
    let mut ended = 0;
    while ended == 0 {
        for stream in &mut silent {
            ended += usize::from(is_closed(stream).await);
        }
    }
    assert_eq!(ended, 1);
    assert!(client::connect(hub.url(), hub.key()).await.is_ok(), "others are not concerned");
}

#[tokio::test]
async fn an_address_that_comes_too_fast_is_turned_away_and_others_are_not() {
    let limits = Limits { accepts_per_second_per_address: 1, ..Limits::default() };
    let hub = hub_with(limits).listening("127.0.0.1:0").await;
    let mut here = [reach_from(ELSEWHERE, &hub).await, reach_from(ELSEWHERE, &hub).await];
    let mut third = reach_from(ELSEWHERE, &hub).await;
    assert!(is_closed(&mut third).await);
    for stream in &mut here {
        assert!(!is_closed(stream).await);
    }
    for _ in 0..20 {
        client::connect(hub.url(), hub.key()).await.unwrap();
    }
}

#[tokio::test]
async fn one_connection_past_all_connections_is_turned_away() {
    let hub = hub_with(Limits { connections: 2, ..Limits::default() }).listening("127.0.0.1:0").await;
    let mut held = [reach_from(ELSEWHERE, &hub).await, reach_from(ELSEWHERE, &hub).await];
    let mut third = reach_from(ELSEWHERE, &hub).await;
    assert!(is_closed(&mut third).await);
    for stream in &mut held {
        assert!(!is_closed(stream).await);
    }
}

#[tokio::test]
async fn a_key_that_is_not_let_in_is_heard_so_often_and_a_listed_one_always() {
    let limits = Limits { attempts_per_minute: 3, ..Limits::default() };
    let hub = hub_with(limits).listening("127.0.0.1:0").await;
    let blocked = Identity::from_seed(&[4; 32]);
    hub.authorize(&blocked).await;
    hub.edit(blocked.key_id(), PeerEdit::Block { reason: String::new() }).await;
    let listed = Identity::from_seed(&[2; 32]);
    hub.authorize(&listed).await;
    let open = async || Raw::open(hub.url(), hub.key()).await;
    for attempt in 0..5 {
        // What a store that was not asked cannot note.
        hub.edit(blocked.key_id(), PeerEdit::Unblock).await;
        hub.edit(blocked.key_id(), PeerEdit::Block { reason: String::new() }).await;
        let refused = open().await.shake_hands(&blocked, None).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, STRANGER));
        let noted = hub.local.store.peer(&blocked.key_id()).await.unwrap().unwrap().refused;
        assert_eq!(noted.is_some_and(|(why, _)| why == Refusal::Blocked), attempt < 3, "{attempt}");
    }
    for _ in 0..10 {
        open().await.shake_hands(&listed, None).await.unwrap();
    }
}

#[tokio::test]
async fn bad_tokens_use_up_the_tries_of_those_who_bring_tokens_and_of_nobody_else() {
    let limits = Limits { token_tries_per_minute: 2, ..Limits::default() };
    let hub = hub_with(limits).listening("127.0.0.1:0").await;
    let listed = Identity::from_seed(&[2; 32]);
    hub.authorize(&listed).await;
    let good = Identity::from_seed(&[91; 32]);
    let new_token = NewToken {
        public_key: good.public_key(),
        grants: Grants::default(),
        label: String::new(),
        expires: UnixMs(i64::MAX),
        uses: 1,
    };
    hub.local.store.add_token(new_token).await.unwrap();
    let open = async || Raw::open(hub.url(), hub.key()).await;
    for seed in [92, 93] {
        let bad = Identity::from_seed(&[seed; 32]);
        open().await.shake_hands(&Identity::from_seed(&[5; 32]), Some(&bad)).await.unwrap_err();
    }
    let mut late = open().await;
    late.shake_hands(&Identity::from_seed(&[6; 32]), Some(&good)).await.unwrap_err();
    open().await.shake_hands(&listed, None).await.unwrap();
    open().await.shake_hands(&listed, Some(&good)).await.unwrap();
}

#[tokio::test]
async fn an_old_session_ends_with_its_reason_and_the_dialer_comes_back_at_once() {
    let limits = Limits { session_age: Duration::from_millis(500), ..Limits::default() };
    let hub = hub_with(limits).listening("127.0.0.1:0").await;
    let mut host = connected(2, &hub, ALL).await;
    host.hears_proof_of(hub.key(), 0).await;
    let ended = host.hears_ending(hub.key()).await;
    assert_eq!(ended, Ending::Finished(Finish::PeerEnded(EndReason::Aged)));
    host.record("plan", "afterwards").await;
    host.hears_proof_of(hub.key(), 1).await;
}

#[tokio::test]
async fn who_does_not_confirm_is_cut_off_when_the_time_of_the_handshake_is_over() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let me = Identity::from_seed(&[2; 32]);
    hub.authorize(&me).await;
    let mut raw = Raw::open(hub.url(), hub.key()).await;
    let (_, _, signing, request) = raw.greet(&me, None).await;
    let (_, proof) = signing.signed(me.sign(&request.identity), None);
    raw.send(proof).await;
    wire::accepted(raw.receive().await.unwrap()).unwrap();
    let refused = raw.receive().await.unwrap_err();
    assert_ne!(refused.code(), Code::Ok);
    assert_eq!(hub.local.sessions.live(), []);
}

#[tokio::test]
async fn a_peer_that_is_gone_is_noticed_by_the_system_and_small_frames_do_not_wait() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let socket = TcpStream::connect(hub_address(&hub)).await.unwrap();
    prepare(&socket).unwrap();
    assert!(socket.nodelay().unwrap());
    let timeout = rustix::net::sockopt::tcp_user_timeout(&socket).unwrap();
    assert_eq!(u128::from(timeout), USER_TIMEOUT.as_millis());
}

#[tokio::test]
async fn compressed_messages_are_not_understood() {
    use crate::wire::peer_sync_client::PeerSyncClient;
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    for encoding in ["gzip", "deflate", "zstd"] {
        let http = client::connect(hub.url(), hub.key()).await.unwrap().http;
        let mut request = tonic::Request::new(tokio_stream::pending());
        request.metadata_mut().insert("grpc-encoding", encoding.parse().unwrap());
        let refused = PeerSyncClient::new(http).sync(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{encoding}: {refused}");
    }
    let lock = include_str!("../../../Cargo.lock");
    let tonic = lock.split("[[package]]").find(|package| package.contains("name = \"tonic\"\n")).unwrap();
    assert!(!tonic.contains("flate2") && !tonic.contains("zstd"), "no decoder is built in: {tonic}");
}
