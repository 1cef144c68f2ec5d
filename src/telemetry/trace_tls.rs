//! Whom the exporter of spans trusts, and how it shows who it is: by the files that the standard OTEL_
//! variables name.

use crate::causes::with_causes;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use std::time::Duration;
use std::{fs, thread};

/// The variables that name the file of the authorities that are trusted, instead of the usual ones. The first
/// one is for traces alone.
const AUTHORITIES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
/// The same of the certificate that is shown to the collector.
const CLIENT_CERTIFICATE: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"];
/// The same of its key.
const CLIENT_KEY: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"];
/// How long a request may take by a client of our own; the exporter bounds it as a whole, too.
const REQUEST: Duration = Duration::from_secs(10);

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: {problem}")]
pub(super) struct UnusableFile {
    variable: &'static str,
    problem: String,
}

impl UnusableFile {
    fn of([_, variable]: [&'static str; 2], problem: impl Into<String>) -> Self {
        Self { variable, problem: problem.into() }
    }
}

/// What the files hold.
pub(super) struct TraceTls {
    authorities: Option<Vec<u8>>,
    /// Certificate and key.
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl TraceTls {
    /// Reads the files.
    pub(super) fn of(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, UnusableFile> {
        let authorities = read(&lookup, AUTHORITIES)?;
        let client = match (read(&lookup, CLIENT_CERTIFICATE)?, read(&lookup, CLIENT_KEY)?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(UnusableFile::of(CLIENT_KEY, "the certificate needs its key")),
            (None, Some(_)) => {
                return Err(UnusableFile::of(CLIENT_CERTIFICATE, "the key needs its certificate"));
            }
        };
        Ok(Self { authorities, client })
    }

    /// For gRPC.
    pub(super) fn over_grpc(self) -> ClientTlsConfig {
        let tls = ClientTlsConfig::new();
        let tls = match self.authorities {
            Some(trusted) => tls.ca_certificate(Certificate::from_pem(trusted)),
            None => tls.with_enabled_roots(),
        };
        match self.client {
            Some((certificate, key)) => tls.identity(Identity::from_pem(certificate, key)),
            None => tls,
        }
    }

    /// A client for HTTP; none if the usual one does.
    pub(super) fn over_http(self) -> Result<Option<reqwest::blocking::Client>, UnusableFile> {
        if self.authorities.is_none() && self.client.is_none() {
            return Ok(None);
        }
        let mut builder = reqwest::blocking::Client::builder().timeout(REQUEST);
        let mut variables = AUTHORITIES;
        if let Some(trusted) = self.authorities {
            let trusted = reqwest::Certificate::from_pem_bundle(&trusted);
            builder = builder.tls_certs_only(trusted.map_err(|error| cannot_use(AUTHORITIES, &error))?);
        }
        if let Some((certificate, key)) = self.client {
            variables = CLIENT_CERTIFICATE;
            let identity = reqwest::Identity::from_pem(&[certificate, key].join(&b'\n'));
            builder = builder.identity(identity.map_err(|error| cannot_use(CLIENT_CERTIFICATE, &error))?);
        }
        // It waits for a runtime of its own, which a thread of another one must not.
        let built = thread::spawn(move || builder.build()).join();
        let built = built.map_err(|_| UnusableFile::of(variables, "no HTTP client"))?;
        built.map(Some).map_err(|error| cannot_use(variables, &error))
    }
}

fn cannot_use(variables: [&'static str; 2], error: &reqwest::Error) -> UnusableFile {
    UnusableFile::of(variables, with_causes(error))
}

/// What is in the file that one of the variables names, if one does.
fn read(
    lookup: impl Fn(&str) -> Option<String>,
    variables: [&'static str; 2],
) -> Result<Option<Vec<u8>>, UnusableFile> {
    let Some(file) = variables.into_iter().find_map(lookup) else { return Ok(None) };
    let cannot_read = |error: std::io::Error| UnusableFile::of(variables, format!("{file}: {error}"));
    fs::read(&file).map(Some).map_err(cannot_read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A folder with a certificate and its key.
    fn made() -> (TempDir, [String; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = [("cert.pem", made.cert.pem()), ("key.pem", made.signing_key.serialize_pem())];
        let files = files.map(|(name, text)| {
            let file = folder.path().join(name);
            fs::write(&file, text).unwrap();
            file.to_str().unwrap().to_owned()
        });
        (folder, files)
    }

    fn problem(set: &[(&str, &str)]) -> Option<String> {
        let lookup =
            |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, file)| (*file).to_owned());
        let tls = TraceTls::of(lookup);
        tls.and_then(TraceTls::over_http).err().map(|error| error.to_string())
    }

    #[test]
    fn files_that_cannot_be_used_are_named_by_their_variable() {
        let (_folder, files) = made();
        let [certificate, key] = files.each_ref().map(String::as_str);
        let [authorities, shown, its_key] =
            [AUTHORITIES, CLIENT_CERTIFICATE, CLIENT_KEY].map(|[_, usual]| usual);
        let told = problem(&[(authorities, "/not/there.pem")]).unwrap();
        assert!(told.starts_with("OTEL_EXPORTER_OTLP_CERTIFICATE: /not/there.pem: "), "{told}");
        let told = problem(&[(shown, certificate)]);
        assert_eq!(told.as_deref(), Some("OTEL_EXPORTER_OTLP_CLIENT_KEY: the certificate needs its key"));
        let told = problem(&[(CLIENT_KEY[0], key)]);
        assert_eq!(
            told.as_deref(),
            Some("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: the key needs its certificate")
        );
        let told = problem(&[(shown, certificate), (its_key, certificate)]).unwrap();
        assert!(
            told.starts_with("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: "),
            "two certificates are no key: {told}"
        );
    }

    #[test]
    fn files_that_can_be_used_are() {
        let (_folder, files) = made();
        let [certificate, key] = files.each_ref().map(String::as_str);
        let files = [(AUTHORITIES, certificate), (CLIENT_CERTIFICATE, certificate), (CLIENT_KEY, key)];
        for form in [0, 1] {
            let set = files.map(|(variables, file)| (variables[form], file));
            assert_eq!(problem(&set), None, "{set:?}");
        }
        assert_eq!(problem(&[]), None);
    }
}
