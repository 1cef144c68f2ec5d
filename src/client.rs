//! `spot-guard status`, `pools`, `savings`, `fallbacks` and `explain`: the HTTP API on a terminal.
//!
//! Where no controller runs, the same is told from what is stored in the cluster.

mod forward;
mod records;
mod tables;

use crate::crd::is_dns_name;
use crate::http::{Fallback, Items, NodeSafety, Pool, Replacement, Savings};
use crate::telemetry::escape::escaped;
use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
pub use forward::ClusterOptions;
use forward::{Forward, NoController};
use reqwest::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How the API is reached.
#[derive(Args, Clone, Debug)]
pub struct ApiOptions {
    /// The URL of the HTTP API of a controller; by default kubectl opens a way to one
    #[arg(long, value_name = "URL", env = "SPOT_GUARD_API")]
    pub api: Option<String>,
    /// Which cluster kubectl asks
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// A file with a token of the cluster; the main port requires one
    #[arg(long, value_name = "FILE", env = "SPOT_GUARD_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// A file with the trusted certificates (PEM) of the API, instead of the machine's
    #[arg(long, value_name = "FILE", env = "SPOT_GUARD_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// The form of the output
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
}

/// How the answer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table, for people
    Table,
    /// The answer of the API, for scripts
    Json,
}

