//! TLS errors in an administrator's words, with the next step.
//!
//! Used by [`crate::observe`] and by the daemon's network. Invariant: a text
//! about dates names the certificate's dates, this machine's clock and how far
//! they are apart, because a wrong clock looks like a bad certificate.
//!
//! Not here: deciding anything; the verifiers have decided.

use std::fmt;

use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::UnixTime;
use time::{Duration, OffsetDateTime};

use crate::{error::date, identity::CertificateFacts};

/// A certificate that ended so recently may be refused by a clock that is a
/// little fast, or by one that was set to local time: UTC+8, and some.
const JUST_EXPIRED: Duration = Duration::hours(12);
/// Nodes renew within weeks, so one that ended so long ago is rarer than a clock
/// that runs in another year.
const LONG_EXPIRED: Duration = Duration::days(366);

/// What is wrong, without dates: the same for the same reason, however often it
/// is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// The peer's certificate, or a CA's above it, has ended.
    Expired,
    /// The peer's certificate, or a CA's above it, has not begun.
    NotYetValid,
    /// It does not lead to a root that is trusted here.
    UnknownIssuer,
    /// It is another node's.
    WrongName,
    /// It is not for both sides of a TLS connection.
    WrongPurpose,
    /// The peer finds ours ended or not begun.
    OursOutOfDate,
    /// The peer does not trust a root that ours leads to.
    OursUnknownIssuer,
    /// The peer wants one and we showed none.
    OursMissing,
    /// The peer refuses ours and does not say why.
    OursRefused,
    /// The two sides have no protocol in common.
    OtherProtocol,
    /// Anything else; the text is the TLS library's.
    Other,
}

impl ProblemKind {
    /// A stable name for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ProblemKind::Expired => "expired",
            ProblemKind::NotYetValid => "not-yet-valid",
            ProblemKind::UnknownIssuer => "unknown-issuer",
            ProblemKind::WrongName => "wrong-name",
            ProblemKind::WrongPurpose => "wrong-purpose",
            ProblemKind::OursOutOfDate => "ours-out-of-date",
            ProblemKind::OursUnknownIssuer => "ours-unknown-issuer",
            ProblemKind::OursMissing => "ours-missing",
            ProblemKind::OursRefused => "ours-refused",
            ProblemKind::OtherProtocol => "other-protocol",
            ProblemKind::Other => "other",
        }
    }
}

/// Why a handshake failed. Log it once for a `kind`: the text holds the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateProblem {
    /// What is wrong.
    pub kind: ProblemKind,
    /// The same in words, with the next step.
    pub text: String,
    /// The first and the last moment of the certificate in question, where it is
    /// known.
    pub validity: Option<(OffsetDateTime, OffsetDateTime)>,
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is known beside an error.
#[derive(Debug, Clone, Copy)]
pub struct Parties<'a> {
    /// The certificate that the peer showed.
    pub peer: Option<&'a CertificateFacts>,
    /// The certificate that we showed.
    pub own: Option<&'a CertificateFacts>,
    /// This machine's clock.
    pub now: OffsetDateTime,
}

/// Explains a TLS error; none where rustls' own text is as good.
pub fn explain_tls(error: &rustls::Error, parties: &Parties<'_>) -> Option<CertificateProblem> {
    match error {
        rustls::Error::InvalidCertificate(problem) => explain_certificate(problem, parties),
        rustls::Error::AlertReceived(alert) => explain_alert(*alert, parties),
        rustls::Error::NoApplicationProtocol => Some(other_protocol()),
        _ => None,
    }
}

fn explain_alert(alert: AlertDescription, parties: &Parties<'_>) -> Option<CertificateProblem> {
    let own = parties.own.map(|own| (own.not_before, own.not_after));
    let (kind, text) = match alert {
        AlertDescription::CertificateExpired => {
            (ProblemKind::OursOutOfDate, ours_out_of_date(own, parties.now))
        }
        AlertDescription::UnknownCA => (
            ProblemKind::OursUnknownIssuer,
            "the other side does not know the root CA of our certificate; we belong to different \
             federations, or one side changed its root"
                .to_owned(),
        ),
        AlertDescription::CertificateRequired => (
            ProblemKind::OursMissing,
            "the other side asks for a certificate and we showed none; join first: creditsync \
             join -"
                .to_owned(),
        ),
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => (
            ProblemKind::OursRefused,
            "the other side refuses our certificate; its log says why".to_owned(),
        ),
        AlertDescription::NoApplicationProtocol => return Some(other_protocol()),
        _ => return None,
    };
    Some(CertificateProblem { kind, text, validity: own })
}

