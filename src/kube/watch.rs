//! Follows all objects of one kind: a list, and then watches from where it was, for ever.
//!
//! Bodies are cut into objects as they arrive, and each object is read by itself. One that cannot be read is
//! told as such and changes nothing for the others.

use crate::causes::with_causes;
use crate::kube::caps::read;
use crate::kube::client::REQUEST_TIMEOUT;
use crate::kube::slim::{Bare, Head, ListRest, Status, Watched};
use crate::kube::splitter::{Piece, Shape, Splitter, Uncut};
use crate::kube::unread::ReadError;
use http::StatusCode;
use http::header::{ACCEPT, ACCEPT_ENCODING};
use http_body_util::{BodyExt as _, Limited};
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use spot_guard_core::policy::{backoff, spread};
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// First and longest pause before another attempt.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// After so long the API server ends a watch, which then goes on from where it was.
const WATCH_FOR: Duration = Duration::from_secs(30);
/// A watch that is silent for so long after its end has lost its connection without a word.
const GRACE: Duration = Duration::from_secs(5);
/// A watch that ends sooner is a failed attempt: the next one is not made at once.
const TOO_SHORT: Duration = Duration::from_secs(1);
/// A picture that may be older than this after a failure is made anew by a list: a watch that goes on does
/// not say when it has caught up.
const BEARABLE: Duration = Duration::from_secs(5);
/// The same without a failure: an end and a bookmark come at least every 30 s.
pub(super) const SILENT: Duration = Duration::from_secs(45);
/// How many objects a page has. The API server knows no limit in bytes, so their number follows their size.
const PAGE: usize = 500;
const SMALLEST_PAGE: usize = 10;
const PAGE_BYTES: usize = 8 << 20;
/// A page that failed after so long was too large: half of what an answer may take.
const SLOW: Duration = Duration::from_secs(REQUEST_TIMEOUT.as_secs() / 2);
/// Of an answer that is a refusal, no more is read.
const MAX_STATUS: usize = 64 << 10;

/// What is told of a kind.
pub(super) enum WatchSignal<K> {
    /// A list begins: what it does not name is gone.
    Listing,
    /// An object is so now.
    Is(K),
    /// An object is there whose fields cannot be read.
    Unread(Box<Head>, ReadError),
    /// One of which not even the name can be read.
    Nameless(ReadError),
    /// An object of this namespace and name is gone.
    Gone(String, String),
    /// The list is complete.
    Listed,
    /// A watch goes on from where it was.
    Resumed,
    /// Nothing else has happened until now.
    Current,
    /// There is no watch until another attempt.
    Broken(WatchFailure),
}

/// Why a list or a watch ended. It holds nothing of any object, and of an answer its code and reason only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchFailure {
    /// No connection, or no answer in time.
    Unreachable(String),
    /// The client cannot make the request: its credentials, for instance.
    NoRequest,
    /// The API server refused.
    Refused {
        /// The code of the answer.
        code: u16,
        /// Its reason, one word.
        reason: String,
    },
    /// The API server ended a watch by an error.
    Ended {
        /// The code of the error.
        code: u16,
        /// Its reason, one word.
        reason: String,
    },
    /// What the version stood for is forgotten.
    Expired,
    /// The body is not what it should be.
    Malformed(Uncut),
    /// What stands around the objects cannot be read.
    Unreadable(ReadError),
    /// A watch did not end in time.
    Silent,
}

impl fmt::Display for WatchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => f.write_str(why),
            Self::NoRequest => f.write_str("the request cannot be made"),
            Self::Refused { code, reason } => write!(f, "the API server answers {code} {reason}"),
            Self::Ended { code, reason } => write!(f, "the API server ends the watch: {code} {reason}"),
            Self::Expired => f.write_str("the resource version is too old (410)"),
            Self::Malformed(why) => why.fmt(f),
            Self::Unreadable(problem) => write!(f, "the answer cannot be read: {problem}"),
            Self::Silent => f.write_str("the watch did not end in time: its connection is lost"),
        }
    }
}

