//! The hub or a county dies at each step of a rotation, and of a change of
//! signing keys: the next start goes on where it was, and the county notices
//! nothing.
#![cfg(debug_assertions)]

use std::process::{Command, Stdio};

use harness::{
    federation::{Federation, HUB},
    node::{DEADLINE, Node, wait_for_ok, wait_until},
    table::Table,
};
use serde_json::Value as Json;

/// The one county.
const COUNTY: &str = "410122";

/// A hub with one county, and what the county has imported.
struct Case {
    federation: Federation,
    table: Table,
    imports: u32,
}

impl Case {
    fn new() -> Self {
        let federation = Federation::new(&[COUNTY]);
        let mut case = Self { federation, table: Table::default(), imports: 0 };
        case.import();
        case.federation.wait_converged();
        case
    }

    fn hub(&mut self) -> &mut Node {
        &mut self.federation.hub
    }

    fn county(&mut self) -> &mut Node {
        &mut self.federation.counties[0]
    }

    /// A change that has to arrive.
    fn import(&mut self) {
        self.imports += 1;
        let delivery = Table::synthetic(1, 0..self.imports, &format!("第{}次", self.imports));
        let file = delivery.write(self.federation.dir(), "delivery.csv");
        self.county().import("enterprise", &file);
        self.table.put_all(&delivery);
    }

    /// Everything works: what was imported meanwhile has arrived.
    #[track_caller]
    fn check(&mut self, point: &str) {
        self.import();
        self.federation.wait_converged();
        let held = self.hub().export(&format!("enterprise/{COUNTY}"));
        assert_eq!(held, self.table.to_export(), "{point}");
        for node in self.federation.nodes() {
            node.assert_no_errors();
        }
    }

    /// A change of the hub's own, signed with its key.
    fn import_at_hub(&mut self) {
        self.imports += 1;
        let delivery = Table::synthetic(2, 0..self.imports, &format!("市{}", self.imports));
        let file = delivery.write(self.federation.dir(), "hub.csv");
        self.hub().import("enterprise", &file);
    }

    /// The signing keys that the federation knows of a node.
    fn keys_of(&mut self, node: &str) -> Vec<Json> {
        let shown = self.hub().json(&["node", "show", node]);
        shown["signing_keys"].as_array().unwrap().clone()
    }

    /// Waits until a node signs with the newest key that the federation knows of
    /// it, and has no other one waiting; answers that key.
    #[track_caller]
    fn wait_newest_key(&mut self, node: usize, count: usize) -> Json {
        let name = [HUB, COUNTY][node];
        let mut newest = Json::Null;
        wait_for_ok(&format!("{name} signs with its key {count}"), DEADLINE, || {
            let keys = self.keys_of(name);
            newest = keys.last().unwrap().clone();
            let signer = if node == 0 { self.hub() } else { self.county() };
            let waiting = signer.dir().join("keys/signing.key.next").exists();
            let well = keys.len() == count && signer.signing_key() == newest["id"] && !waiting;
            if well { Ok(()) } else { Err(format!("{keys:#?}")) }
        });
        newest
    }

    /// The numbers of the root and the issuing CA in use.
    fn in_use(&mut self) -> (u64, u64) {
        let shown = self.hub().json(&["ca", "show"]);
        (shown["root"].as_u64().unwrap(), shown["issuing"].as_u64().unwrap())
    }

