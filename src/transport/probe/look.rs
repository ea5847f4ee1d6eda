//! What answers at an address where no hub does.
//!
//! First TLS as anybody speaks it: whatever certificate comes is taken, since nothing is said over the connection.
//! Then, without TLS, the opening words of HTTP/2 and of HTTP/1.1. Nothing about this instance is revealed.

use std::net::SocketAddr;
use std::time::Duration;

use opmesh_core::model::KeyId;
use rustls::ProtocolVersion;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connect;
use crate::transport::address::HubUrl;
use crate::transport::tls;

/// How long somebody who is no hub may take for each answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much of an answer is looked at.
const LOOKED_AT_BYTES: usize = 256;
/// RFC 9113, 3.4: what a client says first, with empty settings.
const HTTP2_OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// What a client of HTTP/1.1 says, without a name of ours.
const HTTP1_OPENING: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// The type of a SETTINGS frame, and where it stands.
const SETTINGS: (usize, u8) = (3, 4);
/// The type of a TLS alert record.
const TLS_ALERT: u8 = 21;

/// What answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// TLS, with this certificate.
    Tls(Shown),
    /// TLS, but no handshake came about even when everything was offered.
    OnlyTls,
    /// HTTP/2 without TLS: a plain listener of opmesh, or a proxy that expects no TLS.
    PlainHttp2,
    /// HTTP/1 without TLS: a web server.
    PlainHttp1,
    /// It speaks first, or answers, with these words.
    Other(String),
    /// It takes connections and says nothing, or closes them.
    Nothing,
}

/// What a TLS server shows to anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Such as `TLS 1.3`.
    pub version: &'static str,
    /// The protocol above it; empty when none was agreed on.
    pub alpn: String,
    /// The key in its certificate, when it is one that an instance of opmesh could have.
    pub key: Option<KeyId>,
}

/// Finds out what answers there; takes some seconds at most.
pub async fn look(url: &HubUrl, addresses: &[SocketAddr]) -> Answer {
    if let Some(answer) = shown_tls(url, addresses).await {
        return answer;
    }
    let spoken = said(addresses, HTTP2_OPENING).await;
    match judge(&spoken) {
        Answer::Nothing | Answer::Other(_) => {}
        known => return known,
    }
    match judge(&said(addresses, HTTP1_OPENING).await) {
        Answer::Nothing => judge(&spoken),
        known => known,
    }
}

/// The first words after ours.
async fn said(addresses: &[SocketAddr], opening: &[u8]) -> Vec<u8> {
    let mut answer = vec![0; LOOKED_AT_BYTES];
    let talking = async {
        let mut socket = connect(addresses).await?;
        socket.write_all(opening).await?;
        socket.read(&mut answer).await
    };
    let read = tokio::time::timeout(PATIENCE, talking).await;
    let read = read.map_or(0, Result::unwrap_or_default);
    answer.truncate(read);
    answer
}

fn judge(answer: &[u8]) -> Answer {
    let (at, settings) = SETTINGS;
    if answer.is_empty() {
        return Answer::Nothing;
    }
    if answer.starts_with(b"HTTP/1.") || answer.starts_with(b"<") {
        return Answer::PlainHttp1;
    }
    // A frame's length comes first; that of settings is small.
    if answer.starts_with(&[0]) && answer.get(at) == Some(&settings) {
        return Answer::PlainHttp2;
    }
    if answer.first() == Some(&TLS_ALERT) && answer.get(1) == Some(&3) {
        return Answer::OnlyTls;
    }
    let first_line = answer.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    Answer::Other(String::from_utf8_lossy(first_line).chars().take(60).flat_map(char::escape_debug).collect())
}

/// What TLS shows; none when it is not TLS that answers.
async fn shown_tls(url: &HubUrl, addresses: &[SocketAddr]) -> Option<Answer> {
    let connector = tls::anybody(&[b"h2", b"http/1.1"]).ok()?;
    let name = ServerName::try_from(url.host.clone()).ok()?;
    let shaking_hands = async {
        let socket = connect(addresses).await?;
        connector.connect(name, socket).await
    };
    let stream = match tokio::time::timeout(PATIENCE, shaking_hands).await.ok()? {
        Ok(stream) => stream,
        Err(error) => return said_no(&error).then_some(Answer::OnlyTls),
    };
    let state = stream.get_ref().1;
    let certificate = state.peer_certificates().and_then(<[_]>::first);
    Some(Answer::Tls(Shown {
        version: match state.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS",
        },
        alpn: String::from_utf8_lossy(state.alpn_protocol().unwrap_or_default()).into_owned(),
        key: certificate.and_then(|certificate| tls::key_of(certificate).ok()).map(|key| key.key_id()),
    }))
}

/// Whether the other side refused in the language of TLS.
fn said_no(error: &std::io::Error) -> bool {
    let fault = error.get_ref().and_then(|source| source.downcast_ref());
    matches!(fault, Some(rustls::Error::AlertReceived(_) | rustls::Error::PeerIncompatible(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_words_tell_what_answers() {
        assert_eq!(judge(b""), Answer::Nothing);
        assert_eq!(judge(b"HTTP/1.1 400 Bad Request\r\n"), Answer::PlainHttp1);
        assert_eq!(judge(b"\0\0\x18\x04\0\0\0\0\0"), Answer::PlainHttp2);
        assert_eq!(judge(&[21, 3, 1, 0, 2, 2, 70]), Answer::OnlyTls);
        assert_eq!(judge(b"SSH-2.0-OpenSSH_9.2\r\n"), Answer::Other("SSH-2.0-OpenSSH_9.2".to_owned()));
        assert_eq!(judge(b"\x1b[31m"), Answer::Other("\\u{1b}[31m".to_owned()));
    }
}
