//! Listings that are behind: a Describe call may give an older picture than the call before it did (EC2 API
//! Reference, "Eventual consistency").

use super::state::{Picture, State};
use jiff::Timestamp;
use std::mem::swap;
use std::time::Duration;

impl State {
    /// Keeps the picture of this moment for the listings to come.
    pub(super) fn keep_picture(&mut self, now: Timestamp) {
        let lag = self.settings.listing_lag;
        if lag.is_zero() {
            self.pictures.clear();
            return;
        }
        if self.pictures.back().is_some_and(|last| last.at == now) {
            self.pictures.pop_back();
        }
        // The first one that is too old is what there was until the next one.
        let is_old = |picture: &Picture| crate::clock::since(picture.at, now) > lag;
        while self.pictures.get(1).is_some_and(is_old) {
            self.pictures.pop_front();
        }
        self.pictures.push_back(Picture {
            at: now,
            groups: self.groups.clone(),
            instances: self.instances.clone(),
            activities: self.activities.clone(),
        });
    }

    /// Lets `look` see a picture that is behind by a random time.
    pub(super) fn as_listed<T>(&mut self, now: Timestamp, look: impl FnOnce(&mut Self) -> T) -> T {
        let lag = u64::try_from(self.settings.listing_lag.as_millis()).unwrap_or(u64::MAX);
        let age = Duration::from_millis(self.lag_rng.u64(0..=lag));
        let is_shown = |picture: &&Picture| crate::clock::since(picture.at, now) >= age;
        let shown = self.pictures.iter().rev().find(is_shown).or(self.pictures.front());
        let Some(mut picture) = shown.filter(|_| !age.is_zero()).cloned() else { return look(self) };
        self.trade(&mut picture);
        let seen = look(self);
        self.trade(&mut picture);
        seen
    }

    fn trade(&mut self, picture: &mut Picture) {
        swap(&mut self.groups, &mut picture.groups);
        swap(&mut self.instances, &mut picture.instances);
        swap(&mut self.activities, &mut picture.activities);
    }
}
