//! What is remembered for a short time: bounded, and forgotten by itself.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Answers by what was asked, each for its own time.
pub(super) struct Cache<K, V> {
    size: usize,
    held: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// A cache of at most so many answers.
    pub(super) fn new(size: usize) -> Self {
        Self { size, held: Mutex::default() }
    }

    /// The answer, while it may be used.
    pub(super) fn get(&self, key: &K) -> Option<V> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(key).filter(|(until, _)| Instant::now() < *until).map(|(_, answer)| answer.clone())
    }

    /// Remembers an answer for so long. One that would be forgotten next makes room for it.
    pub(super) fn put(&self, key: K, answer: V, life: Duration) {
        let now = Instant::now();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= self.size && !held.contains_key(&key) {
            held.retain(|_, (until, _)| now < *until);
        }
        if held.len() >= self.size && !held.contains_key(&key) {
            let next = held.iter().min_by_key(|(_, (until, _))| *until).map(|(key, _)| key.clone());
            next.and_then(|next| held.remove(&next));
        }
        held.insert(key, (now + life, answer));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_used_for_its_time_and_no_longer() {
        let cache = Cache::new(9);
        cache.put("a", 1, Duration::from_secs(10));
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert_eq!(cache.get(&"a"), Some(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(cache.get(&"a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_grows_and_what_would_go_first_makes_room() {
        let cache = Cache::new(3);
        for (key, life) in [("long", 10), ("short", 2), ("middle", 5), ("new", 7)] {
            cache.put(key, (), Duration::from_secs(life));
        }
        assert_eq!(cache.len(), 3);
        assert_eq!(cache.get(&"short"), None);
        tokio::time::advance(Duration::from_secs(8)).await;
        cache.put("newest", (), Duration::from_secs(1));
        assert_eq!(cache.len(), 2, "what is over goes first");
        assert!(cache.get(&"long").is_some());
    }
}
