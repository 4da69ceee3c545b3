//! How many children there are at a time, over all imports.
//!
//! Taken by [`super::Child`] before it starts, given back when it is gone. Whoever
//! has one waits for nothing else of an import's, so each wait ends.

use std::sync::{Condvar, Mutex, MutexGuard};

/// Each child may take 1 GiB and a processor: as many as a small server has of both.
pub(super) const CHILDREN_MAX: usize = 4;

/// Counts what is taken.
#[derive(Debug)]
pub(super) struct Slots {
    free: Mutex<usize>,
    given_back: Condvar,
}

/// Those of this process.
pub(super) static SLOTS: Slots = Slots::new(CHILDREN_MAX);

impl Slots {
    pub(super) const fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), given_back: Condvar::new() }
    }

    /// Waits until one is free.
    pub(super) fn take(&'static self) -> Slot {
        let mut free = self.lock();
        while *free == 0 {
            free = self.given_back.wait(free).unwrap_or_else(|error| error.into_inner());
        }
        *free -= 1;
        Slot(self)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        // A number is whole after a panic, too.
        self.free.lock().unwrap_or_else(|error| error.into_inner())
    }
}

/// One that is taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot(&'static Slots);

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.lock() += 1;
        self.0.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::*;

    #[test]
    fn no_more_are_taken_than_there_are() {
        static TWO: Slots = Slots::new(2);
        static TAKEN: AtomicUsize = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let _slot = TWO.take();
                        assert!(TAKEN.fetch_add(1, Ordering::SeqCst) < 2);
                        thread::yield_now();
                        TAKEN.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(*TWO.lock(), 2);
    }
}
