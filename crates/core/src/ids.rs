//! The names of things, each with a type of its own: what takes one kind of name refuses another.

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::{Borrow, Cow};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Makes a name that is written, read and described like the text that it is.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        // Maps are looked up by text: hash, order and equality are those of the text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&*self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<&$name> for $name {
            fn from(name: &$name) -> Self {
                name.clone()
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<Arc<str>> for $name {
            fn from(text: Arc<str>) -> Self {
                Self(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, text: &str) -> bool {
                *self.0 == *text
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, text: &&str) -> bool {
                *self.0 == **text
            }
        }

        impl PartialEq<String> for $name {
            fn eq(&self, text: &String) -> bool {
                *self.0 == **text
            }
        }

        impl PartialEq<$name> for String {
            fn eq(&self, name: &$name) -> bool {
                **self == *name.0
            }
        }

        impl PartialEq<&$name> for $name {
            fn eq(&self, other: &&$name) -> bool {
                self.0 == other.0
            }
        }

        impl PartialEq<$name> for &$name {
            fn eq(&self, other: &$name) -> bool {
                self.0 == other.0
            }
        }

        impl PartialEq<$name> for str {
            fn eq(&self, name: &$name) -> bool {
                *self == *name.0
            }
        }

        impl PartialEq<$name> for &str {
            fn eq(&self, name: &$name) -> bool {
                **self == *name.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::from)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                String::schema_name()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                String::json_schema(generator)
            }
        }
    };
}

name! {
    /// The id of an EC2 instance.
    InstanceId
}

name! {
    /// The name of a Kubernetes node.
    NodeName
}

name! {
    /// The UID of a Kubernetes node: a later node of the same name has another one.
    NodeUid
}

name! {
    /// The name of a pool: of its SpotPool.
    PoolName
}

name! {
    /// The name of an Auto Scaling group.
    GroupName
}

name! {
    /// The name of a lifecycle hook of an Auto Scaling group.
    HookName
}

name! {
    /// The name of a replacement: of its NodeReplacement.
    ReplacementName
}

impl InstanceId {
    /// The instance that the description of a scaling activity names: "Launching a new EC2 instance:
    /// i-0123456789abcdef0" (EC2 Auto Scaling User Guide, "Verify a scaling activity").
    #[must_use]
    pub fn named_in(description: &str) -> Option<Self> {
        let (_, after) = description.split_once(": ")?;
        let ends = |letter: char| !letter.is_ascii_alphanumeric() && letter != '-';
        let word = after.split(ends).next().unwrap_or_default();
        word.starts_with("i-").then(|| word.into())
    }
}

/// How the name of a replacement begins that is named after its pool.
pub(crate) fn name_stem(pool: &PoolName) -> &str {
    // A name has 253 characters at most, and none of its labels ends with a hyphen.
    pool.get(..pool.len().min(200)).unwrap_or("pool").trim_end_matches(['-', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, HashSet};

    #[test]
    fn a_name_is_stored_and_described_as_its_text() {
        let id = InstanceId::from("i-1");
        let stored = serde_json::to_value(&id).unwrap();
        assert_eq!(stored, serde_json::json!("i-1"));
        assert_eq!(serde_json::from_value::<InstanceId>(stored).unwrap(), id);
        assert_eq!(schemars::schema_for!(InstanceId), schemars::schema_for!(String));
        assert_eq!(schemars::schema_for!(Option<InstanceId>), schemars::schema_for!(Option<String>));
        assert_eq!((id.to_string(), format!("{id:?}")), ("i-1".to_owned(), "\"i-1\"".to_owned()));
    }

    #[test]
    fn maps_are_looked_up_by_text() {
        let ordered: BTreeMap<NodeName, u8> = [("a".into(), 1), ("b".into(), 2)].into();
        let hashed: HashSet<NodeName> = ordered.keys().cloned().collect();
        assert_eq!(ordered.get("b"), Some(&2));
        assert!(hashed.contains("a") && !hashed.contains("c"));
    }
}
