//! The secrets of the scale-down webhook, from files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use standardwebhooks::Webhook;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The shortest secret, in bytes: with fewer it could be guessed (Standard Webhooks, "Symmetric signatures":
/// 24 to 64).
const MIN_SECRET: usize = 24;

/// The secrets that messages may be signed with: several while one follows another.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    files: Arc<[PathBuf]>,
}

impl Secrets {
    /// Each file holds one secret, as `whsec_` and base64. They are read for every message, so that a new one
    /// needs no restart.
    #[must_use]
    pub fn in_files(files: &[PathBuf]) -> Self {
        Self { files: files.into() }
    }

    /// Whether each of them can be used.
    ///
    /// # Errors
    /// The first one that cannot, and why; the secret is in none of the texts.
    pub fn check(&self) -> Result<(), SecretError> {
        self.files.iter().try_for_each(|file| secret(file).map(drop))
    }

    pub(super) fn read(&self) -> Vec<Webhook> {
        let told = |error: &SecretError| tracing::warn!("a webhook secret cannot be used: {error}");
        self.files.iter().filter_map(|file| secret(file).inspect_err(told).ok()).collect()
    }
}

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its file cannot be read.
    #[error("webhookSecretFiles: cannot read {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no base64 in it.
    #[error("webhookSecretFiles: {}: it is not whsec_ and base64", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
    },
    /// It could be guessed.
    #[error("webhookSecretFiles: {}: the secret has {bytes} bytes, and needs at least {MIN_SECRET}", file.display())]
    TooShort {
        /// The file.
        file: PathBuf,
        /// How long it is.
        bytes: usize,
    },
}

/// The secret in a file.
fn secret(file: &Path) -> Result<Webhook, SecretError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| SecretError::Unreadable { file: file.to_owned(), source })?;
    let text = text.trim();
    let malformed = || SecretError::Malformed { file: file.to_owned() };
    let bytes = STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).map_err(|_| malformed())?;
    if bytes.len() < MIN_SECRET {
        return Err(SecretError::TooShort { file: file.to_owned(), bytes: bytes.len() });
    }
    Webhook::from_bytes(bytes).map_err(|_| malformed())
}
