//! When certificates are renewed and connections re-made.
//!
//! Used by the daemon's tasks. Invariant: decisions follow from the dates of a
//! certificate, `now` and a `random` number alone.
//!
//! Not here: doing it ([`crate::credentials::install`], [`crate::authority`]).

use time::{Duration, OffsetDateTime};

use crate::identity::CertificateFacts;

/// The first attempt after a failure comes so soon; each next one waits twice as
/// long.
const RETRY_MIN: Duration = Duration::seconds(1);
/// An hour's outage must not cost another hour, and a hundred nodes that ask
/// this seldom are no load.
const RETRY_MAX: Duration = Duration::minutes(15);
/// Short-lived certificates: still not a busy loop.
const RETRY_FLOOR: Duration = Duration::milliseconds(200);
/// A connection lives for at least so long, so that two nodes whose
/// certificates are about to end do not spend their time on handshakes.
const RECONNECT_MIN: Duration = Duration::seconds(1);

/// When a certificate is to be renewed: between 60 % and two thirds of its life,
/// by `random`, so that the nodes of a city do not come at one instant.
///
/// Draw `random` once for a certificate: the earliest of many draws is always
/// 60 %.
pub fn renew_at(facts: &CertificateFacts, random: u32) -> OffsetDateTime {
    let life = (facts.not_after - facts.not_before).max(Duration::ZERO);
    // From 3/5 to 2/3 is 1/15. Within i128 for any two dates.
    let spread = life.whole_nanoseconds() / 15 * i128::from(random) / (1 << 32);
    let spread = i64::try_from(spread).unwrap_or(i64::MAX);
    facts.not_before + life * 3 / 5 + Duration::nanoseconds(spread)
}

/// Whether it is time; with the same `random` as in [`renew_at`].
pub fn is_due(facts: &CertificateFacts, random: u32, now: OffsetDateTime) -> bool {
    now >= renew_at(facts, random)
}

/// How long to wait after the `failures`-th failed attempt in a row, when the
/// certificate has `remaining` left: doubled each time up to a quarter of an
/// hour, but never more than a quarter of what is left. After its end, attempts
/// go on.
pub fn retry_after(failures: u32, remaining: Duration) -> Duration {
    // 2^10 s are more than the maximum.
    let grown = RETRY_MIN * 2i32.pow(failures.saturating_sub(1).min(10));
    let limit = if remaining > Duration::ZERO { remaining / 4 } else { RETRY_MAX };
    grown.min(limit).clamp(RETRY_FLOOR, RETRY_MAX)
}

/// When a connection that was made at `now` is to be made anew: after half of
/// the time that the certificate ending first has left, because a connection is
/// only checked when it is made; at least a second.
pub fn reconnect_at(
    now: OffsetDateTime,
    own_not_after: OffsetDateTime,
    peer_not_after: OffsetDateTime,
) -> OffsetDateTime {
    let left = own_not_after.min(peer_not_after) - now;
    now + RECONNECT_MIN.max(left / 2)
}

/// Whether what ends at `not_after` does so within `days` from `now`, or has ended.
pub fn ends_within(not_after: OffsetDateTime, now: OffsetDateTime, days: u32) -> bool {
    not_after - now <= Duration::days(days.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        authority::tests::{TestAuthority, now},
        identity,
    };

    fn facts(not_before: OffsetDateTime, life: Duration) -> CertificateFacts {
        let some = TestAuthority::at("zhengzhou", now());
        let facts = identity::facts(some.root()).unwrap();
        CertificateFacts { not_before, not_after: not_before + life, ..facts }
    }

    #[test]
    fn renewal_is_spread_from_three_fifths_to_two_thirds() {
        for life in [Duration::days(30), Duration::seconds(12), Duration::days(36_500)] {
            let facts = facts(now(), life);
            let at = |random| renew_at(&facts, random) - now();
            assert_eq!(at(0), life * 3 / 5);
            assert!(at(u32::MAX) <= life * 2 / 3, "{}", at(u32::MAX));
            assert!(at(u32::MAX) > life * 66 / 100, "{}", at(u32::MAX));
            let middle: Duration = at(1 << 31) - life * 19 / 30;
            assert!(middle.abs() < Duration::MICROSECOND, "{middle}");
            assert!(!is_due(&facts, 7, renew_at(&facts, 7) - Duration::NANOSECOND));
            assert!(is_due(&facts, 7, renew_at(&facts, 7)));
        }
        // Dates that no CA writes.
        let backwards = facts(now(), -Duration::DAY);
        assert!(is_due(&backwards, u32::MAX, now()));
    }

    #[test]
    fn attempts_become_rarer_but_do_not_miss_the_rest_of_a_life() {
        let month = Duration::days(10);
        let waits: Vec<_> = (1..14).map(|failures| retry_after(failures, month)).collect();
        assert_eq!(waits[0], Duration::SECOND);
        assert_eq!(waits[3], Duration::seconds(8));
        assert!(waits.is_sorted());
        assert_eq!(waits[12], RETRY_MAX);
        assert_eq!(retry_after(0, month), Duration::SECOND);
        assert_eq!(retry_after(u32::MAX, month), RETRY_MAX);
        assert_eq!(retry_after(20, Duration::minutes(20)), Duration::minutes(5));
        // Twelve seconds' life: of 4.8 s several attempts are left.
        let (mut left, mut attempts) = (Duration::milliseconds(4800), 0);
        while left > Duration::ZERO {
            attempts += 1;
            left -= retry_after(attempts, left);
        }
        assert!(attempts >= 5, "{attempts}");
        // Ended: neither a busy loop nor the end of trying.
        assert_eq!(retry_after(1, Duration::ZERO), Duration::SECOND);
        assert_eq!(retry_after(30, -Duration::days(9)), RETRY_MAX);
        assert_eq!(retry_after(1, Duration::NANOSECOND), RETRY_FLOOR);
    }

    #[test]
    fn a_connection_ends_before_either_certificate() {
        let (near, far) = (now() + Duration::hours(2), now() + Duration::days(20));
        for (own, peer) in [(near, far), (far, near), (near, near)] {
            assert_eq!(reconnect_at(now(), own, peer), now() + Duration::HOUR);
        }
        for past in [now(), now() - Duration::days(1), now() + Duration::SECOND] {
            assert_eq!(reconnect_at(now(), past, far), now() + Duration::SECOND);
        }
    }

    #[test]
    fn the_end_comes_within_days() {
        let facts = facts(now(), Duration::days(30));
        assert!(!ends_within(facts.not_after, now(), 29));
        assert!(ends_within(facts.not_after, now(), 30));
        assert!(ends_within(facts.not_after, now() + Duration::days(40), 0));
        assert!(!ends_within(facts.not_after, now(), 0));
    }
}
