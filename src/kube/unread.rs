//! The objects that are there and cannot be read: why, and which.

use serde_json::error::Category;
use spot_guard_core::freshness::WatchedKind;
use std::collections::BTreeMap;
use std::fmt;

/// Of so many objects of a kind the names are told; the others are counted.
const NAMED: usize = 100;

/// Where reading an object ended. It holds nothing of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// A field is not of its type, at this byte.
    Field(usize),
    /// It is no JSON from this byte on.
    Syntax(usize),
    /// It is larger than objects can be.
    TooLarge,
    /// It has more rules, other parts or labels than are read.
    TooMany,
}

impl From<serde_json::Error> for ReadError {
    fn from(error: serde_json::Error) -> Self {
        match error.classify() {
            Category::Data => Self::Field(error.column()),
            Category::Io | Category::Syntax | Category::Eof => Self::Syntax(error.column()),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(at) => write!(f, "a field that ends at byte {at} is not of its type"),
            Self::Syntax(at) => write!(f, "it is no JSON from byte {at} on"),
            Self::TooLarge => f.write_str("it is too large"),
            Self::TooMany => f.write_str("it has more rules, parts or labels than are read"),
        }
    }
}

/// An object that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Empty for what belongs to the whole cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub problem: ReadError,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{} ({})", self.name, self.problem)
    }
}

/// The objects of a kind that are not understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnreadOfKind {
    /// How many there are.
    pub count: usize,
    /// The first of them by namespace and name, 100 at most.
    pub named: Vec<Unread>,
}

impl UnreadOfKind {
    /// From all of them.
    pub(super) fn of<'a>(count: usize, all: impl Iterator<Item = (&'a str, &'a str, ReadError)>) -> Self {
        let unread = |(namespace, name, problem): (&str, &str, ReadError)| Unread {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            problem,
        };
        Self { count, named: all.take(NAMED).map(unread).collect() }
    }
}

/// All objects that are not understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotUnderstood(BTreeMap<WatchedKind, UnreadOfKind>);

impl NotUnderstood {
    /// The kinds that have some.
    pub fn kinds(&self) -> impl Iterator<Item = (WatchedKind, &UnreadOfKind)> {
        self.0.iter().map(|(kind, unread)| (*kind, unread))
    }

    /// The names of a kind, 100 at most.
    pub fn names(&self, kind: WatchedKind) -> impl Iterator<Item = &str> {
        self.0.get(&kind).into_iter().flat_map(|unread| &unread.named).map(|unread| unread.name.as_str())
    }

    /// Whether the object of this name may be there without being understood. With more of them than are
    /// named it may be any.
    #[must_use]
    pub fn may_hold(&self, kind: WatchedKind, name: &str) -> bool {
        let unread = self.0.get(&kind);
        unread.is_some_and(|unread| {
            unread.count > unread.named.len() || unread.named.iter().any(|unread| unread.name == name)
        })
    }

    pub(super) fn set(&mut self, kind: WatchedKind, unread: UnreadOfKind) {
        if unread.count == 0 {
            self.0.remove(&kind);
        } else {
            self.0.insert(kind, unread);
        }
    }
}