fn other_protocol() -> CertificateProblem {
    CertificateProblem {
        kind: ProblemKind::OtherProtocol,
        text: "the other side does not speak our protocol; the two versions of creditsync are \
               too far apart, or it is another program"
            .into(),
        validity: None,
    }
}

fn ours_out_of_date(own: Option<(OffsetDateTime, OffsetDateTime)>, now: OffsetDateTime) -> String {
    let says = "the other side says that our certificate is expired or not yet valid";
    let Some((not_before, not_after)) = own else {
        return format!(
            "{says}; this machine's clock says {}; compare the clocks of both machines; if they \
             are right, this node needs a new certificate from the hub",
            date(now)
        );
    };
    let dates = format!(
        "it is valid from {} to {}, and this machine's clock says {}",
        date(not_before),
        date(not_after),
        date(now)
    );
    let judgement = if now > not_after {
        format!(
            "it expired {} ago, so this node needs a new certificate from the hub, unless this \
             machine's clock is wrong",
            apart(now - not_after)
        )
    } else if now < not_before {
        format!(
            "it begins in {}, so this machine's clock is behind, or that of the machine that \
             issued it was ahead; if this one is right, this node needs another certificate from \
             the hub (creditsync join)",
            apart(not_before - now)
        )
    } else {
        format!(
            "by our clock it is valid, for {} more, so a wrong clock on one of the two machines \
             is likely, or the certificate of a CA above ours has ended; compare the clocks",
            apart(not_after - now)
        )
    };
    format!("{says}; {dates}; {judgement}")
}

fn explain_certificate(
    problem: &CertificateError,
    parties: &Parties<'_>,
) -> Option<CertificateProblem> {
    let leaf = parties.peer.map(|peer| (peer.not_before, peer.not_after));
    let (kind, validity, text) = match problem {
        CertificateError::ExpiredContext { time, not_after } => {
            expired(Some(moment(*not_after)), moment(*time), parties)
        }
        CertificateError::Expired => expired(None, parties.now, parties),
        CertificateError::NotValidYetContext { time, not_before } => {
            not_yet_valid(Some(moment(*not_before)), moment(*time), parties)
        }
        CertificateError::NotValidYet => not_yet_valid(None, parties.now, parties),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            ProblemKind::UnknownIssuer,
            leaf,
            "the peer's certificate was not issued under our root CA; it belongs to another \
             federation, or one side changed its root"
                .to_owned(),
        ),
        CertificateError::NotValidForNameContext { expected, presented } => (
            ProblemKind::WrongName,
            leaf,
            format!(
                "the peer is not the expected node: its certificate is for {}, and {} was \
                 dialled; check the address",
                if presented.is_empty() { "no DNS name".to_owned() } else { presented.join(", ") },
                expected.to_str()
            ),
        ),
        CertificateError::NotValidForName => (
            ProblemKind::WrongName,
            leaf,
            "the peer's certificate is for another node than was dialled; check the address".into(),
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            ProblemKind::WrongPurpose,
            leaf,
            "the peer's certificate is not for this use; it needs both extended key usages, \
             serverAuth and clientAuth"
                .into(),
        ),
        _ => return None,
    };
    Some(CertificateProblem { kind, text, validity })
}

type Explained = (ProblemKind, Option<(OffsetDateTime, OffsetDateTime)>, String);

/// `end` is what the verifier says: the leaf's end, or that of a CA above it.
fn expired(end: Option<OffsetDateTime>, clock: OffsetDateTime, parties: &Parties<'_>) -> Explained {
    let whose = Whose::of(parties, |peer| end.is_none_or(|end| same_second(end, peer.not_after)));
    let text = match end.or(whose.validity().map(|(_, end)| end)) {
        None => format!(
            "the peer's certificate expired, or this machine's clock, which says {}, is wrong; \
             compare the clocks of both machines",
            date(clock)
        ),
        Some(end) => {
            let ago = clock - end;
            let advice = if ago <= JUST_EXPIRED {
                "that is so recent that a wrong clock is likely, here or where it was issued; \
                 compare the clocks; if they are right, the peer must renew its certificate"
            } else if ago >= LONG_EXPIRED {
                "that is so long ago that a wrong clock on this machine is likely; set it; if it \
                 is right, the peer must renew its certificate"
            } else {
                "if the clock is right, the peer must renew its certificate, else set the clock"
            };
            format!(
                "{} expired on {}, and this machine's clock says {}, which is {} later{}; {advice}",
                whose.name,
                date(end),
                date(clock),
                apart(ago),
                whose.validity().map_or_else(String::new, |(begin, _)| format!(
                    " (it is valid from {} on)",
                    date(begin)
                )),
            )
        }
    };
    (ProblemKind::Expired, whose.validity(), text)
}

