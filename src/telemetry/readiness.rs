//! Which parts of the process work, and why one does not.

use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

spot_guard_core::codes! {
    /// The code of why a part is not ready. `docs/reasons.md` says what to do about each.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
    pub enum UnreadyCode {
        /// The objects of a kind are not listed yet.
        NotListed,
        /// A list or a watch of the Kubernetes API broke. It is made again.
        WatchBroken,
        /// The groups of a pool could not be read or changed.
        GroupsNotObserved,
        /// An actor was restarted too often.
        RestartedTooOften,
        /// The agent cannot read the instance metadata.
        ImdsUnreadable,
        /// Something else answers in the place of the instance metadata service.
        NotImds,
        /// The agent cannot store a notice. It tries again.
        NoticeNotStored,
        /// The node's name is too long for a notice.
        NodeNameTooLong,
        /// The notice queue cannot be read, or its messages cannot be deleted. It is tried again.
        QueueNotRead,
    }
}

/// Why a part is not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Unready {
    /// Its code. docs/reasons.md says what to do about each.
    pub reason: UnreadyCode,
    /// In plain words.
    pub message: String,
    /// Whether the process serves all the same: no restart and no other replica would help.
    pub serves: bool,
}

/// What each part last said about itself. `/readyz` is green while the process can serve, even if a part
/// cannot do its work for a reason that lies outside.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<&'static str, Option<Unready>>>>,
    remarks: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// The part works.
    pub fn ready(&self, part: &'static str) {
        self.set(part, None);
    }

    /// The part is no longer there: nothing is said of it.
    pub fn forget(&self, part: &'static str) {
        self.lock().remove(part);
    }

    /// The part does not work, and why.
    pub fn not_ready(&self, part: &'static str, reason: UnreadyCode, message: impl Into<String>) {
        self.set(part, Some(Unready { reason, message: message.into(), serves: false }));
    }

    /// The part cannot do its work for a reason outside of the process, which serves all the same.
    pub fn impaired(&self, part: &'static str, reason: UnreadyCode, message: impl Into<String>) {
        self.set(part, Some(Unready { reason, message: message.into(), serves: true }));
    }

    /// Whether the process can serve.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.lock().values().flatten().all(|why| why.serves)
    }

    /// What is not ready, with its reason; empty: everything is.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<&'static str, Unready> {
        self.lock().iter().filter_map(|(part, reason)| Some((*part, reason.clone()?))).collect()
    }

    /// Every part that has spoken, and whether it works.
    #[must_use]
    pub fn parts(&self) -> BTreeMap<&'static str, bool> {
        self.lock().iter().map(|(part, reason)| (*part, reason.is_none())).collect()
    }

    /// Something that people should know of a part and that is no reason against it; `None`: nothing any
    /// more.
    pub fn remark(&self, part: &'static str, remark: Option<String>) {
        let mut remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        match remark {
            Some(remark) => remarks.insert(part, remark),
            None => remarks.remove(part),
        };
    }

    /// What people should know, by part.
    #[must_use]
    pub fn remarks(&self) -> BTreeMap<&'static str, String> {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, part: &'static str, reason: Option<Unready>) {
        self.lock().insert(part, reason);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Option<Unready>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_list_every_code() {
        let docs = include_str!("../../docs/reasons.md");
        let (_, part) = docs.split_once("\n## Parts that are not ready").expect("a part of its own");
        let part = part.split("\n## ").next().expect("a part");
        let listed = part.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        assert!(listed.eq(UnreadyCode::ALL.map(UnreadyCode::as_str)), "docs/reasons.md is not up to date");
        let unready =
            Unready { reason: UnreadyCode::WatchBroken, message: "no connection".to_owned(), serves: false };
        let expected =
            serde_json::json!({ "reason": "WatchBroken", "message": "no connection", "serves": false });
        assert_eq!(serde_json::to_value(unready).expect("JSON"), expected);
    }
}
