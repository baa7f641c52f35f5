//! TLS for QUIC: libp2p's certificates (which bind the connection to the device's key), our ciphers.
//!
//! The certificate format and its checks are libp2p-tls; only the order of cipher suites and key
//! exchanges is ours. libp2p-tls prefers ChaCha20, which costs twice the CPU of AES-GCM wherever the
//! processor has AES instructions. The first certificate that is shown to us decides who the peer is.

use std::sync::Arc;

use libp2p::{PeerId, identity::Keypair};
use libp2p_tls::certificate::{self, P2pCertificate};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use crate::error::BindError;

/// What libp2p over TLS calls itself; other libp2p programs would understand us this far.
const ALPN: &[u8] = b"libp2p";

/// Configurations for both roles, with one fresh certificate for this run.
pub(super) fn configs(
    keypair: &Keypair,
) -> Result<(Arc<QuicClientConfig>, Arc<QuicServerConfig>), BindError> {
    let (certificate, key) = certificate::generate(keypair).map_err(|_| BindError::Certificate)?;
    let provider = Arc::new(provider());
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| BindError::Certificate)?;
    let certified = CertifiedKey::new(vec![certificate], key);
    let resolver = Arc::new(SingleCertAndKey::from(certified));

    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .expect("every suite of the provider is for TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier))
        .with_client_cert_resolver(Arc::clone(&resolver) as _);
    client.alpn_protocols = vec![ALPN.to_vec()];

    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("every suite of the provider is for TLS 1.3")
        .with_client_cert_verifier(Arc::new(Verifier))
        .with_cert_resolver(resolver);
    server.alpn_protocols = vec![ALPN.to_vec()];

    let client = QuicClientConfig::try_from(client).map_err(|_| BindError::Certificate)?;
    let server = QuicServerConfig::try_from(server).map_err(|_| BindError::Certificate)?;
    Ok((Arc::new(client), Arc::new(server)))
}

/// The device that a finished handshake proved. `None` never happens after our verifier said yes.
pub(super) fn peer_of(connection: &quinn::Connection) -> Option<PeerId> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let certificate = certificate::parse(chain.first()?).ok()?;
    Some(certificate.peer_id())
}

/// TLS 1.3 only, AES first; AES-128 stays because QUIC's first packets need it.
fn provider() -> CryptoProvider {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_256_GCM_SHA384,
            TLS13_AES_128_GCM_SHA256,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// Accepts any device that proves its key, in both directions. Who may do what is decided above.
#[derive(Debug)]
struct Verifier;

impl Verifier {
    fn check(
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        if !intermediates.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        let certificate: P2pCertificate<'_> = certificate::parse(certificate)?;
        // Other key types are valid libp2p, but no device of ours has one.
        match crate::identity::device_id(&certificate.peer_id()) {
            Some(_) => Ok(()),
            None => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn check_signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        certificate::parse(certificate)?.verify_signature(
            signed.scheme,
            message,
            signed.signature(),
        )?;
        Ok(HandshakeSignatureValid::assertion())
    }
}

/// What libp2p-tls certificates may be signed with.
fn schemes() -> Vec<SignatureScheme> {
    vec![
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ED25519,
    ]
}

/// The answer to a question that TLS 1.3 never asks.
fn no_tls12() -> Error {
    Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
