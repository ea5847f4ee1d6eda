//! TLS as opmesh needs it: 1.3 only, one hybrid group, the acceptor's identity key in its certificate, pinned by key ID.
//!
//! Knows no names and no certificate authorities: the key decides. The dialer shows no certificate, so that whoever
//! pretends to be a hub learns nothing; who dialled is proved inside the stream, by the handshake, which is bound to
//! this connection by what is exported here. Nothing is resumed: a revoked key must not come back by a ticket.
//!
//! In front of a sealed channel stands somebody else's TLS, which is spoken because the way there asks for it, and
//! trusted for nothing.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, OtherError, PeerIncompatible,
    ServerConfig, SignatureScheme, version,
};
use tokio_rustls::TlsStream;

use opmesh_core::handshake::{BINDING_EXPORTER, CONFIRM_EXPORTER, ChannelKeys};
use opmesh_core::model::{KeyId, PublicKey};

use crate::identity::Identity;

/// The only protocol above TLS.
const ALPN: &[u8] = b"h2";
/// The name in every identity's certificate: what a client that insists on a name must ask for.
pub const CERTIFICATE_NAME: &str = "opmesh";
/// RFC 7468: characters in a line.
const PEM_LINE: usize = 64;
/// RFC 8410: what an ed25519 public key looks like in a certificate, before its 32 bytes.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why TLS could not be set up at all. Always on our side.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate could be made from the identity.
    #[error("no certificate could be made from this identity: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The library refused the configuration.
    #[error("TLS could not be configured: {0}")]
    Config(#[from] rustls::Error),
}

/// The peer at the other end of a TLS connection is not the one expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected the peer {expected}, but {presented} answered")]
pub struct OtherKey {
    /// The pinned key ID.
    pub expected: KeyId,
    /// Whose certificate came.
    pub presented: KeyId,
}

/// For listeners: shows a self-signed certificate that carries the identity key.
pub(super) fn acceptor(identity: &Identity) -> Result<tokio_rustls::TlsAcceptor, TlsError> {
    let (certificate, key) = identity_certificate(identity)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config).into())
}

/// For dialing: accepts the holder of the pinned key and nobody else.
pub fn connector(pinned: KeyId) -> Result<tokio_rustls::TlsConnector, TlsError> {
    let provider = provider();
    let verifier = PinnedKey { pinned, algorithms: provider.signature_verification_algorithms };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config).into())
}

/// For dialing through whatever ends TLS in front of a sealed channel: accepts anybody.
///
/// That is right here and nowhere else. Who the hub is, and that nobody stands in between, is proved inside: the hub
/// signs the messages of the sealed channel with its pinned key. A certificate could only show that the proxy is the
/// one that some authority knows, and the proxy sees nothing but sizes and times whoever it is. Asking for one would
/// refuse good hubs behind self-signed or outdated certificates, and protect nothing.
pub(super) fn outer_connector() -> Result<tokio_rustls::TlsConnector, TlsError> {
    anybody(&[ALPN])
}

/// Takes every certificate: for connections over which nothing is said that depends on who answers.
pub(super) fn anybody(protocols: &[&[u8]]) -> Result<tokio_rustls::TlsConnector, TlsError> {
    let provider = aws_lc_rs::default_provider();
    let verifier = Anybody { algorithms: provider.signature_verification_algorithms };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config).into())
}

/// Whether the other side agreed to `h2`.
pub(super) fn speaks_http2<IO>(stream: &TlsStream<IO>) -> bool {
    let state: &CommonState = stream.get_ref().1;
    state.alpn_protocol() == Some(ALPN)
}

/// What binds the handshake to this connection; `None` unless the peer agreed to `h2`.
pub(super) fn channel_keys<IO>(stream: &TlsStream<IO>) -> Option<ChannelKeys> {
    let exported = |label| match stream {
        TlsStream::Client(stream) => stream.get_ref().1.export_keying_material([0; 32], label, Some(&[])),
        TlsStream::Server(stream) => stream.get_ref().1.export_keying_material([0; 32], label, Some(&[])),
    };
    if !speaks_http2(stream) {
        return None;
    }
    Some(ChannelKeys::Tls {
        exporter: exported(BINDING_EXPORTER).ok()?,
        confirm: exported(CONFIRM_EXPORTER).ok()?,
    })
}

