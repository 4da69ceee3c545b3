//! Certificates that an organisation's own PKI makes, here with openssl: files
//! that are loaded again when they change.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{
    federation::{Federation, HUB},
    node::{DEADLINE, Node, path_text, wait_for_ok, wait_until},
    table::Table,
};
use rustix::process::Signal;

const COUNTY: &str = "410122";

/// Kinds of keys, as openssl is asked for them and as `cert show` names them.
const KINDS: [(&str, &[&str], &str); 3] = [
    ("rsa", &["rsa:2048"], "RSA"),
    ("ecdsa", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "ECDSA"),
    ("ed25519", &["ed25519"], "Ed25519"),
];

/// An organisation's certificate authority.
struct Agency {
    dir: PathBuf,
}

impl Agency {
    /// `None`, with a message, where there is no openssl.
    fn new(dir: &Path) -> Option<Self> {
        if let Err(missing) = Command::new("openssl").arg("version").output() {
            println!("SKIPPED: openssl does not run here: {missing}");
            return None;
        }
        fs::create_dir(dir).unwrap();
        let agency = Self { dir: dir.to_owned() };
        agency.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=Agency \
             -keyout ca.key -out ca.pem -addext keyUsage=critical,keyCertSign,cRLSign",
        );
        Some(agency)
    }

    fn openssl(&self, arguments: &str) {
        let arguments = arguments.split_whitespace();
        let output = Command::new("openssl").current_dir(&self.dir).args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The CA's certificate.
    fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Makes a certificate and its key with these alternative names.
    fn issue(&self, file: &str, key: &[&str], names: &str) -> (PathBuf, PathBuf) {
        let extensions = format!(
            "subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n"
        );
        fs::write(self.dir.join("extensions"), extensions).unwrap();
        self.openssl(&format!(
            "req -new -newkey {} -nodes -subj /CN={file} -keyout {file}.key -out {file}.csr",
            key.join(" ")
        ));
        self.openssl(&format!(
            "x509 -req -in {file}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 10 -extfile extensions \
             -out {file}.pem"
        ));
        (self.dir.join(format!("{file}.pem")), self.dir.join(format!("{file}.key")))
    }

    fn issue_for(&self, node: &Node, kind: (&str, &[&str], &str)) -> (PathBuf, PathBuf) {
        let file = format!("{}-{}", node.name(), kind.0);
        self.issue(&file, kind.1, &names(node.name()))
    }
}

/// Both names that a node's certificate needs.
fn names(node: &str) -> String {
    format!("URI:spiffe://test-city/node/{node},DNS:{node}.test-city.creditsync.internal")
}

/// Where a node's configuration looks.
fn paths(node: &Node) -> (PathBuf, PathBuf) {
    (node.dir().join("pki/node.pem"), node.dir().join("pki/node.key"))
}

/// Puts a pair where the node looks, each file in one step.
fn place(node: &Node, (certificate, key): &(PathBuf, PathBuf)) {
    fs::create_dir_all(node.dir().join("pki")).unwrap();
    let (at_certificate, at_key) = paths(node);
    for (from, to) in [(key, at_key), (certificate, at_certificate)] {
        let new = to.with_extension("new");
        // A copy keeps the mode of a key.
        fs::copy(from, &new).unwrap();
        fs::rename(&new, &to).unwrap();
    }
}

fn configure(node: &Node, agency: &Agency) {
    node.configure("certificate", "\"pki/node.pem\"");
    node.configure("key", "\"pki/node.key\"");
    node.configure("ca", &format!("\"{}\"", path_text(&agency.ca())));
}

