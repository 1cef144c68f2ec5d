//! The notices that are too many of their node: their names are known and nothing else, until they are
//! removed.

use crate::crd::InterruptionNotice;
use crate::kube::follower::lock;
use jiff::Timestamp;
use kube::ResourceExt;
use spot_guard_core::ids::{InstanceId, NodeName};
use spot_guard_core::notices::{NoticeRoom, Seen};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The names and UIDs of the notices that have no room; clones share them.
#[derive(Clone, Debug, Default)]
pub struct CrowdedOut(Arc<Mutex<BTreeMap<Box<str>, Box<str>>>>);

impl CrowdedOut {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }

    /// Whether the notice of that name and UID is one of them.
    #[must_use]
    pub fn has(&self, name: &str, uid: &str) -> bool {
        lock(&self.0).get(name).is_some_and(|held| **held == *uid)
    }

    /// Name and UID of those that are meant, no more than so many.
    #[must_use]
    pub fn some(&self, count: usize, is_meant: impl Fn(&str, &str) -> bool) -> Vec<(String, String)> {
        let held = lock(&self.0);
        let meant = held.iter().filter(|(name, uid)| is_meant(name, uid)).take(count);
        meant.map(|(name, uid)| (name.to_string(), uid.to_string())).collect()
    }
}

/// Decides for the watch which notices are kept.
#[derive(Default)]
pub(super) struct NoticeFilter {
    room: NoticeRoom,
    out: CrowdedOut,
}

impl NoticeFilter {
    pub(super) fn new(out: CrowdedOut) -> Self {
        Self { room: NoticeRoom::default(), out }
    }

    /// Takes in a notice that is there; `kept` looks up one that was. The name of the one that has no room
    /// then.
    pub(super) fn take(
        &mut self,
        notice: &InterruptionNotice,
        kept: impl FnOnce(&str) -> Option<Arc<InterruptionNotice>>,
        instance_of: impl FnOnce(&NodeName) -> Option<InstanceId>,
    ) -> Option<String> {
        let seen = Seen {
            name: notice.metadata.name.as_deref().unwrap_or_default(),
            node: &notice.spec.node_name,
            instance_id: &notice.spec.instance_id,
            kind: notice.spec.kind,
            deadline: notice.spec.deadline,
            detected: notice.spec.detected_at,
            created: notice.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        };
        lock(&self.out.0).remove(seen.name);
        let name = self.room.take(&seen, instance_of)?;
        let uid = if name == seen.name { notice.uid() } else { kept(&name).and_then(|kept| kept.uid()) };
        lock(&self.out.0).insert(name.as_str().into(), uid.unwrap_or_default().into());
        Some(name)
    }

    /// Forgets a notice that is gone; `kept` is what was known of it.
    pub(super) fn leave(&mut self, name: &str, kept: Option<&InterruptionNotice>) {
        lock(&self.out.0).remove(name);
        if let Some(kept) = kept {
            self.room.leave(&kept.spec.node_name, name);
        }
    }
}