/// The key of the certificate that the other side showed.
pub(super) fn shown_key<IO>(stream: &TlsStream<IO>) -> Option<PublicKey> {
    let state: &CommonState = stream.get_ref().1;
    state.peer_certificates().and_then(<[_]>::first).and_then(|certificate| key_of(certificate).ok())
}

/// Which key answered in the place of the pinned one, when that is why a connection failed.
pub fn other_key(error: &std::io::Error) -> Option<OtherKey> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => {
            reason.downcast_ref::<OtherKey>().cloned()
        }
        _ => None,
    }
}

/// The suites of TLS 1.3 with one key exchange: X25519 and ML-KEM-768 together, so that what is recorded today stays
/// closed if either of them falls.
fn provider() -> CryptoProvider {
    CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768], ..aws_lc_rs::default_provider() }
}

/// The self-signed certificate that carries the identity key, and that key. The same bytes every time.
pub fn identity_certificate(
    identity: &Identity,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), TlsError> {
    let pkcs8 = identity.pkcs8_der();
    let private = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&private, &rcgen::PKCS_ED25519)?;
    let mut params = rcgen::CertificateParams::new([CERTIFICATE_NAME.to_owned()])?;
    params.distinguished_name.push(rcgen::DnType::CommonName, CERTIFICATE_NAME);
    let certificate = params.self_signed(&pair)?;
    Ok((certificate.der().clone(), PrivateKeyDer::Pkcs8(private.clone_key())))
}

