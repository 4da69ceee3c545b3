//! What an administrator types and what comes back: exit codes, one JSON
//! document, and errors that name the thing, the place and the next step.

use std::path::PathBuf;

use harness::{
    federation::{Federation, HUB, free_address},
    node::{Node, command, creditsync, path_text, run, wait_until},
    table::{ENTERPRISE_TITLES, Table, csv_text, synthetic_code, synthetic_row},
};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

/// A hub that does not run.
fn stopped_hub() -> (TempDir, Node) {
    let dir = tempfile::tempdir().unwrap();
    let hub = Node::new(HUB, &dir.path().join("hub"));
    let listen = free_address().to_string();
    let init = ["init", "--federation", "test-city", "--node", HUB, "--listen", &listen];
    let output = hub.cli(&init).expect_code(0);
    assert_eq!(output.stdout, "");
    (dir, hub)
}

/// The `rejects` lines of a report: line, severity, field, value, rule.
fn rejects(report: &Json) -> Vec<[String; 5]> {
    let text = std::fs::read_to_string(report["rejects_file"].as_str().unwrap()).unwrap();
    let mut reader = csv::Reader::from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let row = |row: csv::StringRecord| {
        assert!(!row[5].is_empty() && !row[6].is_empty(), "no explanation in two languages");
        [0, 1, 2, 3, 4].map(|column| row[column].to_owned())
    };
    reader.records().map(|record| row(record.unwrap())).collect()
}

#[test]
fn commands_work_on_a_node_that_does_not_run() {
    let (dir, hub) = stopped_hub();
    let table = Table::synthetic(1, 0..30, "一");
    let file = table.write(dir.path(), "30.csv");
    let text = hub.cli(&["import", "enterprise", path_text(&file)]).expect_code(0).stdout;
    assert!(text.contains("30 inserted / 新增"), "{text}");
    assert_eq!(hub.export("enterprise"), with_origin(&table));
    assert_eq!(hub.export("enterprise/410100"), table.to_export());
    let code = synthetic_code(1, 3);
    let found = hub.json(&["get", "enterprise", &code]);
    assert_eq!(found[0]["record"]["uscc"], code.as_str());
    assert_eq!(found.as_array().unwrap().len(), 1);
    // A key is read as a file's cell is.
    assert_eq!(hub.json(&["get", "enterprise", &format!(" {} ", code.to_lowercase())]), found);
    hub.verify_deep();
    let datasets = hub.json(&["dataset", "list"]);
    let names: Vec<&Json> =
        datasets["datasets"].as_array().unwrap().iter().map(|one| &one["dataset"]).collect();
    assert_eq!(names, ["admin-licence", "admin-penalty", "enterprise", "serious-violators"]);
    assert_eq!(hub.json(&["dataset", "show", "enterprise"])["key"], json!(["uscc"]));
    assert_eq!(hub.json(&["node", "list"])["nodes"][0]["node"], HUB);
    assert_eq!(hub.json(&["delivery", "list"]), json!({ "deliveries": [] }));
    let token = hub.cli(&["invite", "410122"]).expect_code(0);
    assert_eq!(token.stdout.lines().count(), 1, "only the token: {token:?}");
    assert!(token.stdout.starts_with("creditsync-join-1."));
    assert_eq!(hub.json(&["invite", "410123"])["node"], "410123");

    let output = dir.path().join("out.jsonl");
    let arguments = ["export", "enterprise/410100", "--format", "jsonl", "-o", path_text(&output)];
    let exported = hub.cli(&arguments).expect_code(0);
    assert_eq!(exported.stdout, "");
    assert_eq!(std::fs::read_to_string(&output).unwrap().lines().count(), 30);
    for arguments in [&["status"][..], &["verify"], &["node", "list"], &["dataset", "list"]] {
        let text = hub.cli(arguments).expect_code(0);
        assert_eq!(text.stderr, "");
        assert!(text.stdout.lines().count() >= 2, "{text:?}");
    }
}

fn with_origin(table: &Table) -> String {
    let mut rows = Vec::new();
    for row in table.0.values() {
        rows.push([&[HUB.to_owned()], &row[..]].concat());
    }
    csv_text(&[&["_origin"], &harness::table::ENTERPRISE_FIELDS[..]].concat(), &rows)
}

