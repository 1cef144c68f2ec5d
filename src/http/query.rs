//! What a request asks for beside its path: filters, and pages of long lists.
//!
//! A page ends with a cursor: the name that it ended with. The next one begins after that name, whatever came
//! and went meanwhile: what was there all the time is told exactly once.

use super::problem::{FieldProblem, ProblemReason, Refused};
use actix_web::HttpRequest;
use actix_web::web::Query;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use spot_guard_core::ids::{NodeName, PoolName};
use spot_guard_core::record::Phase;
use std::collections::BTreeMap;

/// How many entries a page has, unless asked for otherwise.
pub(super) const DEFAULT_LIMIT: usize = 100;
/// How many entries a page has at most.
pub(super) const MAX_LIMIT: usize = 500;
/// The longest request target, in bytes.
const MAX_TARGET: usize = 8 * 1024;
/// The longest headers together, in bytes.
const MAX_HEADERS: usize = 16 * 1024;

/// Which entries of a list are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub(super) pool: Option<PoolName>,
    pub(super) phase: Option<Phase>,
    pub(super) node: Option<NodeName>,
    pub(super) since: Option<Timestamp>,
    limit: usize,
    after: Option<String>,
    /// Of the list and its filters: a cursor belongs to one.
    list: String,
}

/// Whether the request is within bounds, and has no parameter but these.
///
/// # Errors
/// 414, 431, or 400 with the parameter.
pub(super) fn check(request: &HttpRequest, takes: &[&str]) -> Result<(), Refused> {
    if request.uri().to_string().len() > MAX_TARGET {
        let detail = format!("the request target is longer than {MAX_TARGET} bytes");
        return Err(Refused::new(ProblemReason::TargetTooLong, request, detail));
    }
    let size: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size > MAX_HEADERS {
        let detail = format!("the headers are longer than {MAX_HEADERS} bytes");
        return Err(Refused::new(ProblemReason::HeadersTooLong, request, detail));
    }
    let mut given = BTreeMap::new();
    for (key, value) in pairs(request)? {
        if !takes.contains(&key.as_str()) {
            let known = if takes.is_empty() { "none".to_owned() } else { takes.join(", ") };
            return Err(Refused::field(
                request,
                &key,
                format!("there is no such parameter; there are: {known}"),
            ));
        }
        if value.is_empty() {
            return Err(Refused::field(request, &key, "it is empty".to_owned()));
        }
        if given.insert(key.clone(), value).is_some() {
            return Err(Refused::field(request, &key, "it stands there twice".to_owned()));
        }
    }
    Ok(())
}

/// The name in the path; empty if there is none.
pub(super) fn path_name(request: &HttpRequest) -> String {
    request.match_info().get("name").unwrap_or_default().to_owned()
}

fn pairs(request: &HttpRequest) -> Result<Vec<(String, String)>, Refused> {
    Query::<Vec<(String, String)>>::from_query(request.query_string()).map(Query::into_inner).map_err(
        |error| {
            Refused::new(
                ProblemReason::QueryUnreadable,
                request,
                format!("the query cannot be read: {error}"),
            )
        },
    )
}

impl Filter {
    /// What the query says.
    ///
    /// # Errors
    /// 400 with the parameter that cannot be used.
    pub(super) fn of(request: &HttpRequest) -> Result<Self, Refused> {
        let given = pairs(request)?.into_iter().collect();
        Self::parse(request.path(), given).map_err(|problem| problem.refuses(request))
    }