/// Waits until a node shows a certificate with this kind of key, and nothing is
/// wrong.
#[track_caller]
fn wait_shown(node: &Node, kind: &str) {
    wait_for_ok(&format!("{} shows {kind}", node.name()), DEADLINE, || {
        let status = node.status();
        let own = &status["certificates"][0];
        let well = own["key"].as_str().is_some_and(|key| key.starts_with(kind))
            && own["issuer"].as_str().is_some_and(|issuer| issuer.contains("Agency"))
            && node.alarms().is_empty();
        if well { Ok(()) } else { Err(format!("{own:#} {:?}", node.alarms())) }
    });
}

/// What is imported at the county arrives over a connection whose two
/// certificates are those that are shown now.
#[track_caller]
fn check(federation: &Federation, rows: u32) {
    let county = &federation.counties[0];
    let serial = |node: &Node| node.certificate()["serial"].clone();
    wait_until("the connection is one of the new certificate", || {
        let shown = federation.hub.json(&["node", "show", COUNTY]);
        shown["seen"]["serial"] == serial(county)
    });
    let table = Table::synthetic(1, 0..rows, "一");
    county.import("enterprise", &table.write(federation.dir(), "delivery.csv"));
    federation.wait_converged();
    assert_eq!(federation.hub.export(&format!("enterprise/{COUNTY}")), table.to_export());
}

#[test]
fn an_organisations_own_certificates_replace_the_hubs_and_each_other() {
    let mut federation = Federation::new(&[COUNTY]);
    let Some(agency) = Agency::new(&federation.dir().join("agency")) else { return };
    check(&federation, 1);

    // From the next start on the first kind, then the others as files change.
    federation.counties[0].stop();
    federation.hub.stop();
    for (at, kind) in KINDS.into_iter().enumerate() {
        for node in federation.nodes() {
            place(node, &agency.issue_for(node, kind));
            if at == 0 {
                configure(node, &agency);
            }
        }
        if at == 0 {
            federation.hub.start();
            federation.counties[0].start();
        }
        federation.nodes().for_each(|node| wait_shown(node, kind.2));
        if at > 0 {
            // A renewed certificate of the hub's is met by who connects again.
            federation.counties[0].restart();
        }
        check(&federation, 2 + u32::try_from(at).unwrap());
    }

    // Who joins now is let in by the hub's own authority, and needs the
    // organisation's only to trust the hub.
    let token = federation.invite("410181", &[]);
    let mut other = Node::new("410181", &federation.dir().join("410181"));
    other.cli(&["join", &token]).expect_code(0);
    other.configure("retry_max_s", "1");
    other.start();
    other.wait_reason(HUB, &["was not issued under our root CA"]);
    other.stop();
    other.configure("ca", &format!("\"{}\"", path_text(&agency.ca())));
    other.start();
    other.wait_connected(HUB);
    federation.counties.push(other);

    // Nobody waits for certificates that are not the hub's to renew.
    federation.hub.json(&["ca", "rotate"]);
    wait_until("the rotation is done", || {
        let shown = federation.hub.json(&["ca", "show"]);
        shown["issuing"] == 2 && shown["next_step"] == "none"
    });
    check(&federation, 6);
    federation.finish();
}

