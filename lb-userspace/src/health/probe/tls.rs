//! TLS of a check: rustls with ring, certificates verified unless that was turned off, and what is
//! wrong with a certificate said in words.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;

use super::stream::Stream;
use super::{Exchange, Finding, secret, words};
use crate::config::model::Tls;

const PHASE: &str = "tls";

/// Speaks TLS over a connection. `name` is what the certificate must be valid for when the
/// operator gave no `server_name`; it is sent as SNI unless it is an address.
pub async fn connect(
    tcp: TcpStream,
    tls: &Tls,
    name: &str,
    exchange: &Exchange<'_>,
) -> Result<Stream, Finding> {
    let fail = |detail: String| Finding::fail(PHASE, detail);
    let name = tls.server_name.as_deref().unwrap_or(name);
    let prepared = client_config(tls).and_then(|config| {
        let server = ServerName::try_from(name.to_owned()).map_err(|_| {
            format!("\"{name}\" is not a name for a certificate: set tls.server_name")
        })?;
        Ok((config, server))
    });
    let (config, server) = match prepared {
        Ok(prepared) => prepared,
        Err(detail) => {
            Stream::Plain(tcp).close().await;
            return Err(fail(detail));
        }
    };
    let handshake = TlsConnector::from(config).connect(server, tcp);
    match timeout_at(exchange.deadline, handshake.into_fallible()).await {
        Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
        Ok(Err((error, tcp))) => {
            let finding = fail(handshake_words(&error, name));
            Stream::Plain(tcp).close().await;
            Err(finding)
        }
        Err(_) => Err(fail(format!("no TLS handshake {}", exchange.within()))),
    }
}

/// Words for a handshake that failed.
fn handshake_words(error: &io::Error, name: &str) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(reason)) => certificate_words(reason, name),
        Some(rustls::Error::AlertReceived(alert)) => {
            format!("the server refused the TLS handshake with the alert {alert:?}")
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            "the server does not speak TLS on this port".into()
        }
        Some(other) => format!("TLS handshake failed: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server closed the connection during the TLS handshake".into()
        }
        None => format!("{} during the TLS handshake", words::io_error(error)),
    }
}

fn certificate_words(reason: &CertificateError, name: &str) -> String {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet (is this machine's clock right?)".into()
        }
        CertificateError::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
            let presented = presented.join(", ");
            format!("the server's certificate is not for the host \"{name}\" but for {presented}")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the server's certificate is not for the host \"{name}\"")
        }
        CertificateError::UnknownIssuer => {
            "the server's certificate was issued by an unknown CA: set tls.ca_file".into()
        }
        CertificateError::BadSignature => {
            "the server's certificate was not signed by the CA that it names (an unknown CA of the \
             same name?): check tls.ca_file"
                .into()
        }
        CertificateError::Revoked => "the server's certificate was revoked".into(),
        other if other.to_string().contains("CaUsedAsEndEntity") => {
            "the server's certificate is a self-signed CA certificate, not a server's".into()
        }
        other => format!("the server's certificate is not acceptable: {other}"),
    }
}

/// Configurations by what they were made of; made again when a file has changed.
static CONFIGS: LazyLock<Mutex<HashMap<String, Cached>>> = LazyLock::new(Mutex::default);

struct Cached {
    stamps: Vec<Option<SystemTime>>,
    config: Arc<ClientConfig>,
}

fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>, String> {
    let files = tls.ca_file.iter().chain(tls.client.iter().flat_map(|(cert, key)| [cert, key]));
    let stamps: Vec<_> = files
        .flat_map(|f| {
            let found = std::fs::metadata(f).ok();
            // The change time moves when permissions do, which matters for a key.
            let changed = found.as_ref().and_then(|m| {
                let (seconds, nanos) =
                    (u64::try_from(m.ctime()).ok()?, u64::try_from(m.ctime_nsec()).ok()?);
                Some(
                    SystemTime::UNIX_EPOCH
                        + Duration::from_secs(seconds)
                        + Duration::from_nanos(nanos),
                )
            });
            [found.and_then(|m| m.modified().ok()), changed]
        })
        .collect();
    let key = format!("{tls:?}");
    let cached = |configs: &HashMap<String, Cached>| {
        configs.get(&key).filter(|c| c.stamps == stamps).map(|c| c.config.clone())
    };
    if let Some(config) = cached(&CONFIGS.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(config);
    }
    let config = Arc::new(make_config(tls)?);
    let entry = Cached { stamps, config: config.clone() };
    CONFIGS.lock().unwrap_or_else(PoisonError::into_inner).insert(key, entry);
    Ok(config)
}

fn make_config(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = if tls.verify {
        builder.with_root_certificates(roots(tls.ca_file.as_deref())?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    };
    let mut config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let secret = secret::read(key).map_err(|e| format!("client key: {e}"))?;
            let key = PrivateKeyDer::from_pem_slice(secret.expose())
                .map_err(|_| format!("client key: no private key (PEM) in {}", key.display()))?;
            builder
                .with_client_auth_cert(certificates(cert)?, key)
                .map_err(|e| format!("client certificate {}: {e}", cert.display()))?
        }
    };
    // A resumed session would not show us the certificate again, and it may have expired since.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                store.add(certificate).map_err(|e| format!("CA file {}: {e}", path.display()))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err("this machine has no CA certificates: set tls.ca_file".into());
            }
        }
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|e| format!("cannot read {shown}: {e}"))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("{shown} is not a PEM file: {e}"))?;
    if found.is_empty() { Err(format!("no certificate (PEM) in {shown}")) } else { Ok(found) }
}

/// `verify: false`: any certificate will do, though the peer must hold its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
