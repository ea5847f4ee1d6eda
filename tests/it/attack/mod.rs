//! An attacker: connections from addresses of its choice, TLS that trusts anybody, and HTTP/2 frames made by hand.
//!
//! `strangers` compares what those who are not let in hear, `abuse` does what no peer would while a listed one works.

mod abuse;
mod flood;
mod http2;
mod stages;
mod strangers;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use opmesh_core::handshake::{BINDING_EXPORTER, CONFIRM_EXPORTER, ChannelKeys};
use opmesh_core::model::KeyId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

/// Whom to attack, and from where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) hub: KeyId,
    pub(crate) address: SocketAddr,
    pub(crate) channel: Channel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    Tls,
    Plain,
}

/// What HTTP/2 runs over.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Target {
    /// From the readiness line of a daemon.
    pub(crate) fn of(hub: &str, listener: &serde_json::Value) -> Self {
        Self {
            hub: hub.parse().unwrap(),
            address: listener["address"].as_str().unwrap().parse().unwrap(),
            channel: if listener["channel"] == "plain" { Channel::Plain } else { Channel::Tls },
        }
    }

    pub(crate) async fn tcp(self, from: IpAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Ready for HTTP/2, with what the handshake takes from the channel.
    pub(crate) async fn connect(self, from: IpAddr) -> io::Result<(Box<dyn Io>, ChannelKeys)> {
        let tcp = self.tcp(from).await?;
        if self.channel == Channel::Plain {
            return Ok((Box::new(tcp), ChannelKeys::Plain));
        }
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(trusting()));
        let stream = connector.connect(name, tcp).await?;
        let exported = |label| stream.get_ref().1.export_keying_material([0; 32], label, Some(&[])).unwrap();
        let keys =
            ChannelKeys::Tls { exporter: exported(BINDING_EXPORTER), confirm: exported(CONFIRM_EXPORTER) };
        Ok((Box::new(stream), keys))
    }
}

fn trusting() -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
