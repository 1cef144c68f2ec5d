//! What routes need, in the words of Kubernetes' authorization, and why somebody is not let in.

use spot_guard_core::spot_action::ActionKind;

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing; it is for probes and scrapers, which have a port of their own.
    Probe,
    /// Nothing: there is nothing of the cluster in it.
    Nothing,
    /// Any token that is valid: there is nothing of the cluster in it.
    Token,
    /// A signed message, whose signature its handler verifies; or the right to return any fallback.
    Signed,
    /// The right to do this with our own objects.
    Right {
        /// What is done.
        verb: Verb,
        /// To what.
        resource: Resource,
        /// Whether to the one that the path names, or to all of them.
        named: bool,
    },
}

/// What is done with an object, in the words of Kubernetes' authorization.
///
/// What is requested has verbs of its own, as `bind` and `escalate` are verbs of Kubernetes' own roles: who
/// has them may ask Spot Guard for something, and may change no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Verb {
    /// Read one by its name.
    Get,
    /// Read them all.
    List,
    /// Have a node replaced.
    Replace,
    /// Have a fallback returned to Spot.
    Return,
    /// Have a replacement cancelled.
    Cancel,
    /// Pause, and resume.
    Pause,
}

impl Verb {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Replace => "replace",
            Self::Return => "return",
            Self::Cancel => "cancel",
            Self::Pause => "pause",
        }
    }

    /// Whether nothing changes by it.
    pub(super) fn reads(self) -> bool {
        matches!(self, Self::Get | Self::List)
    }

    /// The right that an action takes.
    pub(super) fn of(action: ActionKind) -> (Self, Resource) {
        match action {
            ActionKind::Replace => (Self::Replace, Resource::Replacements),
            ActionKind::Return => (Self::Return, Resource::Replacements),
            ActionKind::Cancel => (Self::Cancel, Resource::Replacements),
            ActionKind::Pause | ActionKind::Resume => (Self::Pause, Resource::Pools),
        }
    }
}

/// Our own kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Resource {
    /// SpotPools.
    Pools,
    /// NodeReplacements.
    Replacements,
    /// InterruptionNotices.
    Notices,
    /// SpotActions.
    SpotActions,
}

impl Resource {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pools => "spotpools",
            Self::Replacements => "nodereplacements",
            Self::Notices => "interruptionnotices",
            Self::SpotActions => "spotactions",
        }
    }
}

/// A right that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Permission {
    pub(super) verb: Verb,
    pub(super) resource: Resource,
    pub(super) name: Option<String>,
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// There is no bearer token.
    NoToken,
    /// The API server does not know the token (any more), and what it says.
    BadToken(String),
    /// The caller lacks the right.
    Forbidden { user: String, question: Permission },
    /// The API server did not say.
    Unknown,
    /// The local door is for reading.
    ReadOnly,
    /// The local door was asked under a name that is not this machine's: by a web page from elsewhere.
    ForeignHost,
    /// Without TLS the main door takes tokens from loopback only.
    Unencrypted,
}
