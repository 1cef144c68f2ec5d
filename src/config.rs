//! The controller's configuration file.
//!
//! Every setting has a default, so an empty file is a complete one; a key that is not known, or a value out
//! of its range, is refused with the file, the line and the key. AWS's endpoint, region and credentials are
//! not in here: they come from the SDK's own variables.

use crate::controller::ControllerSettings;
use crate::crd::is_dns_name;
use crate::http::TlsConfig;
use crate::kube::autoscaler::AutoscalerLease;
use crate::kube::lease::LeaseTimes;
use crate::telemetry::log_filter::LogFilter;
use crate::telemetry::notifications::Target;
use serde::Deserialize;
use spot_guard_core::policy::{Policy, PolicySpec, seconds};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The taint of box 4. cluster-autoscaler leaves taints with this prefix out of its picture of a fresh node.
pub const DEFAULT_TAINT_KEY: &str = "status-taint.cluster-autoscaler.kubernetes.io/RebalanceRecommendation";

/// The controller's configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Where the HTTP API listens. Whoever asks shows a token of the cluster.
    pub listen: SocketAddr,
    /// Where it listens for reading without a token: on loopback, or nowhere.
    pub local_listen: Option<SocketAddr>,
    /// Where probes and scrapers are answered, and nobody else.
    pub probe_listen: SocketAddr,
    /// The certificate to serve `listen` with; without one, tokens are taken from loopback only.
    pub tls: Option<TlsConfig>,
    /// How the replicas agree on the one that acts.
    pub lease: LeaseConfig,
    /// The Lease of cluster-autoscaler: while it is renewed, shortfalls are only observed.
    pub autoscaler_lease: AutoscalerLease,
    /// Calls to AWS.
    pub aws: AwsConfig,
    /// Boxes 4 and 10: the key of the taint, effect NoSchedule.
    pub taint_key: String,
    /// The queue that EC2's notices come through, beside the agents or instead of them.
    pub queue: QueueConfig,
    /// The webhooks that receive notices, fallbacks, returns and failures.
    pub notifications: Vec<Target>,
    /// The files that hold the secrets of the scale-down webhook, one each.
    pub webhook_secret_files: Vec<PathBuf>,
    /// The name of the cluster, for the dashboard.
    pub cluster_name: Option<String>,
    /// Where a trace is shown: a URL with `{traceId}` in it, for links of the dashboard.
    pub trace_url: Option<String>,
    /// The filter of the logs, in the words of `RUST_LOG`, which it replaces. It is read again when the file
    /// changes.
    pub log_filter: Option<String>,
    /// Whether nodes outside every pool are drained when EC2 takes them: by evictions alone.
    pub drain_nodes_outside_pools: bool,
    /// Timings and thresholds of every pool that does not set its own.
    pub defaults: PolicySpec,
}

/// The Lease that the leader holds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LeaseConfig {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Seconds that a lease lasts after its last renewal.
    pub duration_seconds: u32,
    /// Seconds between two renewals; one that takes longer counts as failed.
    pub renew_seconds: u32,
}

/// Calls to AWS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AwsConfig {
    /// Seconds that a call may take, its connection included.
    pub call_timeout_seconds: u32,
}

/// The queue of notices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct QueueConfig {
    /// The URL of the SQS queue; without it none is read.
    pub url: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            local_listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8081))),
            probe_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8082)),
            tls: None,
            lease: LeaseConfig::default(),
            autoscaler_lease: AutoscalerLease::default(),
            aws: AwsConfig::default(),
            taint_key: DEFAULT_TAINT_KEY.to_owned(),
            queue: QueueConfig::default(),
            notifications: Vec::new(),
            webhook_secret_files: Vec::new(),
            cluster_name: None,
            trace_url: None,
            log_filter: None,
            drain_nodes_outside_pools: false,
            defaults: PolicySpec::default(),
        }
    }
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            name: "spot-guard-controller".to_owned(),
            namespace: "spot-guard".to_owned(),
            duration_seconds: 15,
            renew_seconds: 5,
        }
    }
}