impl WatchFailure {
    pub(super) fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Service(_) | kube::Error::HyperError(_) => Self::Unreachable(with_causes(error)),
            _ => Self::NoRequest,
        }
    }

    fn refused(code: u16, reason: Option<&str>) -> Self {
        let reason = reason.unwrap_or_default();
        if code == StatusCode::GONE.as_u16() || matches!(reason, "Expired" | "Gone") {
            return Self::Expired;
        }
        // A word of the API server (apimachinery's `StatusReason`), not a text.
        let reason = reason.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        Self::Refused { code, reason }
    }

    /// Whether a watch cannot go on from where it was.
    fn needs_list(&self) -> bool {
        match self {
            Self::Ended { .. }
            | Self::Expired
            | Self::Malformed(Uncut::NoObject | Uncut::TooMuchRest)
            | Self::Unreadable(_) => true,
            Self::Unreachable(_)
            | Self::NoRequest
            | Self::Refused { .. }
            | Self::Malformed(Uncut::Truncated)
            | Self::Silent => false,
        }
    }
}

/// Where the objects of a kind are.
pub(super) struct Source {
    client: Client,
    path: &'static str,
    page: usize,
    /// No page is larger: larger ones have taken too long. A whole list that succeeds doubles it.
    ceiling: usize,
    /// When nothing was missing last.
    current: Option<Instant>,
}

impl Source {
    /// The objects at this path of the API.
    pub(super) fn new(client: Client, path: &'static str) -> Self {
        Self { client, path, page: PAGE, ceiling: PAGE, current: None }
    }

    /// Tells what there is and what changes, until it is dropped.
    pub(super) async fn follow<K: Watched>(mut self, mut tell: impl FnMut(WatchSignal<K>)) {
        let mut version: Option<String> = None;
        let mut failures: u32 = 0;
        loop {
            let began = Instant::now();
            let outcome = match &mut version {
                Some(version) => self.watch(version, &mut tell).await,
                None => match self.list(&mut tell).await {
                    Ok(listed) => {
                        version = Some(listed);
                        continue;
                    }
                    Err(failure) => Err(failure),
                },
            };
            let steady = began.elapsed() >= TOO_SHORT;
            match outcome {
                Ok(()) if steady => failures = 0,
                Ok(()) => failures += 1,
                Err(_) if began.elapsed() > RETRY_MAX => failures = 1,
                Err(_) => failures += 1,
            }
            let bearable = if outcome.is_ok() { SILENT } else { BEARABLE };
            let old = self.current.is_none_or(|current| current.elapsed() > bearable);
            if old || outcome.as_ref().is_err_and(WatchFailure::needs_list) {
                version = None;
            }
            if let Err(failure) = outcome {
                tell(WatchSignal::Broken(failure));
            } else if steady {
                continue;
            }
            sleep(spread(backoff(RETRY_FIRST, RETRY_MAX, failures), self.path)).await;
        }
    }

    /// Lists everything, in pages. Returns the version from which a watch goes on.
    async fn list<K: Watched>(
        &mut self,
        tell: &mut impl FnMut(WatchSignal<K>),
    ) -> Result<String, WatchFailure> {
        tell(WatchSignal::Listing);
        let mut token = String::new();
        loop {
            let began = Instant::now();
            let rest = match self.list_page(&token, tell).await {
                Ok(rest) => rest,
                Err(failure) => {
                    if began.elapsed() >= SLOW {
                        self.ceiling = (self.page / 2).max(1);
                    }
                    self.page = (self.page / 2).max(SMALLEST_PAGE).min(self.ceiling);
                    return Err(failure);
                }
            };
            match (rest.metadata.next, rest.metadata.resource_version) {
                (Some(next), _) if !next.is_empty() => token = next,
                (_, Some(version)) if !version.is_empty() => {
                    self.ceiling = (self.ceiling * 2).min(PAGE);
                    self.current = Some(Instant::now());
                    tell(WatchSignal::Listed);
                    return Ok(version);
                }
                _ => return Err(WatchFailure::Unreadable(ReadError::Field(0))),
            }
        }
    }

