//! Which parts of the process work, and why one does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What each part last said about itself; `/readyz` is green when no part has a reason not to be.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
    remarks: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// The part works.
    pub fn ready(&self, part: &'static str) {
        self.set(part, None);
    }

    /// The part does not work, and why.
    pub fn not_ready(&self, part: &'static str, reason: impl Into<String>) {
        self.set(part, Some(reason.into()));
    }

    /// What is not ready, with its reason; empty: everything is.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<&'static str, String> {
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

    fn set(&self, part: &'static str, reason: Option<String>) {
        self.lock().insert(part, reason);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
