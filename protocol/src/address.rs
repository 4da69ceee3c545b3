//! HOST:PORT, where a node is dialled.
//!
//! Used by [`crate::federation`], whose records come from a peer, and by the
//! configuration and commands, so that nobody can announce what others refuse.
//! Invariant: what [`check`] lets pass is short, printable ASCII and names one
//! machine. Not here: whether somebody answers there.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most addresses of one node. They are tried one after the other, and all go into
/// a token that people paste.
pub const ADDRESSES_MAX: usize = 8;
/// Longest host name in bytes (RFC 1035, section 2.3.4, as text).
pub const HOST_BYTES_MAX: usize = 253;
/// A host, a colon, and the five digits of a port.
pub const ADDRESS_BYTES_MAX: usize = HOST_BYTES_MAX + 6;

/// What is wrong with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressProblem {
    /// It is longer than any host name.
    #[error("is longer than {ADDRESS_BYTES_MAX} bytes")]
    TooLong,
    /// There is no colon.
    #[error("has no port")]
    NoPort,
    /// What comes behind the last colon is no port.
    #[error("does not end in a port from 1 to 65535")]
    Port,
    /// What stands in front of it is no host.
    #[error("has no host name or IP address before its port")]
    Host,
    /// It stands for every address of a machine.
    #[error("stands for every address of a machine and cannot be dialled")]
    Unspecified,
}

/// Checks an address: an IPv4 address, an IPv6 address in brackets or a host name,
/// and a port from 1 on, without leading zeros.
pub fn check(text: &str) -> Result<(), AddressProblem> {
    if text.len() > ADDRESS_BYTES_MAX {
        return Err(AddressProblem::TooLong);
    }
    let (host, port) = text.rsplit_once(':').ok_or(AddressProblem::NoPort)?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
    if !digits || port.parse::<u16>().is_err() {
        return Err(AddressProblem::Port);
    }
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let ip = match in_brackets {
        Some(host) => host.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    match ip {
        Some(ip) if ip.to_canonical().is_unspecified() => Err(AddressProblem::Unspecified),
        Some(_) => Ok(()),
        None if is_name(host) => Ok(()),
        None => Err(AddressProblem::Host),
    }
}

fn is_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (1..=HOST_BYTES_MAX).contains(&host.len())
        && host.bytes().all(allowed)
        // Digits and points alone would be an IPv4 address, and it is none.
        && host.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let longest = format!("{}:65535", "a".repeat(HOST_BYTES_MAX));
        for good in [
            "a:1",
            "credit.example.org:65535",
            "192.0.2.1:7443",
            "[2001:db8::1]:7443",
            "[::ffff:192.0.2.1]:7443",
            "a_b-c.:1",
            &longest,
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        use AddressProblem::{Host, NoPort, Port, TooLong, Unspecified};
        for (bad, problem) in [
            ("", NoPort),
            ("a", NoPort),
            ("a:", Port),
            ("a:0", Port),
            ("a:01", Port),
            ("a:65536", Port),
            ("a:+1", Port),
            ("a:1 ", Port),
            ("a:１", Port),
            (":1", Host),
            ("a b:1", Host),
            ("中心:1", Host),
            ("http://a:1", Host),
            ("2001:db8::1:7443", Host),
            ("[fe80::1%1]:7443", Host),
            ("[192.0.2.1]:7443", Host),
            ("1.2.3:4", Host),
            ("01.2.3.4:4", Host),
            ("999.1.1.1:4", Host),
            ("0.0.0.0:1", Unspecified),
            ("[::]:1", Unspecified),
            ("[::ffff:0.0.0.0]:1", Unspecified),
            (&format!("a{longest}"), TooLong),
            (&format!("{}:1", "a".repeat(HOST_BYTES_MAX + 1)), Host),
        ] {
            assert_eq!(check(bad), Err(problem), "{bad}");
        }
    }
}