    async fn list_page<K: Watched>(
        &mut self,
        token: &str,
        tell: &mut impl FnMut(WatchSignal<K>),
    ) -> Result<ListRest, WatchFailure> {
        let mut query = format!("limit={}", self.page);
        if !token.is_empty() {
            query.push_str("&continue=");
            query.push_str(&escaped(token));
        }
        let mut body = get(&self.client, self.path, &query).await?;
        let mut splitter = Splitter::new(Shape::Items);
        let (mut count, mut size) = (0_usize, 0_usize);
        while let Some(frame) = body.frame().await {
            let Ok(bytes) = frame.map_err(|error| WatchFailure::of(&error))?.into_data() else { continue };
            size += bytes.len();
            let fed = splitter.feed(&bytes, |piece| {
                count += 1;
                tell(item(piece));
            });
            fed.map_err(WatchFailure::Malformed)?;
        }
        let rest = splitter.finish().map_err(WatchFailure::Malformed)?;
        let rest = serde_json::from_slice(&rest).map_err(|error| WatchFailure::Unreadable(error.into()))?;
        if let Some(average) = size.checked_div(count) {
            let wanted = (PAGE_BYTES / average.max(1)).max(SMALLEST_PAGE);
            self.page = wanted.min(self.ceiling);
        }
        Ok(rest)
    }

    /// One watch, until it ends.
    async fn watch<K: Watched>(
        &mut self,
        version: &mut String,
        tell: &mut impl FnMut(WatchSignal<K>),
    ) -> Result<(), WatchFailure> {
        let began = Instant::now();
        let mut ends = began + WATCH_FOR + GRACE;
        let query = format!(
            "watch=true&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
            WATCH_FOR.as_secs(),
            escaped(version)
        );
        let mut body = timeout_at(ends, get(&self.client, self.path, &query))
            .await
            .map_err(|_| WatchFailure::Silent)??;
        tell(WatchSignal::Resumed);
        let mut splitter = Splitter::new(Shape::Events);
        let mut failure = None;
        while let Some(frame) = timeout_at(ends, body.frame()).await.map_err(|_| WatchFailure::Silent)? {
            let Ok(bytes) = frame.map_err(|error| WatchFailure::of(&error))?.into_data() else { continue };
            let fed = splitter.feed(&bytes, |piece| {
                if failure.is_none() {
                    match event(piece, version) {
                        Ok(signal) => tell(signal),
                        Err(why) => failure = Some(why),
                    }
                }
            });
            if let Some(failure) = failure {
                return Err(failure);
            }
            fed.map_err(WatchFailure::Malformed)?;
            let now = Instant::now();
            self.current = Some(now);
            // What is on its way is waited for.
            ends = ends.max(now + GRACE);
        }
        splitter.finish().map_err(WatchFailure::Malformed)?;
        if began.elapsed() + TOO_SHORT >= WATCH_FOR {
            self.current = Some(Instant::now());
            tell(WatchSignal::Current);
        }
        Ok(())
    }
}

/// The body of an answer that is no refusal.
pub(super) async fn get(client: &Client, path: &str, query: &str) -> Result<Body, WatchFailure> {
    let request = http::Request::get(format!("{path}?{query}"))
        .header(ACCEPT, "application/json")
        .header(ACCEPT_ENCODING, "identity")
        .body(Body::empty())
        .map_err(|_| WatchFailure::NoRequest)?;
    let answer = client.send(request).await.map_err(|error| WatchFailure::of(&error))?;
    let code = answer.status();
    if code.is_success() {
        return Ok(answer.into_body());
    }
    let body = Limited::new(answer.into_body(), MAX_STATUS).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let status: Status = serde_json::from_slice(&body).unwrap_or_default();
    Err(WatchFailure::refused(code.as_u16(), status.reason.as_deref()))
}

