//! How requests of a group fail.

use super::FailureClass;
use std::time::Duration;

/// Why a group has not brought an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestFailure {
    /// No capacity, a quota, or the group is at its maximum: AWS's words.
    OutOfCapacity(String),
    /// The group's configuration is wrong: AWS's words.
    Misconfigured(String),
    /// A reason that is not known: AWS's words.
    Refused(String),
    /// An instance came, and its node could not be used: in words.
    Unusable(String),
    /// No instance was in service in that time.
    TimedOut(Duration),
}

impl RequestFailure {
    /// What follows from a failure of this class. Of one that passes, or that says nothing, nothing does.
    #[must_use]
    pub fn of(class: FailureClass, message: &str) -> Option<Self> {
        let message = message.to_owned();
        match class {
            FailureClass::Capacity | FailureClass::Quota => Some(Self::OutOfCapacity(message)),
            FailureClass::Configuration => Some(Self::Misconfigured(message)),
            FailureClass::Refused => Some(Self::Refused(message)),
            FailureClass::Unusable => Some(Self::Unusable(message)),
            FailureClass::Throttle | FailureClass::Unknown => None,
        }
    }

    /// The same before a deadline: what nobody understands is a refusal as well.
    #[must_use]
    pub fn of_pressing(class: FailureClass, message: &str) -> Option<Self> {
        let unknown = (class == FailureClass::Unknown).then(|| Self::Refused(message.to_owned()));
        Self::of(class, message).or(unknown)
    }
}
