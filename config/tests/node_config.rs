//! `creditsync.toml`: what is read, what is refused and with which words.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use config::{
    CertificateConfig, ConfigErrors, ImportConfig, InboxConfig, LogConfig, LogFormat, NodeConfig,
    PkiConfig, StoreConfig, SyncConfig, TlsConfig, Upstream, check_address, check_path,
    resolve::PATH_BYTES_MAX,
};
use protocol::id::{DatasetId, FederationId, NodeId};

/// A file with nothing but what has to be there, in four lines.
const MINIMAL: &str = "federation = 'f'
node = '410100'
[listen]
address = '127.0.0.1:0'";

fn plain(node: &str) -> NodeConfig {
    NodeConfig {
        federation: FederationId::new("zhengzhou").unwrap(),
        node: NodeId::new(node).unwrap(),
        name: "中牟县 \"试\\点\"".to_owned(),
        listen: None,
        advertise: vec![],
        upstream: None,
        store: StoreConfig::default(),
        sync: SyncConfig::default(),
        import: ImportConfig::default(),
        inbox: InboxConfig::default(),
        certificates: CertificateConfig::default(),
        tls: TlsConfig::default(),
        log: LogConfig::default(),
    }
}

fn hub() -> NodeConfig {
    NodeConfig {
        listen: Some("[::]:7443".parse().unwrap()),
        advertise: vec!["credit.example.org:7443".to_owned(), "[2001:db8::1]:7443".to_owned()],
        ..plain("410100")
    }
}

fn member() -> NodeConfig {
    NodeConfig {
        upstream: Some(Upstream {
            hub: NodeId::new("410100").unwrap(),
            addresses: vec!["192.0.2.1:7443".to_owned()],
        }),
        ..plain("410122")
    }
}

fn pki() -> PkiConfig {
    PkiConfig { certificate: "pki/node.pem".into(), key: "pki/node.key".into() }
}

fn lines(text: &str) -> Vec<String> {
    let errors: ConfigErrors = NodeConfig::parse(text).unwrap_err();
    errors.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn a_new_file_reads_back_as_the_settings_it_was_made_from() {
    let node = NodeId::new("410101").unwrap();
    let middle = NodeConfig { node, upstream: member().upstream, ..hub() };
    let tuned = NodeConfig {
        store: StoreConfig { cache_mb: 8, disk_reserve_mb: Some(0), origin_quota_mb: Some(1) },
        sync: SyncConfig { heartbeat_s: 25, retry_max_s: 1, stall_s: 600 },
        import: ImportConfig {
            memory_mb: 4096,
            hold_deletes_percent: 0,
            hold_deletes_min: 0,
            hold_changes_percent: 100,
            hold_changes_min: 1,
            hold_doubtful_percent: 99,
            hold_doubtful_min: 1_000_000_000,
            undo_days: 3650,
            undo_mb: 1,
        },
        inbox: InboxConfig {
            enabled: false,
            stable_s: 3600,
            incomplete_wait_s: 86_400,
            group: Some("sftp".into()),
            encoding: [(DatasetId::new("enterprise").unwrap(), "gbk".into())].into(),
        },
        certificates: CertificateConfig {
            lifetime_s: 5,
            issuing_lifetime_s: 157_680_000,
            root_key_dir: Some("../根密钥 \"U\\盘\"".into()),
        },
        tls: TlsConfig {
            post_quantum: false,
            pki: Some(pki()),
            ca: Some("/etc/pki/ca.pem".into()),
        },
        log: LogConfig { level: "warn,creditsync=debug".to_owned(), format: LogFormat::Json },
        ..middle.clone()
    };
    let trusting = NodeConfig {
        tls: TlsConfig { ca: Some("pki/ca.pem".into()), ..TlsConfig::default() },
        ..member()
    };
    let certified =
        NodeConfig { tls: TlsConfig { pki: Some(pki()), ..TlsConfig::default() }, ..member() };
    for (config, role) in [
        (hub(), "hub"),
        (member(), "member"),
        (middle, "both"),
        (tuned, "both"),
        (trusting, "member"),
        (certified, "member"),
    ] {
        let text = config.render_new();
        assert_eq!(NodeConfig::parse(&text).as_ref(), Ok(&config), "{text}");
        assert_eq!(config.role(), role);
    }
}

#[test]
fn only_what_makes_the_node_itself_is_live_in_a_new_file() {
    let live: Vec<String> = member()
        .render_new()
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with('['))
        .map(|line| line.split(" = ").next().unwrap().to_owned())
        .collect();
    assert_eq!(live, ["federation", "node", "name", "hub", "addresses"]);
}

