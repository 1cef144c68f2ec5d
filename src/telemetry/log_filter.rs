//! The filter of the logs, which can be changed while the process runs.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::Duration;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::reload::{Handle, Layer};
use tracing_subscriber::{EnvFilter, Registry};

/// How often the filter is looked for again.
const LOOK: Duration = Duration::from_secs(10);

/// The longest filter, in bytes: an agent has little memory, and reads it at its start.
const MOST: u64 = 16 << 10;

/// The filter that a file holds; none if it holds nothing, or is not there.
///
/// # Errors
/// When the file cannot be read, is none, or holds more than 16 KiB.
pub fn in_file(file: &Path) -> anyhow::Result<Option<String>> {
    let found = match std::fs::metadata(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    anyhow::ensure!(found.is_file(), "it is no regular file");
    anyhow::ensure!(found.len() <= MOST, "it holds {} bytes, and {MOST} are the most", found.len());
    let mut text = String::new();
    File::open(file)?.take(MOST).read_to_string(&mut text)?;
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}

/// The filter of the logs, in the words of `RUST_LOG`.
#[derive(Clone, Debug)]
pub struct LogFilter {
    handle: Handle<EnvFilter, Registry>,
    /// What holds while nothing else is set.
    usual: String,
}

impl LogFilter {
    /// The filter that holds while nothing else is set, and the part of the logs that it is.
    pub(super) fn new(usual: String) -> Result<(Layer<EnvFilter, Registry>, Self), ParseError> {
        let (layer, handle) = Layer::new(EnvFilter::try_new(&usual)?);
        Ok((layer, Self { handle, usual }))
    }

    /// Whether such a filter can be used, and if not, why.
    ///
    /// # Errors
    /// What cannot be read in it.
    pub fn check(text: &str) -> Result<(), String> {
        EnvFilter::try_new(text).map(drop).map_err(|error| error.to_string())
    }

    /// Filters the logs by this from now on, or as usual; tells so if that is a change.
    ///
    /// # Errors
    /// If the filter cannot be read, or the logs have ended.
    pub fn set(&self, text: Option<&str>) -> anyhow::Result<()> {
        let filter = EnvFilter::try_new(text.unwrap_or(&self.usual))?;
        let told = filter.to_string();
        let before = self.handle.with_current(EnvFilter::to_string)?;
        if before == told {
            return Ok(());
        }
        self.handle.reload(filter)?;
        tracing::info!(filter = told, before, "the logs have another filter now");
        Ok(())
    }

    /// Filters the logs by what is found, now and whenever it changes: it may be in a mounted ConfigMap. What
    /// cannot be used changes nothing: it may be in the middle of a change.
    pub async fn follow(self, find: impl Fn() -> anyhow::Result<Option<String>>) {
        loop {
            if let Err(error) = find().and_then(|found| self.set(found.as_deref())) {
                tracing::warn!(%error, "the filter of the logs stays as it is");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
