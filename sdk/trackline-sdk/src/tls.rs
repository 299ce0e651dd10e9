//! The TLS that this SDK speaks: rustls with ring, trusting what the system trusts.
//!
//! A system without certificates (a container from scratch) gets Mozilla's list, which is built in, so that `https`
//! works there too. No provider is installed for the process: that choice is the service's own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, RootCertStore};

/// TLS for clients of the service's own: trusts what the system trusts, offers no protocol by ALPN.
///
/// ```no_run
/// let tls = trackline_sdk::tls::client_config();
/// // reqwest::Client::builder().tls_backend_preconfigured(tls).build()
/// ```
pub fn client_config() -> ClientConfig {
    trusting(system())
}

/// For a connection that is not to be encrypted; no certificate is read for it.
pub(crate) fn trusting_nobody() -> ClientConfig {
    trusting(Arc::new(RootCertStore::empty()))
}

fn trusting(roots: Arc<RootCertStore>) -> ClientConfig {
    with_provider(|builder| Ok(builder.with_root_certificates(roots).with_no_client_auth()))
        .expect("ring speaks the versions that are the default")
}

/// What the `OTEL_EXPORTER_OTLP_*` variables name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// Whom to trust instead of the system's certificates, PEM.
    pub certificate: Option<PathBuf>,
    /// Our own certificate and its key, PEM, where the collector asks for them.
    pub client_certificate: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
}

/// Why TLS cannot be set up. Each names the variable to look at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the file {path} that {variable} names cannot be used: {why}")]
    File {
        variable: &'static str,
        path: String,
        why: String,
    },
    #[error("{0} is set without {1}; both or none")]
    Half(&'static str, &'static str),
    #[error("{CLIENT_CERTIFICATE} and {CLIENT_KEY} do not work together: {0}")]
    Identity(rustls::Error),
}

const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const CLIENT_CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
const CLIENT_KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";

impl Files {
    /// Reads the files once, at the start: a rotated certificate needs a restart.
    pub(crate) fn config(&self, protocol: &[u8]) -> Result<ClientConfig, TlsError> {
        let roots = match &self.certificate {
            None => system(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(CERTIFICATE, path)? {
                    roots
                        .add(certificate)
                        .map_err(|error| unusable(CERTIFICATE, path, error))?;
                }
                Arc::new(roots)
            }
        };
        let identity = match (&self.client_certificate, &self.client_key) {
            (None, None) => None,
            (Some(_), None) => return Err(TlsError::Half(CLIENT_CERTIFICATE, CLIENT_KEY)),
            (None, Some(_)) => return Err(TlsError::Half(CLIENT_KEY, CLIENT_CERTIFICATE)),
            (Some(certificate), Some(key)) => {
                let chain = certificates(CLIENT_CERTIFICATE, certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(CLIENT_KEY, key, error))?;
                Some((chain, key))
            }
        };
        let mut config = with_provider(|builder| {
            let builder = builder.with_root_certificates(roots);
            match identity {
                None => Ok(builder.with_no_client_auth()),
                Some((chain, key)) => builder.with_client_auth_cert(chain, key),
            }
        })
        .map_err(TlsError::Identity)?;
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }
}

type Begun = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn with_provider(
    finish: impl FnOnce(Begun) -> Result<ClientConfig, rustls::Error>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    finish(ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?)
}

/// What the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are obeyed), read once.
fn system() -> Arc<RootCertStore> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    SYSTEM
        .get_or_init(|| {
            let mut roots = RootCertStore::empty();
            // Bundles hold odd certificates; what cannot be read is not trusted, the others are.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
            Arc::new(roots)
        })
        .clone()
}

fn certificates(variable: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(variable, path, error))?;
    if found.is_empty() {
        return Err(unusable(variable, path, "it holds no certificate in PEM"));
    }
    Ok(found)
}

fn unusable(variable: &'static str, path: &Path, why: impl std::fmt::Display) -> TlsError {
    TlsError::File {
        variable,
        path: path.display().to_string(),
        why: why.to_string(),
    }
}

/// A failed handshake in words that say what to do.
pub(crate) fn plain(error: &rustls::Error, host: &str) -> String {
    match error {
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::UnknownIssuer => format!(
                "nobody that this service trusts has signed the certificate of {host} (name the signer's certificate \
                 in {CERTIFICATE})"
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("the certificate of {host} is for another name")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("the certificate of {host} has expired")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("the certificate of {host} is not valid yet")
            }
            other => format!("the certificate of {host} is not trusted: {other}"),
        },
        rustls::Error::InvalidMessage(_) => {
            format!("{host} does not speak TLS on this port (is it http:// rather than https://?)")
        }
        other => format!("no TLS with {host}: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &Files, expect: &str) {
        let said = files
            .config(b"h2")
            .map_or_else(|error| error.to_string(), |_| String::new());
        assert!(said.contains(expect), "{said:?}, expected {expect:?}");
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_variable() {
        let nowhere = Some(PathBuf::from("/does/not/exist.pem"));
        let no_pem = Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        let ca = |certificate: &Option<PathBuf>| Files {
            certificate: certificate.clone(),
            ..Files::default()
        };
        check(&Files::default(), "");
        check(
            &ca(&nowhere),
            "the file /does/not/exist.pem that OTEL_EXPORTER_OTLP_CERTIFICATE names",
        );
        check(&ca(&no_pem), "it holds no certificate in PEM");
        let half = Files {
            client_key: nowhere.clone(),
            ..Files::default()
        };
        check(
            &half,
            "OTEL_EXPORTER_OTLP_CLIENT_KEY is set without OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        );
        let half = Files {
            client_certificate: nowhere,
            ..Files::default()
        };
        check(
            &half,
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE is set without OTEL_EXPORTER_OTLP_CLIENT_KEY",
        );
    }
}