    /// What the parameters of a list at this path say.
    ///
    /// # Errors
    /// The parameter that cannot be used.
    pub fn parse(path: &str, mut given: BTreeMap<String, String>) -> Result<Self, FieldProblem> {
        let refuse = FieldProblem::of;
        let (limit, cursor) = (given.remove("limit"), given.remove("continue"));
        let list = fingerprint(path, &given);
        let phase = given.remove("phase").map(|text| {
            let parsed = serde_json::from_value::<Phase>(text.into());
            parsed.map_err(|error| refuse("phase", &error.to_string()))
        });
        let since = given.remove("since").map(|text| {
            let parsed = text.parse::<Timestamp>();
            parsed.map_err(|_| {
                refuse("since", &format!("{text:?} is not an RFC 3339 time (2030-01-01T00:00:00Z)"))
            })
        });
        let limit = match limit.map(|text| text.parse()) {
            None => DEFAULT_LIMIT,
            Some(Ok(limit)) if (1..=MAX_LIMIT).contains(&limit) => limit,
            Some(_) => return Err(refuse("limit", &format!("it is not a number from 1 to {MAX_LIMIT}"))),
        };
        let after = match cursor.as_deref().map(|text| read_cursor(text, &list)) {
            None => None,
            Some(Some(name)) => Some(name),
            Some(None) => {
                let detail = "it is not the continue of a page of this list with these filters";
                return Err(refuse("continue", detail));
            }
        };
        Ok(Self {
            phase: phase.transpose()?,
            since: since.transpose()?,
            pool: given.remove("pool").map(Into::into),
            node: given.remove("node").map(Into::into),
            limit,
            after,
            list,
        })
    }

    /// Whether what is asked about the pool fits.
    pub(super) fn of_pool(&self, pool: Option<&PoolName>) -> bool {
        self.pool.is_none() || self.pool.as_ref() == pool
    }

    /// Whether something that began then fits.
    pub(super) fn since(&self, began: Option<Timestamp>) -> bool {
        self.since.is_none_or(|since| began.is_some_and(|began| since <= began))
    }

    /// The page that was requested of these entries, by name, and the cursor of the next one.
    pub fn page<T>(&self, entries: Vec<T>, name: impl Fn(&T) -> &str) -> (Vec<T>, Option<String>) {
        let is_next = |entry: &T| self.after.as_deref().is_none_or(|after| after < name(entry));
        let mut entries: Vec<T> = entries.into_iter().filter(is_next).collect();
        entries.sort_unstable_by(|one, other| name(one).cmp(name(other)));
        let more = entries.len() > self.limit;
        entries.truncate(self.limit);
        let next = entries.last().filter(|_| more).map(|last| cursor(&self.list, name(last)));
        (entries, next)
    }
}

/// Tells lists and their filters apart; no secret.
fn fingerprint(path: &str, filters: &BTreeMap<String, String>) -> String {
    let text = format!("{path}?{filters:?}");
    URL_SAFE_NO_PAD.encode(&digest(&SHA256, text.as_bytes()).as_ref()[..9])
}

fn cursor(list: &str, after: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list} {after}"))
}

/// The name that a page of this list ended with.
fn read_cursor(text: &str, list: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    text.strip_prefix(list)?.strip_prefix(' ').map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn filter(query: &str) -> Filter {
        Filter::of(&TestRequest::with_uri(&format!("/list?{query}")).to_http_request()).expect("a filter")
    }

    proptest! {
        /// Entries come and go between two pages: whoever stays is told once, and in order.
        #[test]
        fn what_stays_is_told_exactly_once(
            rounds in proptest::collection::vec(proptest::collection::btree_set(0_u8..60, 0..40), 1..30),
            stays in proptest::collection::btree_set(60_u8..90, 0..30),
            limit in 1_usize..9,
        ) {
            let mut told = Vec::new();
            let mut next: Option<String> = None;
            for turn in 0..1_000 {
                let there: BTreeSet<u8> = rounds[turn % rounds.len()].union(&stays).copied().collect();
                let names: Vec<String> = there.iter().rev().map(|number| format!("i-{number:02}")).collect();
                let cursor = next.map(|next| format!("&continue={next}")).unwrap_or_default();
                let (page, more) = filter(&format!("limit={limit}{cursor}")).page(names, |name| name);
                prop_assert!(page.len() <= limit);
                told.extend(page);
                next = more;
                if next.is_none() {
                    break;
                }
            }
            prop_assert!(next.is_none(), "the pages end");
            prop_assert!(told.windows(2).all(|pair| pair[0] < pair[1]), "in order, and no one twice: {told:?}");
            for number in stays {
                let name = format!("i-{number:02}");
                prop_assert!(told.contains(&name));
            }
        }
    }
}
