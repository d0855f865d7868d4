//! TLS towards registries: the machine's certificate authorities, those an operator adds, client certificates, and no verification at all where
//! an operator says so.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::{RegistryError, Result};

/// How one host wants TLS to be spoken. Equal settings share connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct TlsSettings {
    /// PEM files of authorities trusted beside the machine's.
    pub(crate) authorities: Vec<PathBuf>,
    /// PEM files of certificate and key; one file may hold both.
    pub(crate) client: Vec<(PathBuf, PathBuf)>,
    pub(crate) skips_verification: bool,
}

/// The settings, turned into what rustls wants on first use: plain HTTP never pays for it.
#[derive(Debug)]
pub(crate) struct Tls {
    settings: TlsSettings,
    config: OnceLock<std::result::Result<Arc<ClientConfig>, String>>,
}

impl Tls {
    pub(crate) const fn new(settings: TlsSettings) -> Self {
        Self { settings, config: OnceLock::new() }
    }

    pub(crate) fn config(&self) -> std::io::Result<Arc<ClientConfig>> {
        let made = self
            .config
            .get_or_init(|| build(&self.settings).map(Arc::new).map_err(|error| berth_types::report(&error)));
        made.clone().map_err(std::io::Error::other)
    }
}

fn build(settings: &TlsSettings) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| RegistryError::Option { option: "tls", why: e.to_string() })?;
    let builder = if settings.skips_verification {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    } else {
        builder.with_root_certificates(roots(settings)?)
    };
    match settings.client.first() {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let bad = |e: &dyn std::fmt::Display| RegistryError::Config { path: key.clone(), why: e.to_string() };
            let private = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(&e))?;
            builder.with_client_auth_cert(chain, private).map_err(|e| bad(&e))
        }
    }
}

fn roots(settings: &TlsSettings) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    if native.certs.is_empty() && settings.authorities.is_empty() {
        tracing::warn!("this machine has no certificate authorities; no registry with TLS can be verified");
    }
    roots.add_parsable_certificates(native.certs);
    for file in &settings.authorities {
        for certificate in certificates(file)? {
            let bad = |e: rustls::Error| RegistryError::Config { path: file.clone(), why: e.to_string() };
            roots.add(certificate).map_err(bad)?;
        }
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bad = |why: String| RegistryError::Config { path: file.to_owned(), why };
    let all = CertificateDer::pem_file_iter(file).map_err(|e| bad(e.to_string()))?;
    let all: Vec<_> = all.collect::<std::result::Result<_, _>>().map_err(|e| bad(e.to_string()))?;
    if all.is_empty() { Err(bad("it holds no certificate in PEM form".to_owned())) } else { Ok(all) }
}

/// Takes any certificate. Handshake signatures are still checked, so that the key belongs to it.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
