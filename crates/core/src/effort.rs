//! How much work a check may be. It is counted and not timed, so the same question has the same answer on
//! every machine and in every run.

use std::cell::Cell;

/// What is left of the work that a check may be. One unit is about as much as comparing one label.
#[derive(Debug)]
pub struct Effort {
    left: Cell<u64>,
}

/// A check would be more work than it may be: what it asks cannot be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch;

impl Effort {
    /// So many units.
    #[must_use]
    pub fn of(units: u64) -> Self {
        Self { left: Cell::new(units) }
    }

    /// Takes `units` off before they are worked.
    ///
    /// # Errors
    /// If fewer are left. Then none are left from here on, so that all loops end.
    pub fn spend(&self, units: usize) -> Result<(), TooMuch> {
        let units = u64::try_from(units).unwrap_or(u64::MAX);
        match self.left.get().checked_sub(units) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.left.set(0);
                Err(TooMuch)
            }
        }
    }

    /// How many units are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_too_much_once_leaves_nothing_for_the_rest() {
        let effort = Effort::of(10);
        assert_eq!(effort.spend(4), Ok(()));
        assert_eq!(effort.spend(6), Ok(()));
        let effort = Effort::of(10);
        assert_eq!(effort.spend(11), Err(TooMuch));
        assert_eq!(effort.spend(1), Err(TooMuch));
    }
}