    /// The rotation that began when `before` was in use is done, and by no more
    /// than one generation; all that came before is retired, and the county has
    /// followed.
    #[track_caller]
    fn wait_rotated(&mut self, point: &str, before: (u64, u64), root: bool) {
        let expected = (before.0 + u64::from(root), before.1 + 1);
        let mut shown = Json::Null;
        wait_for_ok(&format!("{point}: rotated"), DEADLINE, || {
            shown = self.hub().json(&["ca", "show"]);
            let in_use = (shown["root"].as_u64().unwrap(), shown["issuing"].as_u64().unwrap());
            let well = shown["next_step"] == "none" && in_use == expected;
            if well { Ok(()) } else { Err(format!("{expected:?} {shown:#}")) }
        });
        for one in shown["authorities"].as_array().unwrap() {
            let newest = if one["kind"] == "root" { expected.0 } else { expected.1 };
            let state = if one["number"] == newest { "active" } else { "retired" };
            assert_eq!(one["state"], state, "{point}: {shown:#}");
        }
        let root_id = |one: &&Json| one["kind"] == "root" && one["state"] == "active";
        let active = shown["authorities"].as_array().unwrap().iter().find(root_id).unwrap();
        wait_until("every node trusts the root in use and no other", || {
            self.federation.nodes().all(|node| {
                let status = node.status();
                let roots = status["certificates"].as_array().unwrap().iter();
                let roots: Vec<&Json> =
                    roots.filter(|one| one["kind"] == "root").map(|one| &one["id"]).collect();
                roots == [&active["id"]]
            })
        });
    }

    /// What begins a rotation, and what goes on with it.
    #[track_caller]
    fn rotate(&mut self, root: bool) {
        let output = self.hub().cli(rotate(root));
        assert!(matches!(output.code, Some(0 | 3)), "{output:#?}");
    }
}

fn rotate(root: bool) -> &'static [&'static str] {
    if root { &["ca", "rotate", "--root"] } else { &["ca", "rotate"] }
}

/// The hub dies at `points` of the command that begins a rotation, and then at
/// `later` ones of the daemon that goes on with it.
fn hub_dies_at(root: bool, points: &[&str], later: &[&str]) {
    let mut case = Case::new();
    for point in points {
        let before = case.in_use();
        case.hub().stop();
        case.hub().crash(rotate(root), point);
        case.import();
        case.rotate(root);
        case.hub().start();
        case.wait_rotated(point, before, root);
        case.check(point);
    }
    for point in later {
        let before = case.in_use();
        case.hub().stop();
        case.rotate(root);
        case.hub().start_to_crash(point);
        case.import();
        // Asked for once more when it is over, it would begin another one.
        if case.hub().json(&["ca", "show"])["next_step"] != "none" {
            case.rotate(root);
        }
        case.hub().start();
        case.wait_rotated(point, before, root);
        case.check(point);
    }
    // The hub, back from a crash, told the county at once that its connection
    // was gone, whatever was renewed since it was made.
    let waited = case.county().log_lines(&["no answer"]);
    assert!(waited.is_empty(), "{waited:#?}");
    case.federation.finish();
}

#[test]
fn an_issuing_ca_is_rotated_although_the_hub_dies_at_any_step() {
    hub_dies_at(
        false,
        &["ca.issuing-key-written", "ca.issuing-cert-written", "ca.prepared"],
        &[
            "ca.activated",
            "key.next-written",
            "node.chain-written",
            "key.next-promoted",
            "ca.retired",
            "ca.key-deleted",
        ],
    );
}

#[test]
fn a_root_is_rotated_although_the_hub_dies_at_any_step() {
    hub_dies_at(
        true,
        &[
            "ca.root-key-written",
            "ca.root-cert-written",
            "ca.cross-cert-written",
            "ca.next-anchor-written",
            "ca.issuing-key-written",
            "ca.issuing-cert-written",
            "ca.prepared",
            "bundle.written",
            "bundle.taken-over",
        ],
        &["ca.activated", "ca.anchor-replaced", "ca.retired"],
    );
}

#[test]
fn a_rotation_goes_on_although_the_county_dies_at_any_step() {
    let mut case = Case::new();
    for point in [
        "bundle.written",
        "bundle.taken-over",
        "key.next-written",
        "node.chain-written",
        "key.next-promoted",
    ] {
        let before = case.in_use();
        case.county().stop();
        case.rotate(true);
        case.county().start_to_crash(point);
        case.import();
        case.county().start();
        case.wait_rotated(point, before, true);
        case.check(point);
    }
    case.federation.finish();
}