impl Default for AwsConfig {
    fn default() -> Self {
        Self { call_timeout_seconds: 10 }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not a configuration: its form, an unknown key, a value of another type.
    #[error("{place}: {problem}")]
    Malformed {
        /// Where.
        place: Location,
        /// What is wrong there.
        problem: String,
    },
    /// A value lies outside its range, or does not go with another one.
    #[error("{place}: {key}: {problem}")]
    Invalid {
        /// Where.
        place: Location,
        /// The setting, as `section.key`.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A place in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file.
    pub file: String,
    /// The line, counted from 1, where it is known.
    pub line: Option<usize>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// If it cannot be read or used; the message names the file, and the line and the key where it can.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { file: file.clone(), source })?;
        Self::parse(&text, &file)
    }

    /// Reads a configuration from its text; `source_name` is what errors call it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, source_name: &str) -> Result<Self, ConfigError> {
        let place = |line| Location { file: source_name.to_owned(), line };
        // Nothing but comments is the null document: every setting keeps its default.
        let config: Option<Self> = serde_saphyr::from_str(text).map_err(|error| {
            let line = error.location().and_then(|at| usize::try_from(at.line()).ok()).filter(|n| *n > 0);
            let key = line.and_then(|line| key_at(text, line));
            let problem = error.without_snippet().to_string();
            // The line is told once, before it; and a setting's type by what may be written.
            let problem = problem.rsplit_once(" at line ").map_or(problem.as_str(), |(problem, _)| problem);
            let problem = problem
                .replace("invalid u32", "not a whole number")
                .replace(", set DuplicateKeyPolicy in Options if acceptable", "");
            // The parser knows where a value of the wrong type stands, not what it is called.
            let problem = match key.filter(|key| !problem.contains(key)) {
                Some(key) => format!("{key}: {problem}"),
                None => problem,
            };
            ConfigError::Malformed { place: place(line), problem }
        })?;
        let config = config.unwrap_or_default();
        config.validate().map_err(|(key, problem)| ConfigError::Invalid {
            place: place(line_of(text, &key)),
            key,
            problem,
        })?;
        Ok(config)
    }

