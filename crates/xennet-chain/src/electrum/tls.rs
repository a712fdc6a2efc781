//! The encrypted line to a server, and whose certificate is accepted.
//!
//! Most Electrum servers sign their certificate themselves. So it is done as Electrum does it: one that this machine's trusted roots vouch
//! for is accepted; any other is remembered at the first connection, and from then on that one alone is. What a server says of the chain
//! is proved without the line; what is at stake here is who sees what is asked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bitcoin::hashes::{Hash as _, sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::ElectrumServer;
use crate::ChainError;

/// What is written of a server whose certificate the trusted roots vouch for.
const VOUCHED: &str = "trusted roots";
/// Longest note that is read.
const MAX_NOTE: usize = 200;

/// Which certificate was seen of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// One that the trusted roots vouch for. Another one of the kind is as good.
    Vouched,
    /// One that nobody vouches for, by its SHA-256.
    Pinned(sha256::Hash),
}

/// Encrypts the line, and writes down whose certificate it was the first time.
pub(super) async fn encrypt(stream: TcpStream, server: &ElectrumServer, dir: &Path) -> Result<TlsStream<TcpStream>, ChainError> {
    let away = |why: String| ChainError::Away { url: server.to_string(), why };
    let note = dir.join(format!("{}_{}.certificate", server.host().replace(':', "-"), server.port()));
    let before = read(&note)?;
    let provider = Arc::new(ring::default_provider());
    let verifier =
        Arc::new(Verifier { roots: roots(&provider), provider: provider.clone(), before: before.clone(), now: Mutex::new(None) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| away(why.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    let name = ServerName::try_from(server.host().to_owned()).map_err(|why| away(why.to_string()))?;
    let answer = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let now = verifier.now.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (answer, now) {
        (Ok(stream), Some(Ok(seen))) => {
            if before.as_ref() != Some(&seen) {
                write(&note, &seen)?;
            }
            Ok(stream)
        }
        (_, Some(Err(why))) => Err(ChainError::Certificate { url: server.to_string(), why, note }),
        (Ok(_), None) => Err(away("it showed no certificate".to_owned())),
        (Err(why), _) => Err(away(format!("no encrypted line: {why}"))),
    }
}

/// What the certificate of now is worth beside what was seen before; or what is wrong with it.
fn judge(before: Option<&Seen>, vouched: bool, fingerprint: sha256::Hash) -> Result<Seen, &'static str> {
    match before {
        _ if vouched => Ok(Seen::Vouched),
        None => Ok(Seen::Pinned(fingerprint)),
        Some(Seen::Pinned(known)) if *known == fingerprint => Ok(Seen::Pinned(fingerprint)),
        Some(Seen::Pinned(_)) => Err("is another one than at the first connection"),
        Some(Seen::Vouched) => Err("is one that no trusted root vouches for, and before it had one that they did"),
    }
}

fn read(note: &Path) -> Result<Option<Seen>, ChainError> {
    let text = match std::fs::read_to_string(note) {
        Ok(text) => text,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(ChainError::io("cannot read", note)(why)),
    };
    let text = text.get(..MAX_NOTE).unwrap_or(&text).trim();
    if text == VOUCHED {
        return Ok(Some(Seen::Vouched));
    }
    let unreadable = || std::io::Error::new(std::io::ErrorKind::InvalidData, "it holds no SHA-256 in hexadecimal: remove it");
    text.parse().map(|known| Some(Seen::Pinned(known))).map_err(|_| ChainError::io("cannot read", note)(unreadable()))
}

fn write(note: &PathBuf, seen: &Seen) -> Result<(), ChainError> {
    let text = match seen {
        Seen::Vouched => VOUCHED.to_owned(),
        Seen::Pinned(fingerprint) => fingerprint.to_string(),
    };
    std::fs::write(note, text + "\n").map_err(ChainError::io("cannot write", note))
}

/// Those that this machine trusts; `None` where there are none.
fn roots(provider: &Arc<CryptoProvider>) -> Option<Arc<WebPkiServerVerifier>> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build().ok()
}

#[derive(Debug)]
struct Verifier {
    roots: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    before: Option<Seen>,
    /// The judgement of the certificate that was shown.
    now: Mutex<Option<Result<Seen, &'static str>>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let vouched = self.roots.as_ref().is_some_and(|roots| roots.verify_server_cert(certificate, others, name, ocsp, now).is_ok());
        let judgement = judge(self.before.as_ref(), vouched, sha256::Hash::hash(certificate));
        let answer = match &judgement {
            Ok(_) => Ok(ServerCertVerified::assertion()),
            Err(why) => Err(Error::General((*why).to_owned())),
        };
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Some(judgement);
        answer
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_first_certificate_is_kept_and_another_is_accepted_only_if_trusted_roots_vouch_for_it() {
        let (one, other) = (sha256::Hash::hash(b"one"), sha256::Hash::hash(b"other"));
        let pinned = Seen::Pinned(one);
        assert_eq!(judge(None, false, one), Ok(pinned.clone()));
        assert_eq!(judge(Some(&pinned), false, one), Ok(pinned.clone()));
        assert!(judge(Some(&pinned), false, other).unwrap_err().contains("first connection"));
        assert_eq!(judge(Some(&pinned), true, other), Ok(Seen::Vouched));
        assert_eq!(judge(Some(&Seen::Vouched), true, other), Ok(Seen::Vouched));
        assert!(judge(Some(&Seen::Vouched), false, one).unwrap_err().contains("no trusted root"));
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("host_50002.certificate");
        assert_eq!(read(&note).unwrap(), None);
        for seen in [Seen::Vouched, pinned] {
            write(&note, &seen).unwrap();
            assert_eq!(read(&note).unwrap(), Some(seen));
        }
        std::fs::write(&note, "nonsense").unwrap();
        assert!(read(&note).is_err());
    }
}