#[test]
fn a_countys_signing_key_is_replaced_although_either_side_dies() {
    let renew = ["cert", "renew", "--signing-key"];
    let mut case = Case::new();
    let mut count = 1;
    for (point, dies) in [
        ("key.next-written", COUNTY),
        ("key.registered", HUB),
        ("key.adopted", COUNTY),
        ("key.next-promoted", COUNTY),
    ] {
        let before = case.keys_of(COUNTY).pop().unwrap();
        let victim = if dies == HUB { case.hub() } else { case.county() };
        victim.stop();
        victim.try_start_to_crash(point).unwrap();
        case.county().wait_connected(HUB);
        // Its answer may be lost with whoever dies, so it is not looked at.
        let mut asking = case.county().command(&renew);
        let mut asking = asking.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        if dies == HUB { case.hub() } else { case.county() }.wait_crashed(point);
        if dies == HUB {
            // The next key is registered, but the county does not know it yet,
            // and signs what the hub will not take.
            case.import();
        }
        if dies == HUB { case.hub() } else { case.county() }.start();
        asking.wait().unwrap();
        if point == "key.next-written" {
            case.county().wait_connected(HUB);
            case.county().json(&renew);
        }
        count += 1;
        let newest = case.wait_newest_key(1, count);
        assert_eq!((&newest["by"], &newest["last"]), (&"succession".into(), &Json::Null));
        case.check(point);
        // The key before has a last number, and so much was signed with it.
        let retired = &case.keys_of(COUNTY)[count - 2];
        assert_eq!(retired["id"], before["id"]);
        assert!(retired["last"][format!("enterprise/{COUNTY}")].as_u64() > Some(0), "{retired:#}");
    }
    case.federation.finish();
}

/// The hub has registered the next key of a directory that has not heard of it, and the
/// revocation ends both keys.
#[test]
fn a_next_key_that_ended_before_it_signed_is_in_the_way_of_no_token() {
    let renew = ["cert", "renew", "--signing-key"];
    let mut case = Case::new();
    case.county().stop();
    case.county().try_start_to_crash("key.next-written").unwrap();
    case.county().wait_connected(HUB);
    let mut asking = case.county().command(&renew);
    let mut asking = asking.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    case.county().wait_crashed("key.next-written");
    asking.wait().unwrap();
    let dir = case.county().dir().to_owned();
    let kept = dir.with_extension("kept");
    let copied = Command::new("cp").arg("-a").arg(&dir).arg(&kept).status().unwrap();
    assert!(copied.success());
    case.county().start();
    case.county().wait_connected(HUB);
    case.county().json(&renew);
    case.wait_newest_key(1, 2);
    case.county().stop();
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::rename(&kept, &dir).unwrap();
    case.import();
    case.hub().cli(&["revoke", COUNTY]).expect_code(0);

    let address = case.federation.address().to_string();
    let token = case.federation.invite(COUNTY, &["--address", &address]);
    for _written in ["node.key.next", "signing.key.next"] {
        case.county().crash(&["join", &token], "key.next-written");
    }
    let joined = case.county().cli(&["join", &token]).expect_code(0);
    assert!(joined.stderr.contains("so a new one signs from now on"), "{joined:?}");
    case.county().start();
    let newest = case.wait_newest_key(1, 3);
    assert_eq!((&newest["by"], &newest["last"]), (&"reenrolment".into(), &Json::Null));
    case.check("it was retired before it signed");
    case.federation.finish();
}

