//! TLS as opmesh needs it: 1.3 only, one hybrid group, the acceptor's identity key in its certificate, pinned by key ID.
//!
//! Knows no names and no certificate authorities: the key decides. The dialer shows no certificate, so that whoever
//! pretends to be a hub learns nothing; who dialled is proved inside the stream, by the handshake, which is bound to
//! this connection by what is exported here. Nothing is resumed: a revoked key must not come back by a ticket.

use std::sync::Arc;

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
    let (certificate, key) = certificate(identity)?;
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
pub(super) fn connector(pinned: KeyId) -> Result<tokio_rustls::TlsConnector, TlsError> {
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

/// What binds the handshake to this connection; `None` unless the peer agreed to `h2`.
pub(super) fn channel_keys<IO>(stream: &TlsStream<IO>) -> Option<ChannelKeys> {
    let exported = |label| match stream {
        TlsStream::Client(stream) => stream.get_ref().1.export_keying_material([0; 32], label, Some(&[])),
        TlsStream::Server(stream) => stream.get_ref().1.export_keying_material([0; 32], label, Some(&[])),
    };
    let state: &CommonState = stream.get_ref().1;
    state.alpn_protocol().filter(|protocol| *protocol == ALPN)?;
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
pub(super) fn other_key(error: &std::io::Error) -> Option<OtherKey> {
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

fn certificate(identity: &Identity) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), TlsError> {
    let pkcs8 = identity.pkcs8_der();
    let private = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&private, &rcgen::PKCS_ED25519)?;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "opmesh");
    let certificate = params.self_signed(&pair)?;
    Ok((certificate.der().clone(), PrivateKeyDer::Pkcs8(private.clone_key())))
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

fn spki(certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, rustls::Error> {
    Ok(ParsedCertificate::try_from(certificate)?.subject_public_key_info())
}

fn key_of(certificate: &CertificateDer<'_>) -> Result<PublicKey, rustls::Error> {
    let spki = spki(certificate)?;
    spki.as_ref()
        .strip_prefix(SPKI_PREFIX.as_slice())
        .and_then(|key| key.try_into().ok())
        .map(PublicKey)
        .ok_or_else(|| CertificateError::BadEncoding.into())
}
