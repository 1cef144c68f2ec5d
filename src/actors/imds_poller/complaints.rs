//! Problems that last are told when they begin and now and then, not with every read.

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// A problem that lasts is told again this often.
const REPEAT: Duration = Duration::from_secs(600);

/// What was last complained about, by subject.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    open: BTreeMap<&'static str, (String, Instant)>,
}

impl Complaints {
    /// Whether this problem should be told now.
    pub(super) fn raise(&mut self, subject: &'static str, problem: &str) -> bool {
        let last = self.open.get(subject);
        if last.is_some_and(|(known, at)| known == problem && at.elapsed() < REPEAT) {
            return false;
        }
        self.open.insert(subject, (problem.to_owned(), Instant::now()));
        true
    }

    /// The subject is well; whether it was not before.
    pub(super) fn settle(&mut self, subject: &'static str) -> bool {
        self.open.remove(subject).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_problem_is_told_on_change_and_every_ten_minutes() {
        let mut complaints = Complaints::default();
        assert!(complaints.raise("a", "x"));
        assert!(!complaints.raise("a", "x"));
        assert!(complaints.raise("b", "x"));
        assert!(complaints.raise("a", "y"));
        tokio::time::advance(REPEAT - Duration::from_secs(1)).await;
        assert!(!complaints.raise("a", "y"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(complaints.raise("a", "y"));
        assert!(complaints.settle("a"));
        assert!(!complaints.settle("a"));
        assert!(complaints.raise("a", "y"));
    }
}
