//! What a listener announces in HTTP/2, read byte by byte.

use std::collections::BTreeMap;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::{client, http2, tls};
use super::Instance;

const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
/// The window that every connection begins with (RFC 9113, 6.9.2).
const FIRST_WINDOW: u32 = 65_535;

async fn frame(stream: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.unwrap();
    (head[3], payload)
}

#[tokio::test]
async fn a_listener_announces_its_limits_and_nothing_else() {
    let hub = Instance::hub(1, "127.0.0.1:0").await;
    let socket = TcpStream::connect((hub.url().host.as_str(), hub.url().port)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = tls::connector(hub.key()).unwrap().connect(name, socket).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await.unwrap();

    let (kind, settings) = frame(&mut stream).await;
    assert_eq!(kind, SETTINGS);
    let settings: BTreeMap<u16, u32> = settings
        .chunks(6)
        .map(|entry| {
            (u16::from_be_bytes([entry[0], entry[1]]), u32::from_be_bytes(entry[2..6].try_into().unwrap()))
        })
        .collect();
    let expected = [
        (3, http2::STREAMS),       // MAX_CONCURRENT_STREAMS
        (4, http2::STREAM_WINDOW), // INITIAL_WINDOW_SIZE
        (5, http2::FRAME),         // MAX_FRAME_SIZE
        (6, http2::HEADER_LIST),   // MAX_HEADER_LIST_SIZE
    ];
    assert_eq!(settings, BTreeMap::from(expected));

    let update = loop {
        let (kind, payload) = frame(&mut stream).await;
        if kind == WINDOW_UPDATE {
            break u32::from_be_bytes(payload.try_into().unwrap());
        }
    };
    assert_eq!(update + FIRST_WINDOW, http2::CONNECTION_WINDOW);
}

#[tokio::test]
async fn a_plain_listener_shows_what_it_offers_and_that_it_is_well() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let hub = Instance::hub(1, "plain://127.0.0.1:0").await;
    let http = client::connect(hub.url(), hub.key()).await.unwrap().http;
    let service = crate::wire::SERVICE_NAME.to_owned();
    let health = HealthClient::new(http.clone()).check(HealthCheckRequest { service }).await.unwrap();
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);

    let message_request = Some(MessageRequest::ListServices(String::new()));
    let list = ServerReflectionRequest { host: String::new(), message_request };
    let answers =
        ServerReflectionClient::new(http).server_reflection_info(tokio_stream::once(list)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(listed)) = answer else { panic!("{answer:?}") };
    assert!(listed.service.iter().any(|service| service.name == crate::wire::SERVICE_NAME));
}

#[test]
fn the_limits_are_those_of_the_design() {
    assert_eq!((http2::STREAM_WINDOW, http2::CONNECTION_WINDOW), (256 << 10, 32 << 20));
    assert_eq!((http2::STREAMS, http2::HEADER_LIST), (4, 8 << 10));
    assert_eq!((http2::FRAME, http2::RESETS, http2::ERROR_RESETS), (16 << 10, 20, 64));
    assert_eq!((http2::KEEPALIVE.as_secs(), http2::KEEPALIVE_TIMEOUT.as_secs()), (20, 10));
}
