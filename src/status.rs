//! `spot-guard status`: the open fallbacks on a terminal, as the HTTP API tells them.

use crate::http::{Blocker, Fallback, Items, Status};
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the command line gives.
#[derive(Args, Clone, Debug)]
pub struct StatusOptions {
    /// Where the HTTP API of a controller answers
    #[arg(long, value_name = "URL", env = "SPOT_GUARD_API", default_value = "http://127.0.0.1:8081")]
    pub api: String,
    /// A file with a token of the cluster; the main port wants one, the local one does not
    #[arg(long, value_name = "FILE", env = "SPOT_GUARD_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// A file with the certificates (PEM) that the API's own is checked against, instead of the machine's
    #[arg(long, value_name = "FILE", env = "SPOT_GUARD_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
}

/// How the answer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For scripts: what `/api/v1/status` and `/api/v1/fallbacks` answer
    Json,
}

/// Asks the API and returns what is to be printed.
///
/// # Errors
/// When the API cannot be reached, refuses, or answers something else.
pub fn run(options: &StatusOptions) -> anyhow::Result<String> {
    // A proxy of the environment has no business between a terminal and a forwarded port.
    let mut client = reqwest::blocking::Client::builder().timeout(TIMEOUT).no_proxy();
    if let Some(file) = &options.ca_file {
        let cannot_use = || format!("cannot use {}", file.display());
        let authorities = std::fs::read(file).with_context(cannot_use)?;
        let authorities = reqwest::Certificate::from_pem_bundle(&authorities).with_context(cannot_use)?;
        client = client.tls_certs_only(authorities);
    }
    let client = client.build()?;
    let token = options.token_file.as_ref().map(|file| token(file, &options.api)).transpose()?;
    let ask = |path: &str| -> anyhow::Result<Value> {
        let url = format!("{}/api/v1/{path}", options.api.trim_end_matches('/'));
        let request = client.get(&url);
        let request = token.iter().fold(request, |request, token| request.bearer_auth(token));
        let answer = request.send().with_context(|| format!("{url} does not answer"))?;
        let status = answer.status();
        let body = answer.text().with_context(|| format!("{url} does not answer to the end"))?;
        if !status.is_success() {
            bail!("{url} answers {status}: {}", body.chars().take(200).collect::<String>());
        }
        serde_json::from_str(&body).with_context(|| format!("{url} does not answer with JSON"))
    };
    let status = ask("status")?;
    let mut fallbacks: Vec<Value> = Vec::new();
    let mut path = "fallbacks?limit=500".to_owned();
    loop {
        let page: Items<Value> =
            serde_json::from_value(ask(&path)?).context("/api/v1/fallbacks is of another version")?;
        fallbacks.extend(page.items);
        // Cursors are made of letters that a query takes as they are.
        let Some(next) = page.next else { break };
        path = format!("fallbacks?limit=500&continue={next}");
    }
    match options.output {
        Output::Json => Ok(format!("{:#}\n", json!({ "status": status, "fallbacks": fallbacks }))),
        Output::Table => {
            let status = serde_json::from_value(status).context("/api/v1/status is of another version")?;
            let fallbacks: Vec<Fallback> = serde_json::from_value(Value::Array(fallbacks))
                .context("/api/v1/fallbacks is of another version")?;
            Ok(table(&status, &fallbacks))
        }
    }
}

