//! The certificate of the main port, from files that change: a mounted Secret that is renewed.

use ::aws_lc_rs::digest::{SHA256, digest};
use anyhow::{Context as _, ensure};
use rustls::ServerConfig;
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the files are read again.
const LOOK: Duration = Duration::from_secs(10);

/// A certificate. Both files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsConfig {
    /// A file with the certificate and its chain (PEM).
    pub certificate: PathBuf,
    /// A file with its private key (PEM).
    pub key: PathBuf,
}

/// A certificate that follows its files.
#[derive(Debug)]
pub struct Certificate {
    files: TlsConfig,
    provider: Arc<CryptoProvider>,
    current: Mutex<Loaded>,
}

#[derive(Clone, Debug)]
struct Loaded {
    /// Of both files: whether they changed.
    digest: [u8; 32],
    key: Arc<CertifiedKey>,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// If they cannot be read, are no PEM, or do not belong together; the message names the setting and the
    /// file.
    pub fn load(files: &TlsConfig) -> anyhow::Result<Arc<Self>> {
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let current = Mutex::new(read(files, &provider)?);
        Ok(Arc::new(Self { files: files.clone(), provider, current }))
    }

    /// What a server with this certificate is made from: TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// Never with the provider that is built in.
    pub fn server_config(self: &Arc<Self>) -> anyhow::Result<ServerConfig> {
        Ok(ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.clone()))
    }

    /// Reads the files again and again, for as long as it is awaited. Files that cannot be used are told of,
    /// and the certificate of before stays: they may be in the middle of a change.
    pub async fn follow(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.look();
        }
    }

    /// Reads the files once more.
    pub(super) fn look(&self) {
        match read(&self.files, &self.provider) {
            Ok(loaded) => {
                let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
                if current.digest != loaded.digest {
                    tracing::info!(file = %self.files.certificate.display(), "the certificate was renewed");
                    *current = loaded;
                }
            }
            Err(error) => {
                tracing::warn!(
                    "the new certificate cannot be read, the previous one stays in use: {error:#}"
                );
            }
        }
    }
}

#[cfg(test)]
impl Certificate {
    /// Of the files as they were last used.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).digest
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.lock().unwrap_or_else(PoisonError::into_inner).key.clone())
    }
}

fn read(files: &TlsConfig, provider: &CryptoProvider) -> anyhow::Result<Loaded> {
    let content = |setting: &str, path: &Path| {
        std::fs::read(path).with_context(|| format!("{setting}: cannot read {}", path.display()))
    };
    let certificate = content("tls.certificate", &files.certificate)?;
    let key = content("tls.key", &files.key)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<_, _>>()
        .with_context(|| format!("tls.certificate: {} is no PEM", files.certificate.display()))?;
    ensure!(!chain.is_empty(), "tls.certificate: there is no certificate in {}", files.certificate.display());
    let private = PrivateKeyDer::from_pem_slice(&key)
        .with_context(|| format!("tls.key: there is no private key in {}", files.key.display()))?;
    let certified = CertifiedKey::from_der(chain, private, provider)
        .with_context(|| format!("tls.key: {} does not go with the certificate", files.key.display()))?;
    let mut both = [0; 32];
    both.copy_from_slice(digest(&SHA256, &[certificate, key].concat()).as_ref());
    Ok(Loaded { digest: both, key: Arc::new(certified) })
}
