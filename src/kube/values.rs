//! Values that objects of every kind hold.

use crate::kube::caps::{labels, parts};
use crate::kube::closed::nothing_unknown;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde::de::{DeserializeOwned, Error, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};
use spot_guard_core::neighbours;
use std::collections::BTreeMap;
use std::fmt;

/// Times are kept within these years, so that some hours more or less are a time, too.
const EARLIEST: Timestamp = Timestamp::constant(-62_135_596_800, 0);
const LATEST: Timestamp = Timestamp::constant(221_845_392_000, 0);

/// A point in time. One beyond the year 9000 is its beginning: pods and nodes may carry any year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Timestamp);

impl Time {
    fn read(text: &str) -> Option<Self> {
        if let Ok(time) = text.parse::<Timestamp>() {
            return Some(Self(time.clamp(EARLIEST, LATEST)));
        }
        let year = text.split_once('-')?.0;
        let digits = year.bytes().all(|digit| digit.is_ascii_digit());
        (digits && (year.len() > 4 || year.len() == 4 && year >= "9000")).then_some(Self(LATEST))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
                Time::read(text).ok_or_else(|| E::custom("no time"))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// An image, of which nothing is kept but what it is known for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Whether it is that of aws-node-termination-handler.
    pub is_termination_handler: bool,
}

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Image;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an image")
            }

            fn visit_unit<E: Error>(self) -> Result<Image, E> {
                Ok(Image::default())
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Image, E> {
                Ok(Image { is_termination_handler: neighbours::is_termination_handler(name) })
            }
        }
        deserializer.deserialize_any(Name)
    }
}

/// An amount of a resource, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

/// Amounts by resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// A condition of a node or a pod. Its type, status and time are all that counts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectCondition {
    /// What it is about.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    pub reason: Option<String>,
    /// When that changed.
    pub last_transition_time: Option<Time>,
}

/// Metadata with those annotations that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, bound = "A: DeserializeOwned + Default")]
pub struct ObjectMeta<A = IgnoredAny> {
    /// Its name.
    pub name: Option<String>,
    /// Its namespace; none for what belongs to the whole cluster.
    pub namespace: Option<String>,
    /// Its UID.
    pub uid: Option<String>,
    /// Its version.
    pub resource_version: Option<String>,
    /// How often its wishes changed.
    pub generation: Option<i64>,
    /// When it was made.
    pub creation_timestamp: Option<Time>,
    /// When it is to be gone.
    pub deletion_timestamp: Option<Time>,
    /// What has to happen before it goes.
    pub finalizers: Option<Vec<IgnoredAny>>,
    /// Its labels.
    #[serde(deserialize_with = "labels")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Those of its annotations that are read.
    pub annotations: Option<A>,
    /// Its owners.
    #[serde(deserialize_with = "parts")]
    pub owner_references: Option<Vec<OwnerReference>>,
}

/// The owner of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Whether it is the one that makes the pod anew.
    pub controller: Option<bool>,
}

nothing_unknown!(Image ObjectCondition ObjectMeta Time);

impl<A> ObjectMeta<A> {
    /// As the records of Spot Guard carry it. What nobody reads there stays with the API server.
    pub(super) fn into_record(self) -> meta::ObjectMeta {
        let time = |time: Time| meta::Time(time.0);
        meta::ObjectMeta {
            name: self.name,
            uid: self.uid,
            resource_version: self.resource_version,
            generation: self.generation,
            creation_timestamp: self.creation_timestamp.map(time),
            deletion_timestamp: self.deletion_timestamp.map(time),
            labels: self.labels,
            ..meta::ObjectMeta::default()
        }
    }
}