fn not_yet_valid(
    begin: Option<OffsetDateTime>,
    clock: OffsetDateTime,
    parties: &Parties<'_>,
) -> Explained {
    let whose =
        Whose::of(parties, |peer| begin.is_none_or(|begin| same_second(begin, peer.not_before)));
    let text = match begin.or(whose.validity().map(|(begin, _)| begin)) {
        None => format!(
            "the peer's certificate is not valid yet, and this machine's clock says {}: a clock \
             was ahead when it was issued, or this machine's is behind; compare this one with the \
             right time (date -u); if it is right, the peer must renew its certificate",
            date(clock)
        ),
        Some(begin) => format!(
            "{0} is not valid yet: it is valid from {1}{2}, and this machine's clock says {3}, \
             which is {4} too early. The clock of the machine that issued it was ahead, or this \
             machine's is behind: compare this one with the right time (date -u). If it is right, \
             the peer must renew its certificate, which a hub does by itself once its clock is \
             right (there: creditsync cert renew) / 对方证书自 {1} 起才生效，而本机时间为 {3}：签发时对方时钟快了，\
             或本机时钟慢了。请先核对本机时间；时间无误，则须由对方更新证书，市级中心时钟校准后会自动更新",
            whose.name,
            date(begin),
            whose
                .validity()
                .map_or_else(|| " on".to_owned(), |(_, end)| format!(" to {}", date(end))),
            date(clock),
            apart(begin - clock),
        ),
    };
    (ProblemKind::NotYetValid, whose.validity(), text)
}

/// Which certificate of a chain an error is about.
struct Whose<'a> {
    name: String,
    facts: Option<&'a CertificateFacts>,
}

impl<'a> Whose<'a> {
    fn of(parties: &Parties<'a>, is_about: impl Fn(&CertificateFacts) -> bool) -> Self {
        let Some(peer) = parties.peer else {
            return Self { name: "the peer's certificate".into(), facts: None };
        };
        let name = match &peer.identity {
            Some(identity) => identity.to_string(),
            None => format!("'{}'", peer.subject),
        };
        if is_about(peer) {
            Self { name: format!("the certificate of {name}"), facts: Some(peer) }
        } else {
            Self { name: format!("a CA's certificate above that of {name}"), facts: None }
        }
    }

    fn validity(&self) -> Option<(OffsetDateTime, OffsetDateTime)> {
        self.facts.map(|facts| (facts.not_before, facts.not_after))
    }
}

fn same_second(a: OffsetDateTime, b: OffsetDateTime) -> bool {
    a.unix_timestamp() == b.unix_timestamp()
}

/// The two largest units of a duration, as "1 day 0 hours".
fn apart(duration: Duration) -> String {
    let seconds = duration.whole_seconds().unsigned_abs();
    let units = |count: u64, unit: &str| {
        if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
    };
    let two = |(large, small): (&str, &str), count: u64, in_large: u64, in_small: u64| {
        let rest = count % in_large / in_small;
        format!("{} {}", units(count / in_large, large), units(rest, small))
    };
    match seconds {
        0..60 => units(seconds, "second"),
        60..3600 => two(("minute", "second"), seconds, 60, 1),
        3600..86_400 => two(("hour", "minute"), seconds, 3600, 60),
        _ => two(("day", "hour"), seconds, 86_400, 3600),
    }
}

