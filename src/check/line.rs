//! What a check says.

use std::fmt;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Ok,
    Note,
    Degraded,
    Refused,
    Failed,
}

impl Verdict {
    /// As the first word of its line.
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Degraded => "degraded",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// One line of the answer.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) verdict: Verdict,
    pub(super) about: String,
    pub(super) text: String,
}

impl Line {
    pub(super) fn new(verdict: Verdict, about: impl Into<String>, text: impl Into<String>) -> Self {
        Self { verdict, about: about.into(), text: text.into() }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<9} {:<22} {}", self.verdict.word(), self.about, self.text)
    }
}
