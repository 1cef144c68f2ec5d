//! Structs of which every field is accounted for: it is read, or known to be irrelevant to where a pod can
//! go, or it is told.
//!
//! A scheduler looks at more of an object with every version of Kubernetes. A field that nobody here knows
//! must not be taken for one that means nothing.

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use std::collections::BTreeMap;
use std::fmt;

/// Of the name of a field that is not known so many letters are kept.
const MAX_NAME: usize = 64;

/// Declares structs like `slim!`, with the API's name of every other field: those that change nothing about
/// where a pod can go, and those that do, without being understood. Fields of neither list are not
/// understood, either.
macro_rules! closed {
    ($($(#[$of:meta])* $name:ident { $($(#[$field_of:meta])* $field:ident: $type:ty,)* }
        irrelevant [$($irrelevant:literal)*] blocks [$($blocks:literal)*])*) => {
        $(
        $(#[$of])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default, remote = "Self")]
        pub struct $name {
            $(
                #[doc = concat!("`", stringify!($field), "`, as the API describes it.")]
                $(#[$field_of])*
                pub $field: $type,
            )*
            /// The first field in use that is not understood, with the name of the struct.
            #[serde(skip)]
            pub unknown: Option<Box<str>>,
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                const IRRELEVANT: &[&str] = &[$($irrelevant),*];
                let mut unknown = None;
                let mut read = Self::deserialize($crate::kube::closed::Closed {
                    inner: deserializer,
                    irrelevant: IRRELEVANT,
                    unknown: &mut unknown,
                })?;
                read.unknown = unknown.map(|field| format!("{}.{field}", stringify!($name)).into());
                Ok(read)
            }
        }

        impl $crate::kube::closed::Accounted for $name {
            fn unknown(&self) -> Option<&str> {
                self.unknown.as_deref()$(.or_else(|| self.$field.unknown()))*
            }
        }
        )*

        /// Every struct, and what is said of its fields.
        #[cfg(test)]
        pub(in crate::kube) fn field_lists() -> Vec<$crate::kube::closed::FieldList> {
            vec![$($crate::kube::closed::FieldList {
                name: stringify!($name),
                understood: $crate::kube::closed::names(|names| $name::deserialize(names).map(drop)),
                irrelevant: &[$($irrelevant),*],
                blocks: &[$($blocks),*],
            }),*]
        }
    };
}
pub(super) use closed;

/// What may hold a field that is not understood.
pub(super) trait Accounted {
    /// The first field in use that is not understood, with the name of its struct.
    fn unknown(&self) -> Option<&str>;
}

impl<T: Accounted> Accounted for &T {
    fn unknown(&self) -> Option<&str> {
        (**self).unknown()
    }
}

impl<T: Accounted> Accounted for Option<T> {
    fn unknown(&self) -> Option<&str> {
        self.as_ref().and_then(Accounted::unknown)
    }
}

impl<T: Accounted> Accounted for Vec<T> {
    fn unknown(&self) -> Option<&str> {
        self.iter().find_map(Accounted::unknown)
    }
}

impl<V> Accounted for BTreeMap<String, V> {
    fn unknown(&self) -> Option<&str> {
        None
    }
}

macro_rules! nothing_unknown {
    ($($type:ty)*) => {$(
        impl $crate::kube::closed::Accounted for $type {
            fn unknown(&self) -> Option<&str> {
                None
            }
        }
    )*};
}
pub(super) use nothing_unknown;
nothing_unknown!(String bool i32 i64 IgnoredAny);

/// Reads a struct, and tells the first field in use that it does not have and that is not irrelevant.
pub(super) struct Closed<'f, D> {
    pub(super) inner: D,
    pub(super) irrelevant: &'static [&'static str],
    pub(super) unknown: &'f mut Option<Box<str>>,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Closed<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        read: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let sort = Sort { read, irrelevant: self.irrelevant };
        self.inner.deserialize_map(Fields { sort, unknown: self.unknown, inner: visitor })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Visits the fields of a struct, or, as a map of them, hands on those that are read.
struct Fields<'f, T> {
    sort: Sort,
    unknown: &'f mut Option<Box<str>>,
    inner: T,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Fields<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Fields { sort: self.sort, unknown: self.unknown, inner: map })
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(field) = self.inner.next_key_seed(self.sort)? {
            match field {
                Field::Read(name) => {
                    let name: StrDeserializer<'_, A::Error> = name.into_deserializer();
                    return seed.deserialize(name).map(Some);
                }
                Field::Irrelevant => drop(self.inner.next_value::<IgnoredAny>()?),
                Field::Unknown(name) => {
                    let InUse(in_use) = self.inner.next_value()?;
                    if in_use && self.unknown.is_none() {
                        *self.unknown = Some(name);
                    }
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.inner.next_value_seed(seed)
    }
}

/// Sorts the name of a field.
#[derive(Clone, Copy)]
struct Sort {
    read: &'static [&'static str],
    irrelevant: &'static [&'static str],
}

enum Field {
    Read(&'static str),
    Irrelevant,
    Unknown(Box<str>),
}

impl<'de> DeserializeSeed<'de> for Sort {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Sort {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Field, E> {
        if let Some(read) = self.read.iter().find(|read| **read == name) {
            return Ok(Field::Read(read));
        }
        if self.irrelevant.contains(&name) {
            return Ok(Field::Irrelevant);
        }
        Ok(Field::Unknown(name.chars().take(MAX_NAME).collect()))
    }
}

/// Whether a field holds anything: null, an empty text, an empty list and an empty map are nothing.
struct InUse(bool);

impl<'de> Deserialize<'de> for InUse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = InUse;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_unit<E: Error>(self) -> Result<InUse, E> {
                Ok(InUse(false))
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<InUse, E> {
                Ok(InUse(true))
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<InUse, E> {
                Ok(InUse(true))
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<InUse, E> {
                Ok(InUse(true))
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<InUse, E> {
                Ok(InUse(true))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<InUse, E> {
                Ok(InUse(!text.is_empty()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<InUse, A::Error> {
                let mut in_use = false;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    in_use = true;
                }
                Ok(InUse(in_use))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InUse, A::Error> {
                let mut in_use = false;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    in_use = true;
                }
                Ok(InUse(in_use))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
pub(super) use tests::{FieldList, names};
#[cfg(test)]
mod tests;