    /// The settings of a pool that sets none of its own.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy::default().overridden(&self.defaults)
    }

    /// What a controller is made of, by this configuration; `identity` is its name among the replicas.
    #[must_use]
    pub fn settings(&self, identity: &str) -> ControllerSettings {
        ControllerSettings {
            namespace: self.lease.namespace.clone(),
            lease: self.lease.name.clone(),
            identity: identity.to_owned(),
            times: LeaseTimes {
                duration: seconds(self.lease.duration_seconds),
                renew: seconds(self.lease.renew_seconds),
                call_timeout: seconds(self.aws.call_timeout_seconds),
            },
            autoscaler_lease: self.autoscaler_lease.clone(),
            taint_key: self.taint_key.clone(),
            notifications: self.notifications.clone(),
            queue_url: self.queue.url.clone(),
            defaults: self.policy(),
            drain_outside_pools: self.drain_nodes_outside_pools,
        }
    }

    /// The first setting that cannot be used, and why.
    fn validate(&self) -> Result<(), (String, String)> {
        let fail = |key: &str, problem: String| Err((key.to_owned(), problem));
        let ranges = [
            ("lease.durationSeconds", self.lease.duration_seconds, 2, 300),
            ("lease.renewSeconds", self.lease.renew_seconds, 1, 120),
            ("aws.callTimeoutSeconds", self.aws.call_timeout_seconds, 1, 120),
        ];
        for (key, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return fail(key, format!("{value} is not between {min} and {max}"));
            }
        }
        // A leader makes a call only while its lease outlives the call's time limit.
        let left = self.lease.duration_seconds.saturating_sub(self.lease.renew_seconds);
        if self.aws.call_timeout_seconds > left {
            let problem = format!(
                "{} is more than the {left} seconds that are left of the lease when it is renewed \
                 (lease.durationSeconds less lease.renewSeconds)",
                self.aws.call_timeout_seconds
            );
            return fail("aws.callTimeoutSeconds", problem);
        }
        if let Some(address) = self.local_listen.filter(|address| !address.ip().is_loopback()) {
            let problem = format!("{address} is not on loopback: everybody could read there");
            return fail("localListen", problem);
        }
        for (key, value) in [
            ("lease.name", &self.lease.name),
            ("lease.namespace", &self.lease.namespace),
            ("autoscalerLease.name", &self.autoscaler_lease.name),
            ("autoscalerLease.namespace", &self.autoscaler_lease.namespace),
        ] {
            if !is_dns_name(value) {
                return fail(key, format!("{value:?} is not a Kubernetes name"));
            }
        }
        if !is_qualified_name(&self.taint_key) {
            let problem = format!("{:?} is not a taint key (prefix/Name)", self.taint_key);
            return fail("taintKey", problem);
        }
        self.validate_shown()?;
        if let Some(filter) = &self.log_filter
            && let Err(problem) = LogFilter::check(filter)
        {
            return fail("logFilter", format!("{filter:?} is no filter of logs: {problem}"));
        }
        if let Some(url) = &self.queue.url {
            let path = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            // https://sqs.REGION.amazonaws.com/ACCOUNT/NAME (SQS Developer Guide, "Queue URLs").
            if path.is_none_or(|path| path.split('/').filter(|part| !part.is_empty()).count() < 3) {
                return fail("queue.url", format!("{url:?} is not the URL of an SQS queue"));
            }
        }
        for target in &self.notifications {
            target.validate().map_err(|(key, problem)| (format!("notifications.{key}"), problem))?;
        }
        self.defaults.validate().map_err(|problem| {
            let (key, problem) = problem.split_once(": ").unwrap_or(("", &problem));
            (format!("defaults.{key}"), problem.to_owned())
        })
    }

    /// The same, of what the dashboard shows.
    fn validate_shown(&self) -> Result<(), (String, String)> {
        let fail = |key: &str, problem: String| Err((key.to_owned(), problem));
        if let Some(name) = self.cluster_name.as_ref().filter(|name| !can_be_shown(name)) {
            return fail("clusterName", format!("{name:?} is not a name of 1 to 100 characters"));
        }
        let Some(url) = &self.trace_url else { return Ok(()) };
        let is_web = url.starts_with("https://") || url.starts_with("http://");
        if !is_web || !url.contains("{traceId}") {
            let problem = format!("{url:?} is not an http or https URL with {{traceId}} in it");
            return fail("traceUrl", problem);
        }
        Ok(())
    }
}

/// Whether the text can be shown as a name on one line.
fn can_be_shown(text: &str) -> bool {
    !text.trim().is_empty() && text.chars().count() <= 100 && !text.chars().any(char::is_control)
}

/// Whether the text is a qualified name with a prefix, as keys of taints of ours are.
fn is_qualified_name(text: &str) -> bool {
    let Some((prefix, name)) = text.split_once('/') else { return false };
    let inner = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let edge = |letter: char| letter.is_ascii_alphanumeric();
    is_dns_name(prefix)
        && name.len() <= 63
        && name.chars().all(inner)
        && name.starts_with(edge)
        && name.ends_with(edge)
}

/// The key that stands on a line.
fn key_at(text: &str, line: usize) -> Option<&str> {
    let key = text.lines().nth(line.checked_sub(1)?)?.split_once(':')?.0.trim();
    (!key.is_empty() && key.chars().all(char::is_alphanumeric)).then_some(key)
}

/// The line, counted from 1, of a setting given as `section.key`: the first such key after its section.
fn line_of(text: &str, setting: &str) -> Option<usize> {
    let mut lines = text.lines().zip(1..);
    setting.split('.').try_fold(0, |_, key| {
        let is_key =
            |line: &str| line.trim_start().strip_prefix(key).is_some_and(|rest| rest.starts_with(':'));
        lines.find(|(line, _)| is_key(line)).map(|(_, number)| number)
    })
}

#[cfg(test)]
mod tests;