/// The identity's certificate as text, for tools that check certificates.
pub fn certificate_pem(identity: &Identity) -> Result<String, TlsError> {
    let (certificate, _) = identity_certificate(identity)?;
    let encoded = STANDARD.encode(&certificate);
    let lines = encoded.as_bytes().chunks(PEM_LINE).map(String::from_utf8_lossy);
    let body: String = lines.flat_map(|line| [line, "\n".into()]).collect();
    Ok(format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"))
}

/// Accepts a certificate by the key in it, whatever else it says.
#[derive(Debug)]
struct PinnedKey {
    pinned: KeyId,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let presented = key_of(end_entity)?.key_id();
        if presented == self.pinned {
            return Ok(ServerCertVerified::assertion());
        }
        let reason = OtherKey { expected: self.pinned, presented };
        Err(CertificateError::Other(OtherError(Arc::new(reason))).into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if signature.scheme != SignatureScheme::ED25519 {
            return Err(PeerIncompatible::NoSignatureSchemesInCommon.into());
        }
        let spki = spki(certificate)?;
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Accepts every certificate and whatever is signed with it; see [`anybody`].
#[derive(Debug)]
struct Anybody {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn spki(certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, rustls::Error> {
    Ok(ParsedCertificate::try_from(certificate)?.subject_public_key_info())
}

pub(super) fn key_of(certificate: &CertificateDer<'_>) -> Result<PublicKey, rustls::Error> {
    let spki = spki(certificate)?;
    spki.as_ref()
        .strip_prefix(SPKI_PREFIX.as_slice())
        .and_then(|key| key.try_into().ok())
        .map(PublicKey)
        .ok_or_else(|| CertificateError::BadEncoding.into())
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::NamedGroup;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    const ROOM: usize = 64 * 1024;

    fn hub() -> Identity {
        Identity::from_seed(&[7; 32])
    }

    fn name() -> ServerName<'static> {
        "hub.example".try_into().unwrap()
    }

    type Ends = (io::Result<TlsStream<DuplexStream>>, io::Result<TlsStream<DuplexStream>>);

    /// Both ends of one connection: the dialer's, the acceptor's.
    async fn meet(connector: tokio_rustls::TlsConnector) -> Ends {
        let (near, far) = tokio::io::duplex(ROOM);
        let acceptor = acceptor(&hub()).unwrap();
        let (dialer, acceptor) = tokio::join!(connector.connect(name(), near), acceptor.accept(far));
        (dialer.map(TlsStream::Client), acceptor.map(TlsStream::Server))
    }

    /// A connector that is like ours but for what `change` does to it.
    fn other_connector(
        groups: Vec<&'static dyn rustls::crypto::SupportedKxGroup>,
        protocols: Vec<Vec<u8>>,
    ) -> tokio_rustls::TlsConnector {
        let provider = CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
        let verifier =
            PinnedKey { pinned: hub().key_id(), algorithms: provider.signature_verification_algorithms };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = protocols;
        Arc::new(config).into()
    }

    #[tokio::test]
    async fn both_ends_export_the_same_keys_and_another_connection_other_ones() {
        let exported = async || {
            let (dialer, acceptor) = meet(connector(hub().key_id()).unwrap()).await;
            let (dialer, acceptor) = (dialer.unwrap(), acceptor.unwrap());
            assert_eq!(shown_key(&dialer), Some(hub().public_key()));
            assert_eq!(shown_key(&acceptor), None, "the dialer shows nothing about itself");
            let group = |state: &CommonState| state.negotiated_key_exchange_group().unwrap().name();
            assert_eq!(group(dialer.get_ref().1), NamedGroup::X25519MLKEM768);
            let keys = channel_keys(&dialer).unwrap();
            assert!(keys == channel_keys(&acceptor).unwrap());
            keys
        };
        let (first, second) = (exported().await, exported().await);
        assert!(first != second);
        let ChannelKeys::Tls { exporter, confirm } = first else { panic!("this was TLS") };
        assert_ne!(exporter, confirm);
    }

    #[tokio::test]
    async fn another_key_than_the_pinned_one_is_refused_and_named() {
        let pinned = Identity::from_seed(&[8; 32]).key_id();
        let (dialer, acceptor) = meet(connector(pinned).unwrap()).await;
        let other = other_key(&dialer.unwrap_err()).unwrap();
        assert_eq!(other, OtherKey { expected: pinned, presented: hub().key_id() });
        assert!(acceptor.is_err());
    }

    #[tokio::test]
    async fn a_dialer_without_the_hybrid_group_is_refused() {
        let classic = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
        let (dialer, acceptor) = meet(other_connector(classic, vec![ALPN.to_vec()])).await;
        assert!(acceptor.is_err());
        assert!(dialer.unwrap_err().to_string().contains("HandshakeFailure"));
    }

    #[tokio::test]
    async fn a_dialer_that_does_not_ask_for_http2_gets_no_session() {
        let hybrid = || vec![aws_lc_rs::kx_group::X25519MLKEM768];
        let (_, acceptor) = meet(other_connector(hybrid(), vec![b"http/1.1".to_vec()])).await;
        assert!(acceptor.is_err());
        let (_, acceptor) = meet(other_connector(hybrid(), Vec::new())).await;
        assert!(channel_keys(&acceptor.unwrap()).is_none());
    }

    /// A hello of TLS 1.2: without the extension that lists versions.
    fn old_client_hello() -> Vec<u8> {
        let mut hello = vec![0x03, 0x03];
        hello.extend([0x11; 32]); // random
        hello.push(0); // no session id
        hello.extend([0x00, 0x02, 0xc0, 0x2f]); // ECDHE-RSA-AES128-GCM-SHA256
        hello.extend([0x01, 0x00]); // no compression
        // signature_algorithms: ed25519; supported_groups: x25519
        hello.extend([0x00, 0x10, 0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x08, 0x07]);
        hello.extend([0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x1d]);
        let length = u8::try_from(hello.len()).unwrap();
        let mut record = vec![0x16, 0x03, 0x01, 0x00, length + 4, 0x01, 0x00, 0x00, length];
        record.extend(hello);
        record
    }

    #[tokio::test]
    async fn tls_1_2_is_refused() {
        let (mut near, far) = tokio::io::duplex(ROOM);
        near.write_all(&old_client_hello()).await.unwrap();
        let refused = acceptor(&hub()).unwrap().accept(far).await.map(drop).unwrap_err();
        let reason = refused.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap();
        assert_eq!(*reason, PeerIncompatible::SupportedVersionsExtensionRequired.into());
        let mut alert = Vec::new();
        near.read_to_end(&mut alert).await.unwrap();
        assert_eq!(alert, [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 70], "fatal, protocol_version");
    }

    #[tokio::test]
    async fn nothing_is_left_to_resume_a_connection_with() {
        let (dialer, acceptor) = meet(connector(hub().key_id()).unwrap()).await;
        let (mut dialer, mut acceptor) = (dialer.unwrap(), acceptor.unwrap());
        acceptor.write_all(b"x").await.unwrap();
        assert_eq!(dialer.read_u8().await.unwrap(), b'x');
        let TlsStream::Client(dialer) = &dialer else { panic!("a dialer was made") };
        assert_eq!(dialer.get_ref().1.tls13_tickets_received(), 0);
    }
}
