//! How either end secures its connection to the broker: TLS with the centre's own authority, and a certificate or a
//! password that says who connects.
//!
//! A gateway may not know what time it is. Then a certificate is not refused for being "not valid yet", and whether it has
//! expired is judged by the latest time that is surely past: this version's release, or what the centre told before. Once
//! the clock is kept right, it counts alone.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::clock::Clock;
use crate::time::Timestamp;

/// A certificate, its issuers and the authority: no chain of ours is longer.
const CHAIN_MAX: usize = 4;

/// What secures a connection. Paths are read anew for every connection, so that renewed certificates need no restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// PEM file of the authority that signed the broker's certificate; without it there is no TLS.
    pub ca: Option<PathBuf>,
    /// PEM files of the own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// User, and the file whose first line is the password.
    pub login: Option<(String, PathBuf)>,
}

/// What was read of it, ready to connect.
#[derive(Clone)]
pub struct Credentials {
    /// Of TLS; none: plain.
    pub tls: Option<Arc<ClientConfig>>,
    /// User and password.
    pub login: Option<(String, String)>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.login.as_ref().map(|(user, _)| user);
        f.debug_struct("Credentials").field("tls", &self.tls.is_some()).field("user", &user).finish()
    }
}

/// Why a connection cannot be secured.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file cannot be read.
    #[error("failed to read the {what} {path}")]
    Read {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} holds no {what} in PEM form")]
    Pem {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key cannot be used together, or not at all.
    #[error("the certificate {certificate} cannot be used with the key {key}")]
    Identity {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// The authority cannot be used.
    #[error("the authority {path} cannot be used")]
    Authority {
        /// Its file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Whether a host is this machine itself.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Security {
    /// Whether a connection to that host may be made: to another machine only with TLS, and only as somebody.
    #[must_use]
    pub fn suffices_for(&self, host: &str) -> bool {
        is_loopback(host) || (self.ca.is_some() && (self.identity.is_some() || self.login.is_some()))
    }

    /// Reads the files. Certificates are judged by `clock` while something keeps it right, else by `floor`.
    pub fn load(&self, clock: Arc<dyn Clock>, floor: Timestamp) -> Result<Credentials, SecurityError> {
        let login = match &self.login {
            None => None,
            Some((user, path)) => {
                let text = String::from_utf8(read("password file", path)?).unwrap_or_default();
                Some((user.clone(), text.lines().next().unwrap_or_default().to_owned()))
            }
        };
        let tls = self.ca.as_ref().map(|ca| self.tls(ca, clock, floor.max(Timestamp::RELEASED))).transpose()?;
        Ok(Credentials { tls, login })
    }

    fn tls(&self, ca: &PathBuf, clock: Arc<dyn Clock>, floor: Timestamp) -> Result<Arc<ClientConfig>, SecurityError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("certificate of an authority", ca)? {
            let failed = |error| SecurityError::Authority { path: ca.clone(), source: Box::new(error) };
            roots.add(certificate).map_err(failed)?;
        }
        let provider = Arc::new(ring::default_provider());
        let unusable = |source| SecurityError::Authority { path: ca.clone(), source };
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let inner = inner.build().map_err(|error| unusable(Box::new(error)))?;
        let verifier = Arc::new(Verifier { inner, clock, floor });
        let builder = ClientConfig::builder_with_provider(provider as Arc<CryptoProvider>)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(Box::new(error)))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates("certificate", certificate)?;
                let bytes = read("key", key)?;
                let private = PrivateKeyDer::from_pem_slice(&bytes)
                    .map_err(|_| SecurityError::Pem { what: "private key", path: key.clone() })?;
                let failed =
                    |source| SecurityError::Identity { certificate: certificate.clone(), key: key.clone(), source };
                builder.with_client_auth_cert(chain, private).map_err(failed)?
            }
        };
        Ok(Arc::new(config))
    }
}

fn read(what: &'static str, path: &PathBuf) -> Result<Vec<u8>, SecurityError> {
    std::fs::read(path).map_err(|source| SecurityError::Read { what, path: path.clone(), source })
}

fn certificates(what: &'static str, path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let bytes = read(what, path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    read.ok().filter(|list| !list.is_empty()).ok_or_else(|| SecurityError::Pem { what, path: path.clone() })
}

/// Judges the broker's certificate as usual, but by a time that this machine can stand for.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    clock: Arc<dyn Clock>,
    floor: Timestamp,
}

impl Verifier {
    /// The time to judge by, and whether it is known.
    fn time(&self) -> (UnixTime, bool) {
        let now = self.clock.now();
        let known = self.clock.is_synchronised().unwrap_or(now >= self.floor);
        let time = if known { now } else { self.floor };
        let since = Duration::from_millis(u64::try_from(time.millis()).unwrap_or(0));
        (UnixTime::since_unix_epoch(since), known)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (mut time, known) = self.time();
        for _ in 0..CHAIN_MAX {
            let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, time);
            match verified {
                // It is later than we can know: at least as late as the certificate was issued.
                Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                    if !known && not_before > time =>
                {
                    time = not_before;
                }
                judged => return judged,
            }
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYet))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_is_reached_with_tls_and_as_somebody() {
        let file = || PathBuf::from("x");
        let ca = Security { ca: Some(file()), ..Security::default() };
        let certificate = Security { identity: Some((file(), file())), ..ca.clone() };
        let password = Security { login: Some(("gw".to_owned(), file())), ..ca.clone() };
        let plain = Security { ca: None, ..password.clone() };
        for (security, host, suffices) in [
            (&Security::default(), "127.0.0.1", true),
            (&Security::default(), "[::1]", true),
            (&Security::default(), "localhost", true),
            (&Security::default(), "192.168.1.9", false),
            (&ca, "broker.example.org", false),
            (&plain, "broker.example.org", false),
            (&certificate, "broker.example.org", true),
            (&password, "127.0.0.1.example.org", true),
        ] {
            assert_eq!(security.suffices_for(host), suffices, "{security:?} {host}");
        }
    }

    #[test]
    fn files_that_are_not_there_or_hold_something_else_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let security = Security { ca: Some(path.clone()), ..Security::default() };
        let load = || security.load(Arc::new(crate::clock::SystemClock::new()), Timestamp::MIN).unwrap_err();
        assert!(matches!(load(), SecurityError::Read { what: "certificate of an authority", .. }));
        std::fs::write(&path, "no certificate").unwrap();
        assert!(matches!(load(), SecurityError::Pem { .. }));
    }
}
