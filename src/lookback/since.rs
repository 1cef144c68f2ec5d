//! How far to look back: a duration or a date.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use std::str::FromStr;

/// A duration before now, or a time.
#[derive(Clone, Copy, Debug)]
pub enum Since {
    /// So long ago; days are of 24 hours.
    Ago(Span),
    /// Then.
    At(Timestamp),
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self::At(at));
        }
        if let Ok(date) = text.parse::<Date>() {
            let midnight = date.to_zoned(TimeZone::UTC).map_err(|error| error.to_string())?;
            return Ok(Self::At(midnight.timestamp()));
        }
        let span: Span = text
            .parse()
            .map_err(|_| "it is neither a duration (10d, 36h) nor a date (2026-11-01)".to_owned())?;
        Ok(Self::Ago(span))
    }
}

impl Since {
    /// The time that is meant.
    ///
    /// # Errors
    /// When it is not before now.
    pub fn before(self, now: Timestamp) -> Result<Timestamp, String> {
        let at = match self {
            Self::At(at) => at,
            Self::Ago(span) => {
                let now = now.to_zoned(TimeZone::UTC);
                now.checked_sub(span).map_err(|error| error.to_string())?.timestamp()
            }
        };
        if at < now { Ok(at) } else { Err("it is not in the past".to_owned()) }
    }
}