/// rustls' clock as ours; the last moment that there is for one beyond it.
pub(crate) fn moment(time: UnixTime) -> OffsetDateTime {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or_else(|| time::PrimitiveDateTime::MAX.assume_utc())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        authority::{
            NodeKey,
            tests::{TestAuthority, now},
        },
        identity::{self, tests::identity},
    };

    /// 2026-09-21 14:13:20 UTC and thirty days more, dated back by five minutes.
    fn leaf() -> CertificateFacts {
        let authority = TestAuthority::at("zhengzhou", now());
        let county = identity("zhengzhou", "410122");
        let csr = NodeKey::generate().unwrap().csr(&county).unwrap();
        let chain = authority.issue(&county, &csr, now(), Duration::days(30)).unwrap();
        identity::facts(&chain[0]).unwrap()
    }

    fn unix(moment: OffsetDateTime) -> UnixTime {
        let seconds = u64::try_from(moment.unix_timestamp()).unwrap();
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
    }

    fn expired_at(clock: OffsetDateTime, not_after: OffsetDateTime) -> rustls::Error {
        CertificateError::ExpiredContext { time: unix(clock), not_after: unix(not_after) }.into()
    }

    #[test]
    fn an_expired_certificate_is_told_from_a_wrong_clock() {
        let leaf = leaf();
        let parties = Parties { peer: Some(&leaf), own: None, now: now() };
        let end = leaf.not_after;
        for (late, apart, clock_is_likely) in [
            (Duration::hours(8), "8 hours 0 minutes", true),
            (Duration::days(1), "1 day 0 hours", false),
            (Duration::hours(49), "2 days 1 hour", false),
            (Duration::days(800), "800 days 0 hours", true),
        ] {
            let problem = explain_tls(&expired_at(end + late, end), &parties).unwrap();
            assert_eq!(problem.kind, ProblemKind::Expired);
            assert_eq!(problem.validity, Some((leaf.not_before, end)));
            let text = &problem.text;
            for part in [
                "spiffe://zhengzhou/node/410122 expired on 2026-10-21 14:13:20 UTC",
                "from 2026-09-21 14:08:20 UTC",
                &date(end + late),
                apart,
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert_eq!(text.contains("a wrong clock"), clock_is_likely, "{text}");
        }
    }

    #[test]
    fn the_end_of_a_ca_is_not_taken_for_the_leafs() {
        let leaf = leaf();
        let parties = Parties { peer: Some(&leaf), own: None, now: now() };
        let end = now() - Duration::days(3);
        let problem = explain_tls(&expired_at(now(), end), &parties).unwrap();
        assert!(problem.text.starts_with("a CA's certificate above that of spiffe"), "{problem}");
        assert_eq!(problem.validity, None);
    }

    #[test]
    fn a_certificate_of_the_future_points_at_the_clocks() {
        let leaf = leaf();
        let parties = Parties { peer: Some(&leaf), own: None, now: now() };
        let clock = leaf.not_before - Duration::days(2) - Duration::hours(5);
        let error = CertificateError::NotValidYetContext {
            time: unix(clock),
            not_before: unix(leaf.not_before),
        };
        let problem = explain_tls(&error.into(), &parties).unwrap();
        assert_eq!(problem.kind, ProblemKind::NotYetValid);
        for part in [
            "from 2026-09-21 14:08:20 UTC to 2026-10-21 14:13:20 UTC",
            "clock says 2026-09-19 09:08:20 UTC",
            "2 days 5 hours",
            "machine that issued it was ahead",
            "creditsync cert renew",
            "本机时间为 2026-09-19 09:08:20 UTC",
        ] {
            assert!(problem.text.contains(part), "{part}: {problem}");
        }
    }

    #[test]
    fn without_the_certificate_the_clock_is_still_named() {
        let parties = Parties { peer: None, own: None, now: now() };
        for error in [
            CertificateError::Expired.into(),
            CertificateError::NotValidYet.into(),
            expired_at(now(), now() - Duration::HOUR),
            rustls::Error::AlertReceived(AlertDescription::CertificateExpired),
        ] {
            let text = explain_tls(&error, &parties).unwrap().text;
            assert!(text.contains(&date(now())), "{error:?}: {text}");
        }
        assert_eq!(explain_tls(&rustls::Error::DecryptError, &parties), None);
    }

    #[test]
    fn a_refusal_of_ours_names_our_dates() {
        let leaf = leaf();
        let error = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
        for (clock, part) in [
            (leaf.not_after + Duration::days(1), "it expired 1 day 0 hours ago"),
            (leaf.not_before - Duration::minutes(61), "it begins in 1 hour 1 minute"),
            (now(), "by our clock it is valid, for 30 days 0 hours more"),
        ] {
            let parties = Parties { peer: None, own: Some(&leaf), now: clock };
            let problem = explain_tls(&error, &parties).unwrap();
            assert_eq!(problem.kind, ProblemKind::OursOutOfDate);
            for part in [part, &date(leaf.not_before), &date(leaf.not_after), &date(clock)] {
                assert!(problem.text.contains(part), "{part}: {problem}");
            }
        }
    }

    #[test]
    fn durations_read_as_people_say_them() {
        for (seconds, text) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute 0 seconds"),
            (3661, "1 hour 1 minute"),
            (86_400, "1 day 0 hours"),
            (-180_000, "2 days 2 hours"),
        ] {
            assert_eq!(apart(Duration::seconds(seconds)), text);
        }
        let kinds = [ProblemKind::Expired, ProblemKind::NotYetValid].map(ProblemKind::as_str);
        assert_eq!(kinds, ["expired", "not-yet-valid"]);
    }
}
