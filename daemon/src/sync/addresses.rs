//! Which addresses of its hub a member dials, and which one is next.
//!
//! Used by [`super::dial`] and by the status. Invariant: the configured addresses are
//! always among them, whatever the hub has said, so no record of `_federation` can
//! shut a member out; and there are never more than [`DIALLED_MAX`].

use protocol::address::ADDRESSES_MAX;

/// Most addresses that are dialled: what the hub has said, and what was configured.
const DIALLED_MAX: usize = 2 * ADDRESSES_MAX;

/// What `_federation` names, in its order, then what was configured; none twice.
pub fn in_order(named: &[String], configured: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let named = named.iter().take(ADDRESSES_MAX);
    for address in named.chain(configured.iter().take(ADDRESSES_MAX)) {
        if !all.contains(address) {
            all.push(address.clone());
        }
    }
    all.truncate(DIALLED_MAX);
    all
}

/// One round through the list after the other.
#[derive(Debug, Default)]
pub struct Round {
    all: Vec<String>,
    next: usize,
}

impl Round {
    /// Where to dial from now on. Another list begins a new round.
    pub fn follow(&mut self, all: Vec<String>) {
        if self.all != all {
            *self = Self { all, next: 0 };
        }
    }

    /// What is left of this round; not empty unless there is no address at all.
    pub fn left(&self) -> &[String] {
        self.all.get(self.next..).unwrap_or_default()
    }

    /// Nothing came of what was left, or of the one at this place of it and those
    /// before: answers whether others are left. If not, the next round begins.
    pub fn failed(&mut self, place: Option<usize>) -> bool {
        self.next = place.map_or(self.all.len(), |place| self.next + place + 1);
        let others = self.next < self.all.len();
        if !others {
            self.next = 0;
        }
        others
    }

    /// One was of use: the next round begins with the first.
    pub fn succeeded(&mut self) {
        self.next = 0;
    }

    /// All of them, for people.
    pub fn all(&self) -> &[String] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_the_hub_says_goes_first_and_what_was_configured_is_never_lost() {
        for (named, configured, expected) in [
            (&[][..], &["a:1", "b:1"][..], &["a:1", "b:1"][..]),
            (&["n:1"], &["a:1"], &["n:1", "a:1"]),
            (&["n:1", "a:1"], &["a:1", "b:1"], &["n:1", "a:1", "b:1"]),
            (&["b:1", "a:1"], &["a:1", "b:1"], &["b:1", "a:1"]),
        ] {
            assert_eq!(in_order(&list(named), &list(configured)), list(expected));
        }
        let many = |host: &str| (0..100).map(|n| format!("{host}{n}:1")).collect::<Vec<_>>();
        let all = in_order(&many("n"), &many("c"));
        assert_eq!(all.len(), DIALLED_MAX);
        assert_eq!((all[0].as_str(), all[ADDRESSES_MAX].as_str()), ("n0:1", "c0:1"));
    }

    #[test]
    fn a_round_goes_through_all_and_begins_with_the_first_again() {
        let mut round = Round::default();
        assert!(round.left().is_empty() && !round.failed(None));
        round.follow(list(&["a:1", "b:1", "c:1"]));
        assert_eq!(round.left(), list(&["a:1", "b:1", "c:1"]));
        // The second was reached and of no use: the third is left.
        assert!(round.failed(Some(1)));
        assert_eq!(round.left(), list(&["c:1"]));
        // The same list goes on with its round.
        round.follow(list(&["a:1", "b:1", "c:1"]));
        assert_eq!(round.left(), list(&["c:1"]));
        assert!(!round.failed(Some(0)), "the round is over");
        assert_eq!(round.left().len(), 3);
        assert!(round.failed(Some(0)));
        assert!(!round.failed(None), "nobody answered");
        assert!(round.failed(Some(0)));
        round.succeeded();
        assert_eq!(round.left().len(), 3);
        assert!(round.failed(Some(0)));
        round.follow(list(&["d:1"]));
        assert_eq!(round.left(), list(&["d:1"]));
    }
}