/// An object of a list.
fn item<K: Watched>(piece: Piece<'_>) -> WatchSignal<K> {
    let bytes = match piece {
        Piece::Object(bytes) => bytes,
        Piece::TooLarge => return WatchSignal::Nameless(ReadError::TooLarge),
    };
    let problem = match read::<K>(bytes) {
        Ok(object) if !object.identity().1.is_empty() => return WatchSignal::Is(object),
        Ok(_) => ReadError::Field(0),
        Err(problem) => problem,
    };
    let head = read::<Head>(bytes);
    let head = head.or_else(|_| read::<Bare>(bytes).map(Head::from));
    match head {
        Ok(head) if !head.identity().1.is_empty() => WatchSignal::Unread(Box::new(head), problem),
        _ => WatchSignal::Nameless(problem),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum EventKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

#[derive(Deserialize)]
struct Event<K> {
    #[serde(rename = "type")]
    kind: EventKind,
    object: K,
}

/// An event of a watch; `version` becomes that of its object.
fn event<K: Watched>(piece: Piece<'_>, version: &mut String) -> Result<WatchSignal<K>, WatchFailure> {
    let bytes = match piece {
        Piece::Object(bytes) => bytes,
        Piece::TooLarge => return Ok(WatchSignal::Nameless(ReadError::TooLarge)),
    };
    let mut problem = ReadError::Field(0);
    match read::<Event<K>>(bytes) {
        Ok(Event { kind: EventKind::Added | EventKind::Modified, object }) if has_name(&object) => {
            moves_on(version, &object);
            return Ok(WatchSignal::Is(object));
        }
        Ok(Event { kind: EventKind::Deleted, object }) if has_name(&object) => {
            moves_on(version, &object);
            return Ok(gone(&object));
        }
        Ok(_) => {}
        Err(why) => problem = why,
    }
    let named = read::<Event<Head>>(bytes).or_else(|_| {
        let Event { kind, object } = read::<Event<Bare>>(bytes)?;
        Ok::<_, ReadError>(Event { kind, object: Head::from(object) })
    });
    let Event { kind, object: head } = named.map_err(|_| WatchFailure::Unreadable(problem))?;
    if kind == EventKind::Error {
        let status = serde_json::from_slice::<Event<Status>>(bytes).map(|event| event.object);
        let status = status.unwrap_or_default();
        let refused = WatchFailure::refused(status.code.unwrap_or(0), status.reason.as_deref());
        return Err(match refused {
            WatchFailure::Refused { code, reason } => WatchFailure::Ended { code, reason },
            other => other,
        });
    }
    moves_on(version, &head);
    match kind {
        EventKind::Bookmark => Ok(WatchSignal::Current),
        _ if !has_name(&head) => Ok(WatchSignal::Nameless(problem)),
        EventKind::Deleted => Ok(gone(&head)),
        EventKind::Added | EventKind::Modified | EventKind::Error => {
            Ok(WatchSignal::Unread(Box::new(head), problem))
        }
    }
}

fn has_name(object: &impl Watched) -> bool {
    !object.identity().1.is_empty()
}

fn moves_on(version: &mut String, object: &impl Watched) {
    let (.., new) = object.identity();
    if !new.is_empty() {
        new.clone_into(version);
    }
}

fn gone<K>(object: &impl Watched) -> WatchSignal<K> {
    let (namespace, name, _) = object.identity();
    WatchSignal::Gone(namespace.to_owned(), name.to_owned())
}

/// As a value in a query.
pub(super) fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
        escaped
    })
}

#[cfg(test)]
mod tests;
