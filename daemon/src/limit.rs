//! How often something may happen: one token bucket for every rate in the daemon.
//!
//! Used wherever others decide how often something is asked for or told: requests
//! of members, unknown tokens, and lines of the log. Invariants: memory is bounded
//! by a number of keys, and an unknown key is refused while there is no room for
//! it; the clock is the caller's, so tests need none. Not here: how many things
//! may be under way *at once* (`net::Places`), and what a refusal means.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Lines about one kind of trouble: 30 at once, then one every two seconds. More
/// than a person reads, less than fills a disk (2 GB in ten years).
pub const LINES: Budget = Budget { capacity: 30, refill: Duration::from_secs(2) };

/// So many at once, and one more after each `refill`.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// What may happen at once; with 0 nothing ever may.
    pub capacity: u32,
    /// How long it takes until one more may happen; not zero.
    pub refill: Duration,
}

/// A budget for each key, or for all together with the key `()`.
#[derive(Debug)]
pub struct Limiter<K> {
    budget: Budget,
    keys_max: usize,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    buckets: BTreeMap<K, Bucket>,
    /// Refusals of keys that are not, or no longer, in the map.
    untold: u64,
}

#[derive(Debug)]
struct Bucket {
    left: u32,
    /// When `left` was true; what has passed since counts for the next refill.
    since: Instant,
    /// Refusals since the last time that it was allowed.
    refused: u64,
}

impl<K: Ord + Clone> Limiter<K> {
    /// Remembers at most `keys_max` keys.
    pub fn new(budget: Budget, keys_max: usize) -> Self {
        let state = State { buckets: BTreeMap::new(), untold: 0 };
        Self { budget, keys_max, state: Mutex::new(state) }
    }

    /// Whether it may happen now: if so, how many times it was refused since it
    /// last was allowed, which a line of the log should say.
    pub fn allow(&self, key: &K, now: Instant) -> Option<u64> {
        let mut guard = self.state.lock().unwrap_or_else(|error| error.into_inner());
        let State { buckets, untold } = &mut *guard;
        if !buckets.contains_key(key) && buckets.len() >= self.keys_max {
            // A full bucket is as good as a new one.
            buckets.retain(|_, bucket| {
                bucket.fill(self.budget, now);
                let stays = bucket.left < self.budget.capacity;
                *untold += if stays { 0 } else { bucket.refused };
                stays
            });
            if buckets.len() >= self.keys_max {
                *untold += 1;
                return None;
            }
        }
        let new = Bucket { left: self.budget.capacity, since: now, refused: 0 };
        let bucket = buckets.entry(key.clone()).or_insert(new);
        bucket.fill(self.budget, now);
        match bucket.left.checked_sub(1) {
            Some(left) => {
                bucket.left = left;
                Some(std::mem::take(&mut bucket.refused) + std::mem::take(untold))
            }
            None => {
                bucket.refused += 1;
                None
            }
        }
    }
}

impl Limiter<()> {
    /// One budget for all.
    pub fn of_all(budget: Budget) -> Self {
        Self::new(budget, 1)
    }

    /// [`Limiter::allow`] by the clock, for a line of the log.
    pub fn may_say(&self) -> Option<u64> {
        self.allow(&(), Instant::now())
    }
}

impl Bucket {
    fn fill(&mut self, budget: Budget, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_nanos();
        let refills = passed / budget.refill.as_nanos().max(1);
        let missing = budget.capacity - self.left;
        if refills >= u128::from(missing) {
            (self.left, self.since) = (budget.capacity, now.max(self.since));
        } else {
            // Fewer than are missing, so both fit; what is left over counts for the
            // next one.
            let refills = refills as u32;
            self.left += refills;
            self.since += budget.refill * refills;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BUDGET: Budget = Budget { capacity: 5, refill: Duration::from_secs(2) };

    fn count<K: Ord + Clone>(limiter: &Limiter<K>, key: &K, now: Instant) -> usize {
        (0..100).filter(|_| limiter.allow(key, now).is_some()).count()
    }

    #[test]
    fn who_asks_without_end_is_slowed_down_alone() {
        let (limiter, start) = (Limiter::new(BUDGET, 10), Instant::now());
        assert_eq!(count(&limiter, &'a', start), 5);
        assert_eq!(count(&limiter, &'b', start), 5);
        let later = start + 6 * SECOND;
        assert_eq!(count(&limiter, &'a', later), 3);
        // Whoever asks in between waits no longer for that.
        let times = (1..=8).map(|step| later + step * SECOND * 3 / 2);
        assert_eq!(times.filter(|at| limiter.allow(&'a', *at).is_some()).count(), 6);
        // Nobody saves up more than there is at once.
        assert_eq!(count(&limiter, &'a', later + 3600 * SECOND), 5);
    }

    #[test]
    fn a_bucket_that_is_full_starts_its_wait_when_it_is_used() {
        let (limiter, start) = (Limiter::of_all(BUDGET), Instant::now());
        assert_eq!(limiter.allow(&(), start), Some(0));
        let later = start + 3 * SECOND;
        assert_eq!(count(&limiter, &(), later), 5);
        assert_eq!(count(&limiter, &(), later + SECOND), 0);
        assert_eq!(count(&limiter, &(), later + 2 * SECOND), 1);
    }

    #[test]
    fn what_was_refused_is_told_once_by_the_next_that_is_allowed() {
        let (limiter, start) = (Limiter::new(BUDGET, 10), Instant::now());
        assert_eq!(limiter.allow(&'a', start), Some(0));
        assert_eq!(count(&limiter, &'a', start), 4);
        assert_eq!(limiter.allow(&'b', start), Some(0), "its own only");
        assert_eq!(limiter.allow(&'a', start + 4 * SECOND), Some(96));
        assert_eq!(limiter.allow(&'a', start + 4 * SECOND), Some(0));
    }

    #[test]
    fn keys_are_bounded_and_those_with_a_full_budget_make_room() {
        let (limiter, start) = (Limiter::new(BUDGET, 2), Instant::now());
        assert_eq!(count(&limiter, &'a', start), 5);
        assert_eq!(limiter.allow(&'b', start), Some(0));
        assert_eq!(limiter.allow(&'c', start), None, "no room");
        assert_eq!(count(&limiter, &'a', start + SECOND), 0, "it is not forgotten for that");
        let later = start + 2 * SECOND;
        assert_eq!(limiter.allow(&'c', later), Some(1), "b is full again; c was refused once");
        assert_eq!(limiter.allow(&'d', later), None);
        let last = start + 12 * SECOND;
        assert_eq!(limiter.allow(&'d', last), Some(95 + 100 + 1), "what a and d were refused");
        assert_eq!(limiter.state.lock().unwrap().buckets.len(), 1);
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing_away() {
        let start = Instant::now() + 10 * SECOND;
        let limiter = Limiter::of_all(BUDGET);
        assert_eq!(count(&limiter, &(), start), 5);
        assert_eq!(count(&limiter, &(), start - 5 * SECOND), 0);
        assert_eq!(count(&limiter, &(), start + SECOND), 0);
        assert_eq!(count(&limiter, &(), start + 2 * SECOND), 1);
    }
}
