//! How often the log speaks of what others do.
//!
//! Whoever can reach the port can be refused as often as it likes, and a member
//! can break the protocol on as many streams as it can open. That is worth a
//! line, not a full disk. Used by [`super`]'s users for every line that a peer can
//! bring about; what is counted (`misbehaved`) is counted all the same.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// Lines in a minute: more than a person reads, less than fills a disk (2 GB in
/// ten years).
const LINES_MAX: u32 = 30;
const WINDOW: Duration = Duration::from_secs(60);

/// A budget of lines.
#[derive(Default)]
pub struct Quiet(Mutex<State>);

#[derive(Default)]
struct State {
    since: Option<Instant>,
    said: u32,
    /// What was not said since the last line.
    unsaid: u64,
}

impl Quiet {
    /// Whether a line may be written now: if so, how many were left out before
    /// it, which it should say.
    pub fn may_say(&self) -> Option<u64> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(|error| error.into_inner());
        if state.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            (state.since, state.said) = (Some(now), 0);
        }
        if state.said >= LINES_MAX {
            state.unsaid += 1;
            return None;
        }
        state.said += 1;
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_so_many_lines_and_the_next_one_says_what_was_left_out() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        let said = (0..1000).filter(|_| quiet.at(start).is_some()).count();
        assert_eq!(said, LINES_MAX as usize);
        let later = start + WINDOW;
        assert_eq!(quiet.at(later), Some(1000 - u64::from(LINES_MAX)));
        assert_eq!(quiet.at(later), Some(0));
    }
}
