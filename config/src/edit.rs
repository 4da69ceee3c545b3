//! One setting of a `creditsync.toml` that a person has written, changed in place.
//!
//! Used by `join` again, which learns where the hub is now. Invariant: everything but
//! that setting stays as it was, comments included, and what comes out is a valid file
//! or nothing at all.

use crate::{
    document::{Document, value_span},
    render::list,
    resolve::NodeConfig,
};

/// The text of a member's file with these addresses of its hub.
///
/// # Errors
/// If the file is not a valid one of a member, or would not be with these addresses.
pub fn with_upstream_addresses(text: &str, addresses: &[String]) -> Result<String, String> {
    let invalid = |errors: crate::ConfigErrors| errors.to_string();
    let mut wanted = NodeConfig::parse(text).map_err(invalid)?;
    let upstream = wanted.upstream.as_mut().ok_or("there is no table [upstream]")?;
    upstream.addresses = addresses.to_vec();
    let document = Document::parse(text).map_err(invalid)?;
    let span = value_span(document.root(), &["upstream", "addresses"]);
    let span = span.ok_or("there is no upstream.addresses")?;
    // A byte order mark is no part of what was parsed.
    let begins = text.len() - document.text().len();
    let (before, after) = (text.get(..begins + span.start), text.get(begins + span.end..));
    let (Some(before), Some(after)) = (before, after) else {
        return Err("upstream.addresses was not found".to_owned());
    };
    let edited = format!("{before}{}{after}", list(addresses));
    match NodeConfig::parse(&edited).map_err(invalid)? == wanted {
        true => Ok(edited),
        false => Err("more than upstream.addresses would change".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\u{feff}# 本县\r\nfederation = \"f\"\r\nnode = \"n\" # 编号\r\n[upstream]\r\nhub = \"h\"\r\n\
                        addresses = [ \"a:1\", # 旧\r\n  \"b:1\",\r\n] # 地址\r\n[log]\r\nlevel = \"warn\"\r\n";

    #[test]
    fn only_the_addresses_change_and_comments_stay() {
        let new = ["[2001:db8::1]:7443".to_owned(), "c:1".to_owned()];
        let edited = with_upstream_addresses(FILE, &new).unwrap();
        let old = "[ \"a:1\", # 旧\r\n  \"b:1\",\r\n]";
        assert!(FILE.contains(old));
        assert_eq!(edited, FILE.replace(old, "[\"[2001:db8::1]:7443\", \"c:1\"]"));
        for (before, after) in [
            ("[upstream]\nhub = 'h'\naddresses = ['a:1']\n", "addresses = [\"c:1\"]\n"),
            ("upstream = { hub = 'h', addresses = ['a:1'] }\n", "addresses = [\"c:1\"] }\n"),
            ("upstream.hub = 'h'\nupstream.addresses=['a:1']", "upstream.addresses=[\"c:1\"]"),
        ] {
            let text = format!("federation = 'f'\nnode = 'n'\n{before}");
            let edited = with_upstream_addresses(&text, &new[1..]).unwrap();
            assert!(edited.ends_with(after), "{edited}");
        }
    }

    #[test]
    fn what_cannot_be_a_members_file_is_not_made() {
        let good = ["c:1".to_owned()];
        for (text, addresses) in [
            ("federation = 'f'\nnode = 'n'\n[listen]\naddress = '127.0.0.1:1'\n", &good[..]),
            ("federation = 'f'\nnode = 'n'\n[upstream]\nhub = 'h'\n", &good),
            ("this is no TOML", &good),
            (FILE, &[]),
            (FILE, &["c\" ]:1".to_owned()]),
        ] {
            assert!(with_upstream_addresses(text, addresses).is_err(), "{text} {addresses:?}");
        }
    }
}