/// What is asked.
#[derive(Clone, Debug, Subcommand)]
pub enum ClientCommand {
    /// Show the state in short, and what each fallback waits for
    Status(#[command(flatten)] ApiOptions),
    /// Show both groups of each pool
    Pools(#[command(flatten)] ApiOptions),
    /// Show the node hours of each pool, what they cost, and what was saved
    Savings {
        /// Show each day of a pool, instead of all of them together
        #[arg(long)]
        by_day: bool,
        /// The URL and the token of the API
        #[command(flatten)]
        options: ApiOptions,
    },
    /// Show the open fallbacks: what each waits for, and since when
    Fallbacks(#[command(flatten)] ApiOptions),
    /// Show the steps of a replacement, a fallback or a node, and what blocks it
    Explain {
        /// The name of a replacement, a fallback or a node
        name: String,
        /// The URL and the token of the API
        #[command(flatten)]
        options: ApiOptions,
    },
}

const ANOTHER_VERSION: &str = "the API is of another version";

/// Asks the API and returns what is to be printed.
///
/// # Errors
/// When the API cannot be reached, refuses, or answers something else.
pub fn run(question: &ClientCommand) -> anyhow::Result<String> {
    match question {
        ClientCommand::Status(options) => {
            let api = ApiClient::new(options)?;
            let (status, fallbacks) = (api.get("status")?, api.list("fallbacks")?);
            show(options, json!({ "status": status, "fallbacks": fallbacks }), || {
                let open: Vec<Fallback> = read(fallbacks.into())?;
                Ok(tables::status(&read(status)?, &open, api.has_controller))
            })
        }
        ClientCommand::Pools(options) => {
            let pools = ApiClient::new(options)?.list("pools")?;
            show(options, json!({ "items": pools }), || Ok(tables::pools(&read::<Vec<Pool>>(pools.into())?)))
        }
        ClientCommand::Savings { by_day, options } => {
            let savings = ApiClient::new(options)?.list("savings")?;
            show(options, json!({ "items": savings }), || {
                Ok(tables::savings(&read::<Vec<Savings>>(savings.into())?, *by_day))
            })
        }
        ClientCommand::Fallbacks(options) => {
            let fallbacks = ApiClient::new(options)?.list("fallbacks")?;
            show(options, json!({ "items": fallbacks }), || {
                Ok(tables::fallbacks(&read::<Vec<Fallback>>(fallbacks.into())?))
            })
        }
        ClientCommand::Explain { name, options } => explain(name, options),
    }
}

/// The replacement of that name, or of that node. For a fallback or a node, also whether it could be drained
/// now.
fn explain(name: &str, options: &ApiOptions) -> anyhow::Result<String> {
    if !is_dns_name(name) {
        bail!("{name:?} is not a Kubernetes name");
    }
    let api = ApiClient::new(options)?;
    let (replacement, node) = match api.find(&format!("replacements/{name}"))? {
        Some(replacement) => (Some(replacement), None),
        None => {
            let of_node = match api.find(&format!("nodes/{name}"))? {
                Some(node) => {
                    let story = node["replacement"].as_str();
                    story.map(|story| api.get(&format!("replacements/{story}"))).transpose()?
                }
                None => {
                    let story = api.with_node(name)?;
                    Some(story.with_context(|| format!("no replacement, fallback or node is named {name}"))?)
                }
            };
            (of_node, Some(name.into()))
        }
    };
    let story = replacement.clone().map(read::<Replacement>).transpose()?;
    let stands_in = |story: &Replacement| {
        let capacity = story.capacity.as_ref().filter(|_| story.fallback && story.finished_at.is_none());
        capacity.map(|capacity| capacity.node_name.clone())
    };
    let drained = story.as_ref().and_then(stands_in).or(node);
    let safety = drained.map(|node| api.find(&format!("nodes/{node}/safety"))).transpose()?.flatten();
    show(options, json!({ "replacement": replacement, "safety": safety }), || {
        Ok(tables::explain(name, story.as_ref(), safety.map(read::<NodeSafety>).transpose()?.as_ref()))
    })
}

fn show(
    options: &ApiOptions,
    answers: Value,
    table: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<String> {
    match options.output {
        Output::Json => Ok(format!("{answers:#}\n")),
        Output::Table => table(),
    }
}

/// What is answered, to be shown to a person: reasons and messages in it are whatever somebody wrote.
fn read<T: DeserializeOwned>(mut answer: Value) -> anyhow::Result<T> {
    escape(&mut answer);
    serde_json::from_value(answer).context(ANOTHER_VERSION)
}

/// Escapes every text in it.
fn escape(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(safe) = escaped(text) {
                *text = safe;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(escape),
        Value::Object(fields) => fields.values_mut().for_each(escape),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The API of a controller.
struct ApiClient {
    client: reqwest::blocking::Client,
    base: String,
    token: Option<String>,
    /// Else what answers are the records alone.
    has_controller: bool,
    /// What leads there, if this has opened it.
    _forward: Option<Forward>,
}

impl ApiClient {
    fn new(options: &ApiOptions) -> anyhow::Result<Self> {
        // A proxy of the environment has no business between a terminal and a forwarded port.
        let mut client = reqwest::blocking::Client::builder().timeout(TIMEOUT).no_proxy();
        if let Some(file) = &options.ca_file {
            let cannot_use = || format!("cannot use {}", file.display());
            let authorities = std::fs::read(file).with_context(cannot_use)?;
            let authorities = reqwest::Certificate::from_pem_bundle(&authorities).with_context(cannot_use)?;
            client = client.tls_certs_only(authorities);
        }
        let (forward, api) = match &options.api {
            Some(api) => (None, api.clone()),
            None => match Forward::open(&options.cluster) {
                Ok(forward) => {
                    let api = forward.url.clone();
                    (Some(forward), api)
                }
                Err(error) => {
                    let why = error.downcast::<NoController>()?;
                    (None, records::tell(&options.cluster, &why)?)
                }
            },
        };
        let has_controller = options.api.is_some() || forward.is_some();
        let token = options.token_file.as_ref().map(|file| token(file, &api)).transpose()?;
        let base = format!("{}/api/v1", api.trim_end_matches('/'));
        Ok(Self { client: client.build()?, base, token, has_controller, _forward: forward })
    }

    fn get(&self, path: &str) -> anyhow::Result<Value> {
        let url = format!("{}/{path}", self.base);
        self.find(path)?.with_context(|| format!("{url} answers 404 Not Found"))
    }

    /// What is there, if it is.
    fn find(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let url = format!("{}/{path}", self.base);
        let request = self.client.get(&url);
        let request = self.token.iter().fold(request, |request, token| request.bearer_auth(token));
        let answer = request.send().with_context(|| format!("{url} does not answer"))?;
        let status = answer.status();
        let body = answer.text().with_context(|| format!("{url} broke off its answer"))?;
        let problem: Value = serde_json::from_str(&body).unwrap_or_default();
        // Another path than these has another code.
        let is_no_such = problem["reason"] == "NoSuchObject";
        if status == StatusCode::NOT_FOUND && is_no_such {
            return Ok(None);
        }
        if !status.is_success() {
            let begins: String = body.chars().take(200).collect();
            bail!("{url} answers {status}: {}", escaped(&begins));
        }
        serde_json::from_str(&body).map(Some).with_context(|| format!("{url} does not answer with JSON"))
    }

    /// The open replacement, else the newest, in which the node is replaced or took over: also one that no
    /// controller sees.
    fn with_node(&self, node: &str) -> anyhow::Result<Option<Value>> {
        let page = self.get(&format!("replacements?node={node}&limit=500"))?;
        let found: Items<Value> = serde_json::from_value(page).context(ANOTHER_VERSION)?;
        let order =
            |held: &Value| (held["finishedAt"].is_null(), held["startedAt"].as_str().map(str::to_owned));
        Ok(found.items.into_iter().max_by_key(order))
    }

    /// All pages of a list.
    fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut items: Vec<Value> = Vec::new();
        let mut query = "?limit=500".to_owned();
        loop {
            let page = self.get(&format!("{path}{query}"))?;
            let page: Items<Value> = serde_json::from_value(page).context(ANOTHER_VERSION)?;
            items.extend(page.items);
            // Cursors are made of letters that a query takes as they are.
            let Some(next) = page.next else { return Ok(items) };
            query = format!("?limit=500&continue={next}");
        }
    }
}

/// The token in a file, to be shown to that API: not where others could read it on its way.
fn token(file: &Path, api: &str) -> anyhow::Result<String> {
    let url = reqwest::Url::parse(api).with_context(|| format!("{api} is not a url"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let on_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback());
    if url.scheme() != "https" && !on_loopback {
        bail!("the token is not sent to {api}, since others could read it: use https");
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.trim().to_owned())
}
