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

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    use super::*;

    // Two that sign themselves, each with its key, for these tests only.
    const ONE_CERTIFICATE: &str = "\
        308201953082013ba0030201020214283ab26718775f674339bb183e5bdf56abdc49b8300a06082a8648ce3d04030230143112301006035504030c09\
        6c6f63616c686f73743020170d3236313132373139343235395a180f32313236313130333139343235395a30143112301006035504030c096c6f6361\
        6c686f73743059301306072a8648ce3d020106082a8648ce3d03010703420004deb5d0961d7fd26a83caf02c3e77dee8387268e05b879d67e03299d9\
        59b5d39ad0c022186a2a1a29720aee008926971b1f2e7943fcff7cdc6d8aae060ca1493fa3693067301d0603551d0e04160414d4b448d4b461011322\
        f10ee9801441af1b067e69301f0603551d23041830168014d4b448d4b461011322f10ee9801441af1b067e69300f0603551d130101ff040530030101\
        ff30140603551d11040d300b82096c6f63616c686f7374300a06082a8648ce3d0403020348003045022100a3d5738fa4a428d4a7de73f9391dd7b2e2\
        2c2ee78b1b35f8fe51728adc187ca202201056f664a6faad8e21461de01205adf2c46d3d4639bb0c3aa5bef55666616d3f";
    const ONE_KEY: &str = "\
        308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420beda40208700432635bece5b4b7ebcca6177a6e2a68d9217\
        1629ea62e35306e0a14403420004deb5d0961d7fd26a83caf02c3e77dee8387268e05b879d67e03299d959b5d39ad0c022186a2a1a29720aee008926\
        971b1f2e7943fcff7cdc6d8aae060ca1493f";
    const OTHER_CERTIFICATE: &str = "\
        308201943082013ba00302010202142d9bcc5aa29a30521ed4ea26125f883e5ec382ce300a06082a8648ce3d04030230143112301006035504030c09\
        6c6f63616c686f73743020170d3236313132373139343235395a180f32313236313130333139343235395a30143112301006035504030c096c6f6361\
        6c686f73743059301306072a8648ce3d020106082a8648ce3d030107034200047f2301732657939cb6e1baf6ac2e627228fc9cdb3fecac4405abe66e\
        b35c44f26ab8e313d916dd18ddab16fa13b92214e84fe0173795ccd56783cdd3fe0abd74a3693067301d0603551d0e04160414dc2125bee86c560027\
        4ec709b07c57dd2415ba60301f0603551d23041830168014dc2125bee86c5600274ec709b07c57dd2415ba60300f0603551d130101ff040530030101\
        ff30140603551d11040d300b82096c6f63616c686f7374300a06082a8648ce3d040302034700304402205b59e60943fd9479e99d0ab57412068edbc6\
        0aa3223effdd0d965e9ee2eadb4002200cdcf154673ccc02e5396bf99b2bdf0ae3c74232b2a9276dc81574f139b12329";
    const OTHER_KEY: &str = "\
        308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b02010104208500f39bd58618fa175c418f6078b1af9f8447c04ed30b61\
        a4bc67cdf34c1498a144034200047f2301732657939cb6e1baf6ac2e627228fc9cdb3fecac4405abe66eb35c44f26ab8e313d916dd18ddab16fa13b9\
        2214e84fe0173795ccd56783cdd3fe0abd74";

    /// Connects to a server with this certificate on a port that is always the same.
    async fn connect(listener: &TcpListener, certificate: &str, key: &str, dir: &Path) -> Result<String, ChainError> {
        let certificate = CertificateDer::from(hex::decode(certificate).unwrap());
        let key = PrivateKeyDer::try_from(hex::decode(key).unwrap()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not accept the certificate goes away.
            if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
                let _ = stream.write_all(b"hello").await;
                let _ = stream.shutdown().await;
            }
        };
        let address = listener.local_addr().unwrap();
        let server: ElectrumServer = format!("ssl://localhost:{}", address.port()).parse().unwrap();
        let ask = async {
            let mut stream = encrypt(TcpStream::connect(address).await.unwrap(), &server, dir).await?;
            let mut heard = String::new();
            stream.read_to_string(&mut heard).await.unwrap();
            Ok(heard)
        };
        tokio::join!(serve, ask).1
    }

    #[tokio::test]
    async fn a_server_that_shows_another_certificate_than_at_first_is_not_spoken_to() {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for _ in 0..2 {
            assert_eq!(connect(&listener, ONE_CERTIFICATE, ONE_KEY, dir.path()).await.unwrap(), "hello");
        }
        let why = connect(&listener, OTHER_CERTIFICATE, OTHER_KEY, dir.path()).await.unwrap_err().to_string();
        let note = dir.path().join(format!("localhost_{}.certificate", listener.local_addr().unwrap().port()));
        assert!(why.contains("another one than at the first connection") && why.contains(&note.display().to_string()), "{why}");
        assert_eq!(connect(&listener, ONE_CERTIFICATE, ONE_KEY, dir.path()).await.unwrap(), "hello");
        // The remedy that the error names.
        std::fs::remove_file(note).unwrap();
        assert_eq!(connect(&listener, OTHER_CERTIFICATE, OTHER_KEY, dir.path()).await.unwrap(), "hello");
    }

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