#[test]
fn the_status_has_the_fields_of_its_contract() {
    let federation = Federation::new(&["410122"]);
    let file = Table::synthetic(1, 0..5, "一").write(federation.dir(), "5.csv");
    federation.counties[0].import("enterprise", &file);
    federation.wait_converged();
    let is_time = |value: &Json| {
        let text = value.as_str().unwrap_or_default();
        text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z')
    };
    let is_hash = |value: &Json| {
        let text = value.as_str().unwrap_or_default();
        text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    for (node, role) in [(&federation.hub, "hub"), (&federation.counties[0], "member")] {
        let status = node.status();
        assert_eq!(status["node"], node.name());
        assert_eq!(status["federation"], "test-city");
        assert_eq!(status["role"], role);
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert!(status["uptime_s"].is_u64());
        let peer = &status["peers"][0];
        assert_eq!(peer["connected"], true);
        assert!(peer["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{peer:#}");
        assert!(peer["node"].is_string() && peer["rtt_ms"].is_f64(), "{peer:#}");
        for field in ["since", "last_contact", "certificate_not_after"] {
            assert!(is_time(&peer[field]), "{field}: {peer:#}");
        }
        let partitions = status["partitions"].as_array().unwrap();
        let names: Vec<&Json> = partitions.iter().map(|found| &found["partition"]).collect();
        assert_eq!(names, ["_federation/410100", "enterprise/410122"]);
        for found in partitions {
            let name = format!("{}/{}", text(&found["dataset"]), text(&found["origin"]));
            assert_eq!((text(&found["partition"]), text(&found["audience"])), (&name[..], "*"));
            assert!(is_hash(&found["head"]) && is_hash(&found["root"]), "{found:#}");
            assert!(is_time(&found["updated_at"]), "{found:#}");
            assert!(found["seq"].is_u64() && found["records"].is_u64(), "{found:#}");
            assert_eq!((&found["behind_change_sets"], &found["lag_s"]), (&json!(0), &json!(0)));
            assert_eq!(found.get("reason"), Some(&Json::Null));
            let is_own = found["origin"] == node.name();
            assert_eq!(found["state"], if is_own { "origin" } else { "in_sync" });
            let acked = found["acked"].as_array().unwrap();
            assert_eq!(acked.len(), usize::from(is_own), "{found:#}");
            assert!(acked.iter().all(|ack| is_time(&ack["at"]) && ack["seq"] == found["seq"]));
        }
    }
    federation.finish();
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap()
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["import"],
        &["import", "enterprise"],
        &["init", "--federation", "Not A Name", "--node", "x", "--listen", "127.0.0.1:1"],
        &["init", "--federation", "test", "--node", "410100", "--listen", "nowhere"],
        &["status", "--yaml"],
        &["export", "enterprise", "--format", "xlsx"],
        &["join"],
        &["delivery", "approve"],
    ] {
        let output = creditsync(arguments).expect_code(2);
        assert_eq!(output.stdout, "", "{arguments:?}");
        assert!(output.stderr.contains("Usage"), "{arguments:?}: {}", output.stderr);
    }
    for arguments in [&["--help"][..], &["import", "--help"], &["--version"]] {
        creditsync(arguments).expect_code(0);
    }
}

#[test]
fn the_directory_is_named_in_three_ways() {
    let (_dir, hub) = stopped_hub();
    let dir = path_text(hub.dir());
    let is_hub = |output: harness::node::Output| output.expect_code(0).json()["node"] == HUB;
    assert!(is_hub(creditsync(&["--dir", dir, "status", "--json"])));
    assert!(is_hub(creditsync(&["status", "--json", "--dir", dir])));
    assert!(is_hub(run(command().args(["status", "--json"]).env("CREDITSYNC_DIR", dir))));
    // What is said on the command line counts.
    let elsewhere = run(command().args(["status", "--dir", dir, "--json"]).env("CREDITSYNC_DIR", "/nowhere"));
    assert!(is_hub(elsewhere));
}

#[test]
fn commands_want_a_node() {
    let dir = tempfile::tempdir().unwrap();
    let empty = Node::new("none", &dir.path().join("empty"));
    let place = path_text(empty.dir());
    for arguments in [
        &["status"][..],
        &["run"],
        &["export", "enterprise"],
        &["get", "enterprise", "91410100MA00000000"],
        &["verify"],
        &["dataset", "list"],
        &["node", "list"],
        &["delivery", "list"],
        &["invite", "410122"],
        &["import", "enterprise", "/etc/hostname"],
    ] {
        empty.cli(arguments).expect_failure(&[place, "is no node", "creditsync init", "creditsync join"]);
        assert!(!empty.dir().exists(), "{arguments:?} left something behind");
    }
}

#[test]
fn a_directory_holds_one_node_and_one_daemon() {
    let mut federation = Federation::new(&["410122"]);
    let hub = path_text(federation.hub.dir()).to_owned();
    let again = ["init", "--federation", "other", "--node", "1", "--listen", "127.0.0.1:1"];
    federation.hub.cli(&again).expect_failure(&[&hub, "is a node already", "--dir"]);
    federation.hub.cli(&["run"]).expect_failure(&[&hub, "in use by another creditsync", "process"]);
    let token = federation.invite("410181", &[]);
    federation.counties[0].cli(&["join", &token]).expect_failure(&["is a node already", "--dir"]);
    // The refused ones took nothing from the ones that were there.
    federation.counties[0].restart();
    federation.add_county("410181");
    federation.finish();
}

#[test]
fn a_token_is_good_once_in_time_and_unaltered() {
    let mut federation = Federation::hub_only();
    let join = |dir: &str, token: &str| {
        let node = Node::new(dir, &federation.dir().join(dir));
        let output = node.cli(&["join", token]);
        (output, node)
    };
    let token = federation.invite("410122", &["--name", "中牟县"]);
    // Copied with line breaks and blanks.
    let (head, tail) = token.split_at(token.len() / 2);
    let county = Node::new("410122", &federation.dir().join("410122"));
    county.cli(&["join", head, &format!(" {tail}\n")]).expect_code(0);
    let (output, _) = join("again", &token);
    output.expect_failure(&["refused", "used"]);
    federation.hub.cli(&["invite", "410122"]).expect_failure(&["410122", "member already"]);

    let token = federation.invite("410181", &[]);
    for position in [3, "creditsync-join-1.".len() + 5, token.len() / 2, token.len() - 1] {
        let old = token.as_bytes()[position];
        let new = if old == b'A' { "B" } else { "A" };
        let mut altered = token.clone();
        altered.replace_range(position..=position, new);
        let (output, node) = join("altered", &altered);
        output.expect_failure(&["token"]);
        assert!(!node.dir().join("creditsync.toml").exists());
    }
    join("cut", &token[..token.len() - 10]).0.expect_failure(&["token"]);
    join("nonsense", "hello").0.expect_failure(&["token"]);
    // None of that used it up, nor does an attempt that failed make a directory useless.
    join("altered", &token).0.expect_code(0);

    let short = federation.invite("410182", &["--ttl", "1s"]);
    let expired = Node::new("expired", &federation.dir().join("expired"));
    let mut late = None;
    wait_until("the token has expired", || {
        let probe = federation.hub.json(&["invite", "410183", "--ttl", "1s"]);
        late.get_or_insert(text(&probe["expires"]).to_owned()) != text(&probe["expires"])
    });
    wait_until("the clock has passed it", || {
        let probe = federation.hub.json(&["invite", "410183", "--ttl", "1s"]);
        late.as_deref().is_some_and(|late| text(&probe["expires"]) > late)
    });
    expired.cli(&["join", &short]).expect_failure(&["expired", "creditsync invite 410182"]);
    assert!(!expired.dir().join("creditsync.toml").exists());
    for bad in ["1w", "0s", "forever"] {
        federation.hub.cli(&["invite", "410184", "--ttl", bad]).expect_failure(&["--ttl"]);
    }

    // Without the hub nobody joins, and the token is not used up.
    let token = federation.invite("410184", &[]);
    federation.hub.stop();
    let node = Node::new("410184", &federation.dir().join("410184"));
    node.cli(&["join", &token]).expect_failure(&["410100", "cannot be reached", "firewall"]);
    federation.hub.start();
    node.cli(&["join", &token]).expect_code(0);
}

#[test]
fn a_token_of_one_federation_opens_no_other() {
    let (dir, _) = stopped_hub();
    let ours = Federation::hub_only();
    let theirs = Federation::hub_only();
    // A token that names our hub's address but another federation's root.
    let token = theirs.invite("410122", &["--address", &ours.address().to_string()]);
    let node = Node::new("410122", &dir.path().join("410122"));
    let output = node.cli(&["join", &token]).expect_failure(&["410100"]);
    assert!(output.stderr.contains("handshake") || output.stderr.contains("refused"), "{output:?}");
    assert!(!node.dir().join("creditsync.toml").exists());
    assert_eq!(ours.hub.json(&["node", "list"])["nodes"].as_array().unwrap().len(), 1);
}

#[test]
fn an_invitation_needs_an_address_that_members_reach() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Node::new(HUB, &dir.path().join("hub"));
    let init = ["init", "--federation", "test-city", "--node", HUB, "--listen", "0.0.0.0:17443"];
    hub.cli(&init).expect_code(0);
    hub.cli(&["invite", "410122"]).expect_failure(&["--address HOST:PORT", "advertise"]);
    hub.cli(&["invite", "410122", "--address", "nonsense"]).expect_failure(&["--address nonsense"]);
    hub.cli(&["invite", "410122", "--address", "credit.example.org:7443"]).expect_code(0);
    hub.cli(&["invite", HUB, "--address", "a.example:1"]).expect_failure(&[HUB, "this hub itself"]);
    hub.cli(&["invite", "Not Valid", "--address", "a.example:1"]).expect_failure(&["Not Valid"]);
}

