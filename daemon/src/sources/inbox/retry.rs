//! How long is waited before something that failed is tried again.
//!
//! Used by the watcher, which gives the time. Invariant: waits grow to a limit, so
//! that a fault that lasts costs little and its end is noticed soon. Not here: what
//! failed.

use std::time::{Duration, Instant};

/// First and longest wait before something that failed is tried again.
const RETRY_DELAY_MIN: Duration = Duration::from_secs(1);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(300);
/// A wait that has begun.
#[derive(Clone, Copy)]
pub(super) struct Wait {
    delay: Duration,
    /// When it ends.
    pub until: Instant,
}

impl Wait {
    /// Twice as long as the one before, up to a limit.
    pub fn after(earlier: Option<Self>, now: Instant) -> Self {
        let delay = earlier.map_or(RETRY_DELAY_MIN, |wait| (wait.delay * 2).min(RETRY_DELAY_MAX));
        Self { delay, until: now + delay }
    }
}
