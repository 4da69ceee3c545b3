//! How long to wait before trying again: doubling, with a bound and jitter.

use std::time::Duration;

/// Counts failures and answers waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits begin at `first` and never exceed `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Notes a failure. `random` is drawn evenly from all 32-bit numbers; it
    /// spreads the wait over its upper half, so that a city's counties do not
    /// come back in one instant.
    pub fn failed(&mut self, random: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        let wait = doubled.min(self.longest);
        wait / 2 + (wait / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Notes a success: the next wait is the first again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_again() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second * 8);
        let waits: Vec<u64> = (0..6).map(|_| backoff.failed(u32::MAX).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
        assert_eq!(backoff.failed(0), second * 4, "jitter takes at most half");
        backoff.succeeded();
        assert_eq!(backoff.failed(u32::MAX), second);
        for _ in 0..100 {
            assert!(backoff.failed(u32::MAX) <= second * 8);
        }
    }
}