#[test]
fn a_broken_pair_is_refused_and_the_one_before_stays_in_use() {
    let mut federation = Federation::new(&[COUNTY]);
    let Some(agency) = Agency::new(&federation.dir().join("agency")) else { return };
    federation.hub.stop();
    federation.hub.configure("ca", &format!("\"{}\"", path_text(&agency.ca())));
    federation.hub.start();
    let county = &mut federation.counties[0];
    county.stop();
    let good = agency.issue_for(county, KINDS[1]);
    place(county, &good);
    configure(county, &agency);
    county.start();
    wait_shown(county, KINDS[1].2);
    check(&federation, 1);

    let county = &federation.counties[0];
    let serial = county.certificate()["serial"].clone();
    let dns = format!("DNS:{COUNTY}.test-city.creditsync.internal");
    let uri = format!("URI:spiffe://test-city/node/{COUNTY}");
    let foreign_key = (good.0.clone(), agency.issue("other", KINDS[1].1, &uri).1);
    let without_uri = agency.issue("without-uri", KINDS[1].1, &dns);
    let without_dns = agency.issue("without-dns", KINDS[1].1, &uri);
    let others = agency.issue("others", KINDS[1].1, &names("410181"));
    for (what, pair, words) in [
        ("a key that does not fit", &foreign_key, &["does not fit"][..]),
        ("no URI", &without_uri, &["URI"]),
        ("no DNS name", &without_dns, &["DNS", "creditsync.internal"]),
        ("another node's", &others, &["410181"]),
    ] {
        place(county, pair);
        wait_for_ok(&format!("{what} is refused, and it says why"), DEADLINE, || {
            let shown = county.json(&["cert", "show"]);
            let last = &shown["certificates"][0]["last_result"];
            let problem = last["problem"].as_str().unwrap_or_default();
            let alarm = shown["alarms"].to_string();
            let said = words.iter().all(|word| problem.contains(word) && alarm.contains(word));
            let well = last["ok"] == false && said && problem.contains("pki/node.pem");
            if well { Ok(()) } else { Err(format!("{words:?} {shown:#}")) }
        });
        assert_eq!(county.certificate()["serial"], serial, "{what}");
        assert_eq!(county.peer(HUB)["connected"], true, "{what}");
        county.cli(&["cert", "check", "--days", "0"]).expect_code(3);
    }
    check(&federation, 2);
    place(county, &good);
    wait_shown(county, KINDS[1].2);
    county.cli(&["cert", "check", "--days", "0"]).expect_code(0);

    // A signal loads what has not changed, too.
    let loads = || county.log_lines(&["certificates and trusted roots were loaded"]).len();
    let before = loads();
    county.signal(Signal::HUP);
    wait_until("everything is loaded again", || loads() > before);
    check(&federation, 3);
    federation.finish();
}

#[test]
fn a_node_with_an_own_pki_comes_back_from_its_backup() {
    let mut federation = Federation::new(&[COUNTY]);
    let Some(agency) = Agency::new(&federation.dir().join("agency")) else { return };
    for node in std::iter::once(&mut federation.hub).chain(&mut federation.counties) {
        place(node, &agency.issue_for(node, KINDS[1]));
        configure(node, &agency);
        node.restart();
    }
    federation.wait_connected();
    check(&federation, 20);
    let (phrase, file) = (federation.dir().join("phrase"), federation.dir().join("backup"));
    fs::write(&phrase, "口令\n").unwrap();
    fs::set_permissions(&phrase, fs::Permissions::from_mode(0o600)).unwrap();
    let with = ["--passphrase-file", path_text(&phrase)];
    let county = &mut federation.counties[0];
    let made = county.json(&[&["backup", path_text(&file)], &with[..]].concat());
    // What lies elsewhere is not in it, and told.
    assert_eq!(made["outside"], serde_json::json!([path_text(&agency.ca())]));
    let (_, key) = paths(county);
    let secret = fs::read(&key).unwrap();
    let backup = fs::read(&file).unwrap();
    assert!(!backup.windows(secret.len()).any(|window| window == secret));
    county.stop();
    fs::remove_dir_all(county.dir()).unwrap();
    county.json(&[&["restore", path_text(&file)], &with[..]].concat());
    let mode = fs::metadata(&key).unwrap().permissions().mode() & 0o777;
    assert_eq!((fs::read(&key).unwrap(), mode), (secret, 0o600));
    county.start();
    wait_shown(county, "ECDSA");
    federation.wait_connected();
    let table = Table::synthetic(1, 0..40, "二");
    let rows = table.write(federation.dir(), "2.csv");
    wait_until("it writes again", || {
        let import = ["import", "enterprise", path_text(&rows)];
        federation.counties[0].cli(&import).code == Some(0)
    });
    federation.wait_converged();
    assert_eq!(federation.hub.export(&format!("enterprise/{COUNTY}")), table.to_export());
}
