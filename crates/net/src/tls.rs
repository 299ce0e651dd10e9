//! The settings of TLS, of doors and of clients, with the collector's names and read as they stand here by whoever listens or dials; and what a door makes
//! of its files: the ring provider, ALPN for both protocols. What a client makes of them stands in `dial`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, SupportedProtocolVersion};
use serde::Deserialize;

/// `tls` of a door.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain, PEM, leaf first.
    pub cert_file: PathBuf,
    /// Private key, PEM.
    pub key_file: PathBuf,
    /// Authorities, PEM: a client must show a certificate from one of them (mutual TLS). Default: clients show none.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
    /// The oldest TLS that is spoken: `1.2` (default) or `1.3`.
    #[serde(default)]
    pub min_version: TlsVersion,
}

/// `min_version`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

static TLS13_ALONE: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

impl TlsVersion {
    /// Itself and what is newer.
    pub(crate) fn and_newer(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            TlsVersion::Tls12 => rustls::ALL_VERSIONS,
            TlsVersion::Tls13 => TLS13_ALONE,
        }
    }
}

/// Why a door cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or is not PEM.
    #[error("cannot read {what} from {}: {why}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        why: String,
    },
    /// The certificate and the key do not work together.
    #[error("certificate {} and key {} cannot be used: {source}", cert.display(), key.display())]
    Pair {
        cert: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
}

/// `tls` of a client.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTls {
    /// No TLS at all; without effect where a URL says whether it is. Default `false`.
    pub insecure: bool,
    /// Whether any certificate of the other side will do. Default `false`.
    pub insecure_skip_verify: bool,
    /// Certificates to trust, PEM. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, PEM, where the other side asks for one.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
    /// The name that the other side's certificate must have, if it is not the host's.
    pub server_name_override: Option<String>,
    /// The oldest TLS that is spoken: `1.2` (default) or `1.3`.
    pub min_version: TlsVersion,
}

impl ClientTls {
    /// What is wrong with it, and at which key.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => Err(("cert_file", "`cert_file` needs `key_file`")),
            (None, Some(_)) => Err(("key_file", "`key_file` needs `cert_file`")),
            _ => Ok(()),
        }
    }
}

impl TlsFiles {
    pub(crate) fn acceptor(&self) -> Result<tokio_rustls::TlsAcceptor, TlsError> {
        let file = |what, path: &Path, why: String| TlsError::File {
            what,
            path: path.to_owned(),
            why,
        };
        let cert_error = |why: String| file("the certificate", &self.cert_file, why);
        let chain = CertificateDer::pem_file_iter(&self.cert_file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| cert_error(e.to_string()))?;
        if chain.is_empty() {
            return Err(cert_error("it holds no certificate".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key_file)
            .map_err(|e| file("the private key", &self.key_file, e.to_string()))?;
        let pair = |source| TlsError::Pair {
            cert: self.cert_file.clone(),
            key: self.key_file.clone(),
            source,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = match &self.client_ca_file {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(path) => {
                clients_of(path, Arc::clone(&provider)).map_err(|why| file("the authorities of clients", path, why))?
            }
        };
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(self.min_version.and_newer())
            .map_err(pair)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config).into())
    }
}

/// Takes clients with a certificate from one of the authorities in a file.
fn clients_of(
    path: &Path,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        authorities.add(certificate).map_err(|error| error.to_string())?;
    }
    if authorities.is_empty() {
        return Err("it holds no certificate".to_owned());
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider)
        .build()
        .map_err(|error| error.to_string())
}