/// A file whose every `# key = value` counts.
fn uncommented(text: &str) -> String {
    text.lines()
        // Keys that begin with "ad" are those of the hub's table, which belongs to
        // another kind of node.
        .map(|line| match line.strip_prefix("# ") {
            Some(table) if table.starts_with("[inbox.") => format!("{table}\n"),
            Some(setting)
                if setting
                    .split(" = ")
                    .next()
                    .is_some_and(|key| !key.contains(' ') && setting.contains(" = "))
                    && !setting.starts_with("ad") =>
            {
                format!("{setting}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect()
}

#[test]
fn every_commented_default_of_a_new_file_is_a_valid_setting() {
    let text = member().render_new();
    let uncommented = uncommented(&text);
    let expected = NodeConfig {
        store: StoreConfig {
            disk_reserve_mb: Some(1024),
            origin_quota_mb: Some(20_480),
            ..StoreConfig::default()
        },
        certificates: CertificateConfig {
            root_key_dir: Some("/media/root-key".into()),
            ..CertificateConfig::default()
        },
        inbox: InboxConfig {
            group: Some("sftp".into()),
            encoding: [(DatasetId::new("enterprise").unwrap(), "gbk".into())].into(),
            ..InboxConfig::default()
        },
        tls: TlsConfig { post_quantum: true, pki: Some(pki()), ca: Some("pki/ca.pem".into()) },
        ..member()
    };
    assert_ne!(uncommented, text);
    assert_eq!(NodeConfig::parse(&uncommented), Ok(expected), "{uncommented}");
}

#[test]
fn a_life_in_seconds_is_also_told_in_days() {
    // A comment is wrapped anywhere, so it is compared on one line.
    let text = hub().render_new().replace("\n# ", " ");
    let CertificateConfig { lifetime_s, issuing_lifetime_s, .. } = CertificateConfig::default();
    for (key, seconds, days) in
        [("lifetime_s", lifetime_s, 30), ("issuing_lifetime_s", issuing_lifetime_s, 365)]
    {
        assert_eq!(seconds, days * 24 * 3600, "{key}");
        for part in [
            format!("；{days} 天为 {seconds}。单位：秒；"),
            format!("；默认：{seconds}。"),
            format!("; {days} days are {seconds}. In seconds, "),
            format!("; default: {seconds}. {key} = {seconds}"),
        ] {
            assert_eq!(text.matches(&part).count(), 1, "{part} in {text}");
        }
    }
}

#[test]
fn the_lives_of_certificates_have_limits() {
    let with = |setting: &str| {
        NodeConfig::parse(&format!("{MINIMAL}\n[certificates]\n{setting}\n"))
            .map(|config| config.certificates)
            .map_err(|errors| errors.to_string())
    };
    for (key, default, min, max) in [
        ("lifetime_s", 2_592_000, 5, 31_536_000),
        ("issuing_lifetime_s", 31_536_000, 20, 157_680_000_i64),
    ] {
        for good in [min, max] {
            assert!(with(&format!("{key} = {good}")).is_ok(), "{key} = {good}");
        }
        for bad in [min - 1, max + 1, -1] {
            let expected = format!(
                "line 6, column 1: certificates.{key}: {bad} is outside {min} to {max} seconds; \
                 write a number of that range, or delete the line for the default of {default}"
            );
            assert_eq!(with(&format!("{key} = {bad}")), Err(expected));
        }
    }
    // No certificate outlives its issuer, so the two do not depend on each other.
    assert_eq!(
        with("issuing_lifetime_s = 20"),
        Ok(CertificateConfig { issuing_lifetime_s: 20, ..CertificateConfig::default() })
    );
}

#[test]
fn a_path_is_kept_as_written_or_refused_with_its_place() {
    const PATHS: [&str; 4] = ["certificates.root_key_dir", "tls.certificate", "tls.key", "tls.ca"];
    for place in PATHS {
        for good in ["/media/usb", "pki/../ca.pem", "根 密钥", &"a".repeat(PATH_BYTES_MAX)] {
            assert_eq!(path_of(place, &format!("'{good}'")), Ok(Some(PathBuf::from(good))));
        }
        for (bad, problem) in [
            ("''", "is empty; write a path, or leave it out"),
            ("' '", "is empty; write a path, or leave it out"),
            (
                r#""C:\new""#,
                "has a control character; in single quotes a backslash is only a backslash",
            ),
            (
                &format!("'{}'", "密".repeat(PATH_BYTES_MAX / 3 + 1)),
                "has 4098 bytes of UTF-8; write at most 4096",
            ),
            ("5", "wrong type: integer '5', expected a string"),
        ] {
            let lines = path_of(place, bad).unwrap_err();
            assert_eq!(lines.len(), 1, "{lines:?}");
            let (position, said) = lines[0].split_once(": ").unwrap();
            assert!(position.starts_with("line 3, column "), "{position}");
            assert_eq!(said, format!("{place}: {problem}"));
        }
    }
}

/// What a file reads with this path set.
fn path_of(place: &str, value: &str) -> Result<Option<PathBuf>, Vec<String>> {
    let text = format!("{MINIMAL}\n");
    let other = match place {
        "tls.certificate" => "tls.key = 'other'\n",
        "tls.key" => "tls.certificate = 'other'\n",
        _ => "",
    };
    let text = text.replace("[listen]\n", &format!("{place} = {value}\n{other}[listen]\n"));
    let config = NodeConfig::parse(&text)
        .map_err(|errors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    Ok(match place {
        "certificates.root_key_dir" => config.certificates.root_key_dir,
        "tls.certificate" => config.tls.pki.map(|pki| pki.certificate),
        "tls.key" => config.tls.pki.map(|pki| pki.key),
        "tls.ca" => config.tls.ca,
        _ => panic!("{place} is no path"),
    })
}

#[test]
fn who_else_delivers_and_in_which_encoding_is_checked_as_text() {
    let with = |settings: &str| format!("{MINIMAL}\n[inbox]\n{settings}\n");
    let inbox = |settings: &str| NodeConfig::parse(&with(settings)).unwrap().inbox;
    assert_eq!(inbox("group = '1001'").group.as_deref(), Some("1001"));
    let encoding = inbox("[inbox.encoding]\nenterprise = 'gbk'").encoding;
    assert_eq!(encoding, [(DatasetId::new("enterprise").unwrap(), "gbk".to_owned())].into());
    for (wrong, place) in [
        ("group = ''", "inbox.group"),
        ("group = 'a:b'", "inbox.group"),
        ("[inbox.encoding]\nenterprise = 'g b k'", "inbox.encoding.enterprise"),
        ("[inbox.encoding]\n'NO SUCH' = 'gbk'", "inbox.encoding.NO SUCH"),
        ("incomplete_wait_s = 0", "inbox.incomplete_wait_s"),
    ] {
        let lines = lines(&with(wrong));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(&format!("{place}: ")), "{lines:?}");
    }
}

#[test]
fn certificate_and_key_stand_only_together() {
    let with = |settings: &str| lines(&format!("{MINIMAL}\n[tls]\n{settings}\n"));
    assert_eq!(
        with("certificate = 'node.pem'\nca = 'ca.pem'"),
        ["line 6, column 1: tls.certificate: stands without tls.key; write there the PEM file of \
          its private key, or delete this line"]
    );
    assert_eq!(
        with("key = 'node.key'"),
        ["line 6, column 1: tls.key: stands without tls.certificate; write there the PEM file of \
          the certificate that it belongs to, or delete this line"]
    );
    // Whose partner is there but wrong does not stand alone.
    for wrong in ["key = ''\ncertificate = 'node.pem'", "certificate = 5\nkey = 'node.key'"] {
        let lines = with(wrong);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("line 6, column "), "{lines:?}");
    }
    assert_eq!(with("certificate = ''\nkey = ' '\nca = ''").len(), 3);
}

#[cfg(unix)]
#[test]
fn a_path_that_no_file_can_hold_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let path = Path::new(std::ffi::OsStr::from_bytes(b"/media/\xff"));
    assert!(check_path(path).unwrap_err().starts_with("is not UTF-8"));
    assert_eq!(check_path(Path::new("/media/usb")), Ok(()));
}

#[test]
fn the_examples_are_valid() {
    let hub = NodeConfig::parse(include_str!("../examples/hub.toml")).unwrap();
    assert_eq!((hub.role(), hub.store.cache_mb, hub.log.format), ("hub", 256, LogFormat::Json));
    assert_eq!(hub.tls, TlsConfig::default());
    let member = NodeConfig::parse(include_str!("../examples/member.toml")).unwrap();
    assert_eq!((member.role(), member.name.as_str()), ("member", "中牟县"));
    assert_eq!(member.store, StoreConfig::default());
}

#[test]
fn the_examples_stay_valid_without_their_comment_signs() {
    let hub_text = uncommented(include_str!("../examples/hub.toml"));
    let tls = NodeConfig::parse(&hub_text).map(|config| config.tls);
    let expected =
        TlsConfig { post_quantum: true, pki: Some(pki()), ca: Some("pki/ca.pem".into()) };
    assert_eq!(tls, Ok(expected));
    let member_text = uncommented(include_str!("../examples/member.toml"));
    let member = NodeConfig::parse(&member_text).map(|config| (config.role(), config.tls));
    assert_eq!(member, Ok(("member", TlsConfig::default())));
    // The hub's file says that it shows every setting.
    let new = uncommented(&hub().render_new());
    let (shown, known) = (keys(&hub_text), keys(&new));
    let missing: Vec<&str> = known.difference(&shown).copied().collect();
    assert_eq!(missing, ["hub"], "all but what makes a member");
}

fn keys(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(key, _)| key)
        .collect()
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_accepted() {
    let text = format!("\u{feff}{}", member().render_new().replace('\n', "\r\n"));
    assert_eq!(NodeConfig::parse(&text), Ok(member()));
}

#[test]
fn every_mistake_is_reported_at_once_with_its_place() {
    let text = r#"
federation = "Zheng Zhou"
node = 410122
nmae = "x"

[listen]
address = "0.0.0.0"
advertise = ["0.0.0.0:7443", "a b:1"]

[upstream]
hub = "410100"
addresses = ["credit.example.org"]
timeout = 5

[store]
cache_mb = 4
disk_reserve_mb = -1
origin_quota_mb = 0

[sync]
heartbeat_s = 30
retry_max_s = "long"

[import]
hold_deletes_percent = 101
hold_changes_percent = -1
undo_days = 0

[certificates]
lifetime_hours = 720
lifetime_s = 4
issuing_lifetime_s = 157680001
root_key_dir = ""

[tls]
post_quantum = "no"
certificate = "node.pem"
ca = " "
cipher = "x"

[log]
level = "infos"
format = "xml"

[telemetry]
"#;
    let lines = lines(text);
    let places: Vec<&str> = lines.iter().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert_eq!(
        places,
        [
            "federation",
            "node",
            "nmae",
            "listen.address",
            "listen.advertise",
            "listen.advertise",
            "upstream.addresses",
            "upstream.timeout",
            "store.cache_mb",
            "store.disk_reserve_mb",
            "store.origin_quota_mb",
            "sync.heartbeat_s",
            "sync.retry_max_s",
            "import.hold_deletes_percent",
            "import.hold_changes_percent",
            "import.undo_days",
            "certificates.lifetime_hours",
            "certificates.lifetime_s",
            "certificates.issuing_lifetime_s",
            "certificates.root_key_dir",
            "tls.post_quantum",
            "tls.certificate",
            "tls.ca",
            "tls.cipher",
            "log.level",
            "log.format",
            "telemetry",
        ],
        "{lines:#?}"
    );
    for (index, expected) in [
        (1, "line 3, column 8: node: wrong type: integer '410122', expected a string"),
        (
            7,
            "line 13, column 1: upstream.timeout: unknown key; known here: hub, addresses; \
             correct or delete it",
        ),
        (
            8,
            "line 16, column 1: store.cache_mb: 4 is outside 8 to 65536 MiB; write a number of \
             that range, or delete the line for the default of 16",
        ),
        (
            12,
            "line 22, column 15: sync.retry_max_s: wrong type: string \"long\", expected a whole \
             number",
        ),
        (
            16,
            "line 30, column 1: certificates.lifetime_hours: unknown key; known here: lifetime_s, \
             issuing_lifetime_s, root_key_dir; correct or delete it",
        ),
        (
            20,
            "line 36, column 16: tls.post_quantum: wrong type: string \"no\", expected true or \
             false",
        ),
        (
            23,
            "line 39, column 1: tls.cipher: unknown key; known here: post_quantum, certificate, \
             key, ca; correct or delete it",
        ),
    ] {
        assert_eq!(lines[index], expected);
    }
}

#[test]
fn a_file_without_anything_says_what_is_missing() {
    let lines = lines("");
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(lines[0].starts_with("federation: is missing"));
    assert!(lines[1].starts_with("node: is missing"));
    assert!(lines[2].starts_with("listen: a hub needs a table [listen]"));
}

#[test]
fn a_mistake_is_reported_once() {
    let text = "federation = 'f'\nnode = 'n'\nupstream = 5\n";
    assert_eq!(
        lines(text),
        ["line 3, column 12: upstream: wrong type: integer '5', expected a table"]
    );
    let text = "federation = 'f'\nnode = 'n'\n[upstream]\nhub = 'h'\naddresses = [5]\n";
    assert_eq!(
        lines(text),
        ["line 5, column 14: upstream.addresses: wrong type: integer '5', expected a string"]
    );
    let text = "federation = 'f'\nnode = 'n'\n[upstream]\n";
    let lines = lines(text);
    assert_eq!(lines.len(), 2, "{lines:#?}");
}

#[test]
fn a_syntax_error_names_its_line() {
    let lines = lines("federation = \"f\"\nnode = 41 0122\n");
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("line 2, column "), "{lines:?}");
    assert!(lines[0].contains("this is not TOML"), "{lines:?}");
}

#[test]
fn a_node_does_not_dial_itself() {
    let text = member().render_new().replace("hub = \"410100\"", "hub = \"410122\"");
    assert!(lines(&text)[0].contains("upstream.hub: is this node itself"));
}

#[test]
fn the_node_id_stands_in_for_a_missing_name() {
    let config = NodeConfig::parse(MINIMAL).unwrap();
    assert_eq!(config.name, "410100");
    assert_eq!(
        config,
        NodeConfig {
            federation: FederationId::new("f").unwrap(),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            name: "410100".to_owned(),
            ..plain("410100")
        }
    );
}

#[test]
fn addresses_are_those_that_can_be_dialled() {
    for good in ["a:1", "credit.example.org:65535", "192.0.2.1:7443", "[2001:db8::1]:7443"] {
        assert_eq!(check_address(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "a",
        "a:",
        ":1",
        "a:0",
        "a:65536",
        "a:+1",
        "a b:1",
        "http://a:1",
        "2001:db8::1:7443x",
        "2001:db8::1:7443",
        "0.0.0.0:1",
        "[::]:1",
        "1.2.3:4",
        "999.1.1.1:4",
    ] {
        assert!(check_address(bad).is_err(), "{bad}");
    }
}
