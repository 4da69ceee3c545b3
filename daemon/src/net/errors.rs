//! quinn's errors in the words of [`NetError`]: who ended a connection, and why a
//! handshake failed.

use certs::{
    explain::{CertificateProblem, Parties, ProblemKind, explain_tls},
    observe::Failure,
};
use protocol::message::CloseCode;
use quinn::ConnectionError;
use time::OffsetDateTime;

use super::NetError;

/// Characters of a reason that the other side chose.
const REASON_CHARS_MAX: usize = 200;

/// As [`net_error`], with what our own verifier has seen, where it was that which
/// refused, and with the dates of the certificate that we showed.
pub(super) fn explained(error: ConnectionError, failure: &Failure) -> NetError {
    let now = OffsetDateTime::now_utc();
    let alert = match &error {
        ConnectionError::ConnectionClosed(close) => alert_of(close.error_code.into()),
        _ => None,
    };
    let problem = failure.problem(now);
    match problem.or_else(|| alert.and_then(|alert| failure.explain_alert(alert, now))) {
        Some(problem) => NetError::Tls(problem),
        None => net_error(error),
    }
}

/// What a lost connection, or one that was never made, means.
pub(super) fn net_error(error: ConnectionError) -> NetError {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            NetError::Closed(CloseCode::from_u64(close.error_code.into_inner()))
        }
        ConnectionError::LocallyClosed => NetError::Closed(None),
        ConnectionError::TimedOut => NetError::NoAnswer,
        ConnectionError::TransportError(error) => tls_text(error.code.into(), error.reason, true),
        ConnectionError::ConnectionClosed(close) => {
            // Whoever answered chose these bytes, and people will read them.
            let reason = String::from_utf8_lossy(&close.reason);
            let shown = reason.chars().filter(|character| !character.is_control());
            let reason: String = shown.take(REASON_CHARS_MAX).collect();
            tls_text(close.error_code.into(), reason, false)
        }
        other => NetError::Transport(other.to_string()),
    }
}

/// QUIC carries TLS alerts as codes 0x100 to 0x1ff (RFC 9001, 4.8).
fn alert_of(code: u64) -> Option<u8> {
    code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}

/// Our own alert comes with the reason in `reason`; the peer's is explained from
/// its number.
fn tls_text(code: u64, reason: String, ours: bool) -> NetError {
    let Some(alert) = alert_of(code) else {
        return NetError::Transport(if reason.is_empty() {
            format!("QUIC error {code}")
        } else {
            reason
        });
    };
    let explain = |error: &rustls::Error| {
        let parties = Parties { peer: None, own: None, now: OffsetDateTime::now_utc() };
        explain_tls(error, &parties)
    };
    if ours {
        // quinn passes rustls' error on as a text only.
        let foreign = ["UnknownIssuer", "BadSignature"].iter().any(|name| reason.contains(name));
        let known = foreign.then(|| explain(&rustls::CertificateError::UnknownIssuer.into()));
        return known.flatten().map_or_else(|| other_problem(reason), NetError::Tls);
    }
    let received = rustls::Error::AlertReceived(alert.into());
    explain(&received).map_or_else(|| other_problem(received.to_string()), NetError::Tls)
}

/// A failed handshake for which there are no better words.
pub(super) fn other_problem(text: String) -> NetError {
    NetError::Tls(CertificateProblem { kind: ProblemKind::Other, text, validity: None })
}