#[test]
fn the_hubs_signing_key_is_replaced_although_it_dies() {
    let renew: &[&str] = &["cert", "renew", "--signing-key"];
    let stolen: &[&str] = &["cert", "renew", "--signing-key", "--stolen"];
    let mut case = Case::new();
    let mut count = 1;
    let mut epoch = 1;
    for (command, point) in [
        (renew, "key.next-written"),
        (renew, "key.registered"),
        (renew, "key.next-promoted"),
        (stolen, "key.next-written"),
        (stolen, "key.anchor-written"),
        (stolen, "key.registered"),
        (stolen, "key.next-promoted"),
    ] {
        case.import_at_hub();
        case.federation.wait_converged();
        case.hub().stop();
        case.hub().crash(command, point);
        case.import();
        if point == "key.next-written" {
            case.hub().json(command);
        }
        case.hub().start();
        count += 1;
        epoch += u64::from(command == stolen);
        let newest = case.wait_newest_key(0, count);
        let by = if command == stolen { "anchor" } else { "succession" };
        assert_eq!((&newest["by"], &newest["last"]), (&by.into(), &Json::Null), "{point}");
        wait_until("the county knows the anchor", || {
            case.county().json(&["cert", "show"])["anchor_epoch"] == epoch
        });
        case.import_at_hub();
        case.check(point);
    }

    // The county dies with the new anchor on its disk.
    case.county().stop();
    case.hub().json(stolen);
    case.import_at_hub();
    case.county().start_to_crash("anchor.taken");
    case.county().start();
    case.import_at_hub();
    case.check("anchor.taken");
    assert_eq!(case.county().json(&["cert", "show"])["anchor_epoch"], epoch + 1);
    case.federation.finish();
}

#[test]
fn a_hub_that_dies_over_a_token_lets_in_who_has_used_it_and_nobody_else() {
    for point in ["invite.used", "invite.granted"] {
        let mut case = Case::new();
        let mut county = Node::new("410181", &case.federation.dir().join("410181"));
        let token = case.federation.invite("410181", &[]);
        case.hub().stop();
        case.hub().try_start_to_crash(point).unwrap();
        // It asks again with the same keys until the hub is back.
        let joined = std::thread::scope(|scope| {
            let joining = scope.spawn(|| county.cli(&["join", &token]));
            case.hub().wait_crashed(point);
            case.hub().start();
            joining.join().unwrap()
        });
        let said = joined.expect_code(0).stderr;
        assert!(said.contains("asking again"), "{point}: {said}");
        let other = Node::new("410181", &case.federation.dir().join("other"));
        other.cli(&["join", &token]).expect_failure(&["used"]);
        let members = case.hub().json(&["node", "list"]);
        assert_eq!(members["nodes"].as_array().unwrap().len(), 3, "{members:#}");
        let keys = case.hub().json(&["node", "show", "410181"])["signing_keys"].clone();
        assert_eq!(keys.as_array().unwrap().len(), 1, "{keys:#}");
        county.start();
        case.federation.counties.push(county);
        case.federation.wait_connected();
        case.check(point);
        case.federation.finish();
    }
}

/// What the node was before the token does not count against it, and what it became
/// since does.
#[test]
fn a_hub_that_dies_over_the_token_of_a_removed_node_lets_it_in_unless_it_is_removed_again() {
    for removed_again in [false, true] {
        let mut case = Case::new();
        case.county().stop();
        let remove = ["node", "remove", COUNTY, "--force"];
        case.hub().cli(&remove).expect_code(0);
        let address = case.federation.address().to_string();
        let token = case.federation.invite(COUNTY, &["--address", &address]);
        case.hub().stop();
        case.hub().try_start_to_crash("invite.used").unwrap();
        let county = case.county().handle();
        let joined = std::thread::scope(|scope| {
            let joining = scope.spawn(|| county.cli(&["join", &token]));
            case.hub().wait_crashed("invite.used");
            if removed_again {
                case.hub().cli(&remove).expect_code(0);
            }
            case.hub().start();
            joining.join().unwrap()
        });
        if removed_again {
            joined.expect_failure(&["used"]);
            continue;
        }
        let said = joined.expect_code(0).stderr;
        assert!(said.contains("asking again"), "{said}");
        case.county().start();
        case.wait_newest_key(1, 2);
        case.check("invite.used");
        case.federation.finish();
    }
}