/// A stopped hub, and a function that writes a file for it.
fn hub_and_files() -> (TempDir, Node, impl Fn(&str, &[u8]) -> PathBuf) {
    let (dir, hub) = stopped_hub();
    let files = dir.path().to_owned();
    let write = move |name: &str, bytes: &[u8]| {
        let path = files.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    (dir, hub, write)
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let (dir, hub, write) = hub_and_files();
    let import = |file: &PathBuf, options: &[&str]| {
        hub.cli(&[&["import", "enterprise", path_text(file)], options].concat())
    };
    let good = write("good.csv", Table::synthetic(1, 0..3, "一").to_csv().as_bytes());
    let unknown = hub.cli(&["import", "enterprises", path_text(&good)]);
    unknown.expect_failure(&["'enterprises'", "the catalogue has", "enterprise, serious-violators"]);
    hub.cli(&["import", "_federation", path_text(&good)]).expect_failure(&["_federation"]);
    let missing = dir.path().join("missing.csv");
    import(&missing, &[]).expect_failure(&[path_text(&missing), "不存在", "does not exist"]);
    let output = import(&dir.path().to_owned(), &[]);
    output.expect_failure(&["not a regular file"]);
    let header = write("header.csv", "企业名称,统一社会信用代码,电话\n".as_bytes());
    import(&header, &[]).expect_failure(&[path_text(&header), "电话", "3"]);
    let header = write("nokey.csv", "企业名称,注册地址\n甲,乙\n".as_bytes());
    import(&header, &[]).expect_failure(&[path_text(&header), "uscc", "统一社会信用代码"]);
    let twice = write("twice.csv", "企业名称,名称,统一社会信用代码\n".as_bytes());
    import(&twice, &[]).expect_failure(&[path_text(&twice), "企业名称", "名称"]);
    let empty = write("empty.csv", b"");
    import(&empty, &[]).expect_failure(&[path_text(&empty), "空", "empty"]);
    let xlsx = write("book.xlsx", b"PK\x03\x04\x14\x00\x06\x00[Content_Types].xml and more");
    import(&xlsx, &[]).expect_failure(&[path_text(&xlsx), "Excel", "CSV"]);
    import(&good, &["--encoding", "big5"]).expect_failure(&["--encoding big5", "gbk"]);
    // None of them made a partition.
    assert_eq!(hub.partitions(), ["_federation/410100"]);
    hub.cli(&["export", "enterprise/410999"]).expect_failure(&["enterprise/410999", "creditsync status"]);
    hub.cli(&["export", "nothing"]).expect_failure(&["nothing", "the catalogue has"]);
    hub.cli(&["get", "enterprise", "91410100MA00000000"]).expect_failure(&["no origin has"]);
    hub.cli(&["get", "enterprise", "1"]).expect_failure(&["'1'", "enterprise"]);
    hub.cli(&["verify", "enterprise/410999"]).expect_failure(&["enterprise/410999", "creditsync status"]);
    hub.cli(&["delivery", "show", "x-1"]).expect_failure(&["'x-1'", "creditsync delivery list"]);
}

#[test]
fn bad_rows_are_described_and_the_rest_goes_in() {
    let (_dir, hub, write) = hub_and_files();
    let good = |row: u32| synthetic_row(1, row, "一");
    let mut rows = vec![good(0), good(1), good(2), good(3), good(1)];
    rows[2][1] = "91410100MA0".into();
    rows[3][2] = "2023-02-30".into();
    rows[4][0] = "另一个名称".into();
    // One line a row, so that line numbers are easy to tell.
    rows.iter_mut().for_each(|row| row[5] = "经营".into());
    let mut text = csv_text(&ENTERPRISE_TITLES, &rows);
    text.push_str("too,few\n");
    let file = write("rows.csv", text.as_bytes());
    let output = hub.cli(&["import", "enterprise", path_text(&file), "--json"]).expect_code(3);
    let report = output.json();
    let counts = ["rows", "inserted", "rejected", "duplicates", "warnings"];
    assert_eq!(counts.map(|field| report[field].as_u64().unwrap()), [6, 2, 3, 1, 1], "{report:#}");
    let wrong = rejects(&report);
    let rules: Vec<(&str, &str, &str)> =
        wrong.iter().map(|row| (&*row[0], &*row[2], &*row[4])).collect();
    for expected in [
        ("4", "uscc", "uscc-impossible"),
        ("5", "registered_on", "date-impossible"),
        ("3", "", "duplicate-differing"),
        ("7", "", "field-count"),
    ] {
        assert!(rules.contains(&expected), "{expected:?} is not in {rules:?}");
    }
    assert_eq!(wrong.len(), 4);
    assert_eq!(hub.status()["partitions"][1]["records"], 2);
    let stored = Table::parse(&hub.export("enterprise/410100"));
    assert_eq!(stored.0[&rows[4][1]][0], "另一个名称", "the last row of a key wins");
    // For people the same exit code, and where to look.
    let output = hub.cli(&["import", "enterprise", path_text(&file)]).expect_code(3);
    assert!(output.stdout.contains("rejects.csv"), "{output:?}");
}

#[test]
fn personal_values_are_masked_in_rejects_and_logs() {
    let mut federation = Federation::new(&["410122"]);
    let code = synthetic_code(1, 1);
    let secret_name = "欧阳不可见";
    let citizen = "11010519491231002X";
    let row = |number: &str, category: &str, name: &str, document: &str| -> Vec<String> {
        let mut row = vec![String::new(); 25];
        row[0] = "示例公司".into();
        row[1] = category.into();
        row[2] = code.clone();
        row[8] = name.into();
        row[9] = "身份证".into();
        row[10] = document.into();
        row[11] = number.into();
        for (column, value) in [(12, "违法"), (13, "事实"), (14, "依据"), (15, "罚款"), (16, "罚款")] {
            row[column] = value.into();
        }
        row
    };
    let shown = federation.hub.json(&["dataset", "show", "admin-penalty"]);
    let fields: Vec<&str> = shown["field"].as_array().unwrap().iter().map(|one| text(&one["name"])).collect();
    assert_eq!((fields[8], fields[10]), ("CF_FRDB", "CF_FR_ZJHM"), "the layout has changed");
    let mut rows = vec![row("罚1号", "法人及非法人组织", secret_name, citizen)];
    // A control character in each personal field.
    rows.push(row("罚2号", "法人及非法人组织", &format!("{secret_name}\u{1}"), citizen));
    rows.push(row("罚3号", "法人及非法人组织", secret_name, &format!("{citizen}\u{1}")));
    for row in &mut rows {
        row.resize(fields.len(), String::new());
        for field in ["CF_JDRQ", "CF_YXQ", "CF_GSJZQ"] {
            row[fields.iter().position(|name| *name == field).unwrap()] = "2024-01-02".into();
        }
        for field in ["CF_CFJG", "CF_SJLY"] {
            row[fields.iter().position(|name| *name == field).unwrap()] = "示例局".into();
        }
        for field in ["CF_CFJGDM", "CF_SJLYDM"] {
            row[fields.iter().position(|name| *name == field).unwrap()] = code.clone();
        }
    }
    let file = federation.dir().join("penalties.csv");
    std::fs::write(&file, csv_text(&fields, &rows)).unwrap();
    let county = &federation.counties[0];
    let output = county.cli(&["import", "admin-penalty", path_text(&file), "--json"]).expect_code(3);
    let report = output.json();
    assert_eq!((&report["inserted"], &report["rejected"]), (&json!(1), &json!(2)), "{report:#}");
    let wrong = rejects(&report);
    let rejected: Vec<&str> =
        wrong.iter().filter(|row| row[1] == "reject").map(|row| &*row[2]).collect();
    assert_eq!(rejected, ["CF_FRDB", "CF_FR_ZJHM"]);
    let written = std::fs::read_to_string(text(&report["rejects_file"])).unwrap();
    federation.wait_converged();
    for node in federation.counties.iter_mut().chain([&mut federation.hub]) {
        node.stop();
    }
    let logs: String = federation.nodes().map(Node::log).collect();
    for (place, said) in [("rejects", &written), ("logs", &logs), ("stderr", &output.stderr)] {
        assert!(!said.contains(secret_name) && !said.contains(citizen), "{place}: {said}");
    }
    // The owner's own export is not masked.
    assert!(federation.hub.export("admin-penalty/410122").contains(citizen));
}

#[test]
fn a_gbk_file_is_read_as_a_utf8_one() {
    let (_dir, hub, write) = hub_and_files();
    let table = Table::synthetic(1, 0..200, "一");
    let text = table.to_csv();
    let (gbk, _, unmappable) = encoding_rs::GBK.encode(&text);
    assert!(!unmappable);
    let gbk = write("gbk.csv", &gbk);
    assert_eq!(hub.import("enterprise", &gbk)["inserted"], 200);
    assert_eq!(hub.export("enterprise/410100"), table.to_export());
    let utf8 = write("bom.csv", format!("\u{feff}{}", table.to_csv()).as_bytes());
    assert_eq!(hub.import("enterprise", &utf8)["unchanged"], 200);
    let named = ["import", "enterprise", path_text(&gbk), "--encoding", "gbk"];
    assert_eq!(hub.json(&named)["unchanged"], 200);
}

#[test]
fn a_full_file_that_deletes_too_much_waits_for_a_person() {
    let federation = Federation::new(&["410122"]);
    let county = &federation.counties[0];
    let table = Table::synthetic(1, 0..1000, "一");
    county.import("enterprise", &table.write(federation.dir(), "all.csv"));
    federation.wait_converged();
    let hold = |name: &str, rows: std::ops::Range<u32>| {
        let file = Table::synthetic(1, rows, "一").write(federation.dir(), name);
        let import = ["import", "enterprise", path_text(&file), "--full", "--json"];
        let report = county.cli(&import).expect_code(3).json();
        std::fs::remove_file(&file).unwrap();
        report["held"].as_str().unwrap().to_owned()
    };
    let first = hold("most.csv", 0..300);
    let second = hold("none.csv", 0..0);
    assert_ne!(first, second);
    let own = county.partition("enterprise/410122").unwrap();
    assert_eq!((&own["state"], &own["records"]), (&json!("held"), &json!(1000)), "{own:#}");
    let list = county.json(&["delivery", "list"]);
    let mut ids: Vec<&str> =
        list["deliveries"].as_array().unwrap().iter().map(|one| text(&one["id"])).collect();
    ids.sort_unstable();
    let mut expected = [&*first, &*second];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    let shown = county.json(&["delivery", "show", &first]);
    assert_eq!((text(&shown["dataset"]), text(&shown["file"])), ("enterprise", "most.csv"));
    assert!(shown["explanation"].as_str().unwrap().contains("700 of 1000"), "{shown:#}");

    county.cli(&["delivery", "discard", &second]).expect_code(0);
    county.cli(&["delivery", "approve", &second]).expect_failure(&[&second, "creditsync delivery list"]);
    // The delivered file is gone: what was kept of it is what counts.
    let report = county.json(&["delivery", "approve", &first]);
    assert_eq!((&report["deleted"], &report["unchanged"]), (&json!(700), &json!(300)));
    assert_eq!(county.json(&["delivery", "list"]), json!({ "deliveries": [] }));
    federation.wait_converged();
    let expected = Table::synthetic(1, 0..300, "一");
    assert_eq!(federation.hub.export("enterprise/410122"), expected.to_export());
    federation.finish();
}
