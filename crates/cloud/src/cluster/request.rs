//! What a request asks for, read from its method, path and query; and who stands between client and API.

use super::refusal::{Refusal, bad_request, refusal};
use http::Method;
use std::collections::BTreeMap;
use std::time::Duration;

/// The request as authorization, admission and gates see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// get, list, watch, create, update, patch, delete or deletecollection.
    pub verb: String,
    /// The API group, empty for core.
    pub group: String,
    /// The version in the path.
    pub version: String,
    /// The plural name.
    pub resource: String,
    /// `status`, `eviction`, ..., empty for the object itself.
    pub subresource: String,
    /// The namespace in the path.
    pub namespace: Option<String>,
    /// The object's name in the path.
    pub name: Option<String>,
    /// The field selector of a list or a watch.
    pub fields: Option<String>,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User name, `system:serviceaccount:<namespace>:<name>` for a service account.
    pub user: String,
    /// Groups of the user.
    pub groups: Vec<String>,
    /// Extra attributes, such as `authentication.kubernetes.io/node-name`.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// The cluster's administrator.
    #[must_use]
    pub fn admin() -> Self {
        Self {
            user: "kubernetes-admin".to_owned(),
            groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
            extra: BTreeMap::new(),
        }
    }

    /// A service account, without a pod.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self {
            user: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
            extra: BTreeMap::new(),
        }
    }

    /// The same identity as a token bound to a pod on `node` gives it.
    #[must_use]
    pub fn on_node(mut self, node: &str) -> Self {
        self.extra.insert("authentication.kubernetes.io/node-name".to_owned(), vec![node.to_owned()]);
        self
    }
}

/// What a [`RequestGate`] does with a request or with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestFate {
    /// Go on.
    Pass,
    /// Answer with this code and reason instead.
    Refuse(u16, String),
    /// The connection breaks without an answer.
    Drop,
    /// Go on after this time.
    Delay(Duration),
}

/// Stands between one client and the API: faults, outages and crash points.
pub trait RequestGate: Send + Sync {
    /// Asked before the request takes effect.
    fn before(&self, _request: &RequestInfo) -> RequestFate {
        RequestFate::Pass
    }

    /// Asked after it took effect and before the client hears of it. A watch asks when it opens and again at
    /// each delivery, so a gate that begins to drop also breaks the watches that are already open.
    fn after(&self, _request: &RequestInfo, _status: u16) -> RequestFate {
        RequestFate::Pass
    }
}

/// The gate of an ordinary client.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenGate;

impl RequestGate for OpenGate {}

/// The query of a request, decoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let mut fields = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            fields.insert(decode(name, true)?, decode(value, true)?);
        }
        Ok(Self(fields))
    }

    /// The value of a parameter; an empty one counts as absent, as in the real API.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| bad_request(format!("invalid value {text:?} of the query parameter {name}"))),
        }
    }

    pub(super) fn dry_run(&self) -> bool {
        self.get("dryRun") == Some("All")
    }
}

/// Percent-decoding; `+` is a space in queries only.
fn decode(text: &str, plus_is_space: bool) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' if plus_is_space => bytes.push(b' '),
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?')),
                    _ => return Err(bad_request(format!("invalid escape in {text:?}"))),
                }
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).map_err(|_| bad_request(format!("{text:?} is not UTF-8")))
}

/// Reads method, path and query of a resource request.
pub(super) fn parse(method: &Method, path: &str, query: &Query) -> Result<RequestInfo, Refusal> {
    let unknown = || refusal(404, "NotFound", "the server could not find the requested resource");
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        parts.push(decode(part, false)?);
    }
    let mut parts = parts.into_iter();
    let (group, version) = match parts.next().as_deref() {
        Some("api") => (String::new(), parts.next()),
        Some("apis") => (parts.next().ok_or_else(unknown)?, parts.next()),
        _ => return Err(unknown()),
    };
    let mut info = RequestInfo { group, version: version.ok_or_else(unknown)?, ..RequestInfo::default() };
    let mut rest: Vec<String> = parts.collect();
    // `namespaces/x` and its status are the namespace itself; anything longer is inside of it.
    if rest.first().is_some_and(|first| first == "namespaces")
        && rest.get(2).is_some_and(|third| third != "status" && third != "finalize")
    {
        info.namespace = Some(rest.remove(1));
        rest.remove(0);
    }
    let mut rest = rest.into_iter();
    info.resource = rest.next().ok_or_else(unknown)?;
    info.fields = query.get("fieldSelector").map(str::to_owned);
    info.name = rest.next();
    info.subresource = rest.next().unwrap_or_default();
    if rest.next().is_some() {
        return Err(unknown());
    }
    info.verb = match (method.as_str(), info.name.is_some()) {
        ("GET", true) => "get",
        ("GET", false) if query.flag("watch") => "watch",
        ("GET", false) => "list",
        ("POST", _) => "create",
        ("PUT", true) => "update",
        ("PATCH", true) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => return Err(refusal(405, "MethodNotAllowed", "the server does not allow this method")),
    }
    .to_owned();
    Ok(info)
}