/// The token in a file, to be shown to that API: not where others could read it on its way.
fn token(file: &Path, api: &str) -> anyhow::Result<String> {
    let url = reqwest::Url::parse(api).with_context(|| format!("{api} is not a url"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let on_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback());
    if url.scheme() != "https" && !on_loopback {
        bail!("the token is not sent to {api}: others could read it; use https");
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.trim().to_owned())
}

const HEAD: [&str; 7] = ["FALLBACK", "POOL", "NODE", "ON DEMAND", "BOX", "SINCE", "WAITS FOR"];

/// A line on the whole, and one for each thing that a fallback waits for.
fn table(status: &Status, fallbacks: &[Fallback]) -> String {
    let counts = &status.replacements;
    let role = if status.leader { "leads" } else { "follows" };
    let ready = if status.ready { "" } else { ", is not ready" };
    let mut text = format!(
        "This replica {role}{ready}. Replacements: {} open, {} blocked; fallbacks: {}.\n",
        counts.open, counts.blocked, counts.fallbacks
    );
    if fallbacks.is_empty() {
        return text;
    }
    let mut rows = vec![HEAD.map(str::to_owned)];
    for fallback in fallbacks {
        let mut first = [
            fallback.replacement.clone(),
            fallback.pool.clone().unwrap_or_else(|| "-".to_owned()),
            fallback.node.clone(),
            duration(fallback.on_demand_seconds),
        ];
        for [place, since, message] in waits(fallback) {
            let [name, pool, node, on_demand] = std::mem::take(&mut first);
            rows.push([name, pool, node, on_demand, place, since, message]);
        }
    }
    let widths: Vec<usize> =
        (0..HEAD.len()).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    text.push('\n');
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Box, since when, and what it is, of everything that the fallback waits for.
fn waits(fallback: &Fallback) -> Vec<[String; 3]> {
    let blocked = |by: &Blocker| [by.flow_box.number().to_owned(), duration(by.seconds), by.message.clone()];
    let mut waits: Vec<[String; 3]> = fallback.blocked_by.iter().map(blocked).collect();
    if let Some(at) = fallback.return_not_before {
        let text = format!("the return was given up, and is tried again after {at:.0}");
        waits.push([fallback.flow_box.number().to_owned(), "-".to_owned(), text]);
    }
    if waits.is_empty() {
        waits.push([fallback.flow_box.number().to_owned(), "-".to_owned(), "nothing".to_owned()]);
    }
    waits
}

/// The two largest units.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{}s", seconds % 60),
        3600..86_400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        serde_json::from_value(json!({
            "version": "1.2.3", "now": "2030-01-01T00:00:00Z", "leader": true, "paused": false, "ready": true,
            "pools": [],
            "replacements": { "open": 2, "finished": 1, "fallbacks": 2, "blocked": 1, "byPhase": {} },
        }))
        .expect("a status")
    }

    fn fallback(name: &str, box_: &str, more: Value) -> Fallback {
        let mut value = json!({
            "replacement": name, "pool": "web", "replacedNode": "old", "node": "node-d", "instanceId": "i-d",
            "since": "2030-01-01T00:00:00Z", "onDemandSeconds": 4000, "phase": "OnFallback", "box": box_,
            "blockedBy": [],
        });
        value.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        serde_json::from_value(value).expect("a fallback")
    }

    #[test]
    fn each_fallback_shows_everything_that_it_waits_for_and_since_when() {
        let by = |message: &str, seconds: u64| json!({ "box": "9", "message": message, "since": "2030-01-01T00:00:00Z", "seconds": seconds });
        let blocked =
            json!({ "blockedBy": [by("pod default/db-0 fits on no other node", 90), by("no room", 5)] });
        let given_up = json!({ "returnNotBefore": "2030-01-01T00:05:00Z" });
        let fallbacks = [
            fallback("i-1", "9", blocked),
            fallback("i-22", "6", given_up),
            fallback("i-3", "10", json!({ "pool": null, "onDemandSeconds": 90_000 })),
        ];
        let expected = "\
This replica leads. Replacements: 2 open, 1 blocked; fallbacks: 2.

FALLBACK  POOL  NODE    ON DEMAND  BOX  SINCE  WAITS FOR
i-1       web   node-d  1h6m       9    1m30s  pod default/db-0 fits on no other node
                                   9    5s     no room
i-22      web   node-d  1h6m       6    -      the return was given up, and is tried again after 2030-01-01T00:05:00Z
i-3       -     node-d  1d1h       10   -      nothing
";
        assert_eq!(table(&status(), &fallbacks), expected);
    }

    #[test]
    fn without_a_fallback_there_is_no_table() {
        let status = Status { leader: false, ready: false, ..status() };
        let expected = "This replica follows, is not ready. Replacements: 2 open, 1 blocked; fallbacks: 2.\n";
        assert_eq!(table(&status, &[]), expected);
    }
}
