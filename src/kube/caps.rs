//! How much of one object is read: far more than any of real use has, and little enough to be read at once
//! and kept.
//!
//! The API server knows no limit but the size of the whole. One object may hold a hundred thousand rules.

use crate::kube::unread::ReadError;
use serde::de::{DeserializeOwned, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// Rules of one object: taints, tolerations, terms, lines of selectors and their values, spread constraints,
/// volumes.
const MAX_RULES: usize = 2_000;
/// Other parts of one object: containers of all kinds, their states, amounts and ports, conditions, owners,
/// drivers.
const MAX_PARTS: usize = 4_000;
/// Labels of one object, and how many bytes they may have together.
const MAX_LABELS: usize = 1_000;
const MAX_LABEL_BYTES: usize = 64 << 10;

/// What may still be read of the object.
#[derive(Clone, Copy)]
struct Left {
    rules: usize,
    parts: usize,
    exceeded: bool,
}

thread_local! {
    /// An object is read at one go, so that its thread can count.
    static LEFT: Cell<Option<Left>> = const { Cell::new(None) };
}

/// Reads one object within the bounds. They are kept while it is read: no more is held first.
///
/// # Errors
/// Where it cannot be read, or that it has more than is read.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ReadError> {
    LEFT.set(Some(Left { rules: MAX_RULES, parts: MAX_PARTS, exceeded: false }));
    let read = serde_json::from_slice(bytes);
    let exceeded = LEFT.take().is_some_and(|left| left.exceeded);
    read.map_err(|error| if exceeded { ReadError::TooMany } else { error.into() })
}

fn exceed<E: Error>() -> E {
    LEFT.set(LEFT.get().map(|left| Left { exceeded: true, ..left }));
    E::custom("there are too many")
}

/// Counts one rule or one other part.
fn spend<E: Error>(is_rule: bool) -> Result<(), E> {
    let Some(mut left) = LEFT.get() else { return Ok(()) };
    let of = if is_rule { &mut left.rules } else { &mut left.parts };
    *of = of.checked_sub(1).ok_or_else(exceed)?;
    LEFT.set(Some(left));
    Ok(())
}

struct List<T, const RULES: bool>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const RULES: bool> Visitor<'de> for List<T, RULES> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    /// Go writes an empty list as `null`.
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(one) = list.next_element()? {
            spend(RULES)?;
            found.push(one);
        }
        Ok(Some(found))
    }
}

struct Map<T, const RULES: bool>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const RULES: bool> Visitor<'de> for Map<T, RULES> {
    type Value = Option<BTreeMap<String, T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = BTreeMap::new();
        while let Some((key, value)) = map.next_entry()? {
            spend(RULES)?;
            found.insert(key, value);
        }
        Ok(Some(found))
    }
}

/// Labels; too many are none if they are not needed.
struct Labels {
    needed: bool,
}

impl<'de> Visitor<'de> for Labels {
    type Value = Option<BTreeMap<String, String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut size) = (BTreeMap::new(), 0);
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            size += key.len() + value.len();
            if size > MAX_LABEL_BYTES || found.len() == MAX_LABELS {
                if self.needed {
                    return Err(exceed());
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(None);
            }
            found.insert(key, value);
        }
        Ok(Some(found))
    }
}

/// A list of rules.
pub(super) fn rules<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(List::<T, true>(PhantomData))
}

/// The same where none is an empty list.
pub(super) fn rule_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    rules(deserializer).map(Option::unwrap_or_default)
}

/// A map whose entries are rules.
pub(super) fn rule_map<'de, D, T>(deserializer: D) -> Result<Option<BTreeMap<String, T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(Map::<T, true>(PhantomData))
}

/// A list of other parts.
pub(super) fn parts<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(List::<T, false>(PhantomData))
}

/// The same where none is an empty list.
pub(super) fn part_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    parts(deserializer).map(Option::unwrap_or_default)
}

/// A map whose entries are other parts.
pub(super) fn part_map<'de, D, T>(deserializer: D) -> Result<Option<BTreeMap<String, T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(Map::<T, false>(PhantomData))
}

/// The labels of an object.
pub(super) fn labels<'de, D>(deserializer: D) -> Result<Option<BTreeMap<String, String>>, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(Labels { needed: true })
}

/// The labels of an object of which nothing else is understood: none if they are too many.
pub(super) fn labels_if_few<'de, D>(deserializer: D) -> Result<Option<BTreeMap<String, String>>, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(Labels { needed: false })
}

#[cfg(test)]
mod tests;
