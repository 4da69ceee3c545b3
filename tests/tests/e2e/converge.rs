//! What counties import is at the hub, exactly; what the hub publishes is at
//! the counties; and the status says so.

use harness::{
    federation::{Federation, HUB},
    node::{Node, wait_until},
    table::{ENTERPRISE_FIELDS, Table, synthetic_code, synthetic_row},
};
use serde_json::{Value as Json, json};

/// The hub's copy of `county`'s enterprises is `expected`, byte by byte.
#[track_caller]
fn assert_content(federation: &Federation, county: &Node, expected: &Table) {
    let export = federation.hub.export(&county.own("enterprise"));
    assert_eq!(Table::parse(&export), *expected);
    assert_eq!(export, expected.to_export(), "schema order, key order, canonical values");
    assert_eq!(county.export(&county.own("enterprise")), export);
}

/// The counts of a report that has nothing to complain about.
fn counts(report: &Json) -> [u64; 5] {
    for field in ["rejected", "duplicates", "warnings"] {
        assert_eq!(report[field], 0, "{report:#}");
    }
    assert_eq!(report["held"], Json::Null, "{report:#}");
    ["rows", "inserted", "updated", "deleted", "unchanged"]
        .map(|field| report[field].as_u64().expect("counts are numbers"))
}

#[test]
fn deliveries_arrive_as_they_are() {
    let federation = Federation::new(&["410122", "410181"]);
    let (first, second) = (&federation.counties[0], &federation.counties[1]);
    let dir = federation.dir();

    let mut expected = Table::synthetic(1, 0..2500, "一");
    let report = first.import("enterprise", &expected.write(dir, "first.csv"));
    assert_eq!(counts(&report), [2500, 2500, 0, 0, 0]);
    assert_eq!(report["seq"], report["change_sets"]);
    let others = Table::synthetic(2, 0..300, "一");
    second.import("enterprise", &others.write(dir, "others.csv"));
    federation.wait_converged();
    assert_content(&federation, first, &expected);
    assert_content(&federation, second, &others);
    // Whoever is invited as a county that has delivered is told so.
    let again = federation.hub.cli(&["invite", "410122"]).expect_code(0);
    assert!(again.stderr.contains("is a member already"), "{}", again.stderr);

    // An upsert: 40 changed, 10 new, 50 as they were; nothing is deleted.
    let mut upsert = Table::synthetic(1, 100..140, "二");
    upsert.put_all(&Table::synthetic(1, 140..190, "一"));
    upsert.put_all(&Table::synthetic(1, 2500..2510, "二"));
    let report = first.import("enterprise", &upsert.write(dir, "upsert.csv"));
    assert_eq!(counts(&report), [100, 10, 40, 0, 50]);
    expected.put_all(&upsert);
    federation.wait_converged();
    assert_content(&federation, first, &expected);

    // A full file: the first 60 gone, 30 changed, 20 new.
    for row in 0..60 {
        expected.0.remove(&synthetic_code(1, row));
    }
    expected.put_all(&Table::synthetic(1, 1000..1030, "三"));
    expected.put_all(&Table::synthetic(1, 3000..3020, "三"));
    let full = expected.write(dir, "full.csv");
    let report = first.import_full("enterprise", &full);
    assert_eq!(counts(&report), [2470, 20, 30, 60, 2420]);
    federation.wait_converged();
    assert_content(&federation, first, &expected);
    assert_content(&federation, second, &others);

    // The same file again, in both ways: nothing happens.
    let before = first.partition("enterprise/410122");
    for report in [first.import_full("enterprise", &full), first.import("enterprise", &full)] {
        assert_eq!(counts(&report), [2470, 0, 0, 0, 2470]);
        assert_eq!(report["change_sets"], 0);
        assert_eq!(Some(&report["seq"]), before.as_ref().map(|before| &before["seq"]));
    }
    assert_eq!(first.partition("enterprise/410122"), before);

    let rows = |county: &Node, table: &Table| -> Vec<Json> {
        let with_origin = |row: &Vec<String>| {
            let mut object = json!({ "_origin": county.name() });
            for (field, text) in ENTERPRISE_FIELDS.iter().zip(row) {
                object[field] = if text.is_empty() { Json::Null } else { json!(text) };
            }
            object
        };
        table.0.values().map(with_origin).collect()
    };
    let all = [rows(first, &expected), rows(second, &others)].concat();
    let lines = federation.hub.cli(&["export", "enterprise", "--format", "jsonl"]).expect_code(0);
    let lines: Vec<Json> =
        lines.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, all);
    let header = federation.hub.export("enterprise");
    assert!(header.starts_with("_origin,name,uscc,registered_on,"), "{}", &header[..80]);
    federation.finish();
}

#[test]
fn a_large_first_load_is_taken_as_pages() {
    let mut federation = Federation::new(&["410122"]);
    let table = Table::synthetic(1, 0..25_000, "一");
    let file = table.write(federation.dir(), "large.csv");
    federation.hub.stop();
    let county = &federation.counties[0];
    assert_eq!(counts(&county.import("enterprise", &file)), [25_000, 25_000, 0, 0, 0]);
    let own = county.partition("enterprise/410122").unwrap();
    assert_eq!((&own["acked"], &own["behind_change_sets"]), (&json!([]), &own["seq"]));
    federation.hub.start();
    federation.wait_converged();
    assert!(federation.hub.log().contains("the whole state is here"), "no bootstrap happened");
    assert_content(&federation, &federation.counties[0], &table);

    // What comes afterwards arrives as change sets.
    let mut table = table;
    table.put(synthetic_row(1, 17, "二"));
    let county = &federation.counties[0];
    let one =
        Table(table.0.range(synthetic_code(1, 17)..=synthetic_code(1, 17)).map(own_pair).collect());
    assert_eq!(
        counts(&county.import("enterprise", &one.write(federation.dir(), "one.csv"))),
        [1, 0, 1, 0, 0]
    );
    federation.wait_converged();
    assert_content(&federation, county, &table);
    assert_eq!(federation.hub.log().matches("fetching the whole state").count(), 1);
    federation.finish();
}

fn own_pair<'a>((key, row): (&'a String, &'a Vec<String>)) -> (String, Vec<String>) {
    (key.clone(), row.clone())
}

#[test]
fn the_status_tells_who_holds_what() {
    let mut federation = Federation::new(&["410122", "410181"]);
    let table = Table::synthetic(1, 0..200, "一");
    let file = table.write(federation.dir(), "200.csv");
    federation.counties[0].import("enterprise", &file);
    federation.wait_converged();
    let seq_at_hub = federation.hub.partition("enterprise/410122").unwrap()["seq"].clone();

    // The hub sees a county go, and keeps what it has.
    federation.counties[0].stop();
    wait_until("the hub has noticed", || {
        federation.hub.partition("enterprise/410122").unwrap()["state"] == "behind"
    });
    let copy = federation.hub.partition("enterprise/410122").unwrap();
    assert!(copy["reason"].as_str().unwrap().starts_with("offline"), "{copy:#}");
    assert_eq!(copy["records"], 200);
    let peers = federation.hub.status()["peers"].clone();
    let connected: Vec<(&Json, &Json)> =
        peers.as_array().unwrap().iter().map(|peer| (&peer["node"], &peer["connected"])).collect();
    assert_eq!(connected, [(&json!("410122"), &json!(false)), (&json!("410181"), &json!(true))]);

    // The county works on without its daemon, three files.
    let mut expected = table;
    for (index, batch) in ["二", "三", "四"].into_iter().enumerate() {
        let first = u32::try_from(index).unwrap() * 50;
        let delivery = Table::synthetic(1, first..first + 100, batch);
        let file = delivery.write(federation.dir(), &format!("{batch}.csv"));
        federation.counties[0].import("enterprise", &file);
        expected.put_all(&delivery);
    }
    let own = federation.counties[0].partition("enterprise/410122").unwrap();
    assert_eq!(own["state"], "origin");
    let behind = own["seq"].as_u64().unwrap() - seq_at_hub.as_u64().unwrap();
    assert_eq!((behind, &own["behind_change_sets"]), (3, &json!(3)));
    assert_eq!(own["acked"][0]["node"], HUB);
    assert_eq!(own["acked"][0]["seq"], seq_at_hub);
    assert_eq!(federation.hub.partition("enterprise/410122").unwrap()["seq"], seq_at_hub);

    federation.counties[0].start();
    federation.wait_converged();
    assert_content(&federation, &federation.counties[0], &expected);

    // The other way round: the county sees the hub go.
    federation.hub.stop();
    wait_until("the county has noticed", || {
        federation.counties[1].partition("_federation/410100").unwrap()["state"] == "behind"
    });
    federation.hub.start();
    federation.finish();
}

#[test]
fn the_hubs_own_records_reach_everybody_and_nobody_elses_do() {
    let federation = Federation::new(&["410122", "410181"]);
    let dir = federation.dir();
    let mine = Table::synthetic(9, 0..120, "市");
    federation.hub.import("enterprise", &mine.write(dir, "hub.csv"));
    let mut first = Table::synthetic(1, 0..50, "一");
    // The same company, seen differently by three offices.
    let shared = synthetic_code(9, 7);
    let mut seen = synthetic_row(9, 7, "县一所见");
    first.put(seen.clone());
    federation.counties[0].import("enterprise", &first.write(dir, "first.csv"));
    "县二所见".clone_into(&mut seen[0]);
    let mut second = Table::default();
    second.put(seen);
    federation.counties[1].import("enterprise", &second.write(dir, "second.csv"));
    federation.wait_converged();

    for county in &federation.counties {
        assert_eq!(county.export("enterprise/410100"), mine.to_export());
        let own = county.own("enterprise");
        let expected = ["_federation/410100", "enterprise/410100", &own];
        assert_eq!(county.partitions(), expected);
        county.cli(&["import", "enterprise/410100", "x.csv"]).expect_code(1);
    }
    let expected =
        ["_federation/410100", "enterprise/410100", "enterprise/410122", "enterprise/410181"];
    assert_eq!(federation.hub.partitions(), expected);

    let names = |node: &Node| -> Vec<(String, String)> {
        let found = node.json(&["get", "enterprise", &shared]);
        let text = |value: &Json| value.as_str().unwrap().to_owned();
        let found = found.as_array().unwrap().iter();
        found.map(|one| (text(&one["origin"]), text(&one["record"]["name"]))).collect()
    };
    let at_hub = names(&federation.hub);
    assert_eq!(
        at_hub,
        [
            ("410100".into(), mine.0[&shared][0].clone()),
            ("410122".into(), first.0[&shared][0].clone()),
            ("410181".into(), second.0[&shared][0].clone()),
        ]
    );
    assert_eq!(names(&federation.counties[0]), at_hub[..2]);
    assert_eq!(names(&federation.counties[1]), [at_hub[0].clone(), at_hub[2].clone()]);
    federation.finish();
}

const PERMITS: &str = r#"
dataset = "food-permits"
version = 1
title_zh = "食品经营许可"
title_en = "Food permits"
key = ["number", "issued_on"]

[[field]]
name = "number"
title_zh = "许可证编号"
title_en = "Permit number"
type = "code"
required = true

[[field]]
name = "issued_on"
title_zh = "发证日期"
title_en = "Issued on"
type = "date"
required = true

[[field]]
name = "seats"
title_zh = "餐位数"
title_en = "Seats"
type = "integer"
"#;

#[test]
fn a_new_dataset_is_known_everywhere() {
    let mut federation = Federation::new(&["410122", "410181"]);
    let schema = federation.dir().join("permits.toml");
    std::fs::write(&schema, PERMITS).unwrap();
    let apply = ["dataset", "apply", schema.to_str().unwrap()];
    federation.counties[0].cli(&apply).expect_failure(&["hub", HUB]);
    assert_eq!(federation.hub.json(&apply)["changed"], true);
    assert_eq!(federation.hub.json(&apply)["changed"], false);
    federation.wait_converged();

    let known = |node: &Node| {
        let list = node.json(&["dataset", "list"]);
        let list = list["datasets"].as_array().unwrap();
        list.iter().any(|one| one["dataset"] == "food-permits" && one["version"] == 1)
    };
    assert!(federation.nodes().all(known));
    let file = federation.dir().join("permits.csv");
    std::fs::write(
        &file,
        "许可证编号,Issued on,seats\nJY001,2024/1/5,\"1,200\"\nJY001,20240106,\n",
    )
    .unwrap();
    let report = federation.counties[1].import("food-permits", &file);
    assert_eq!(report["inserted"], 2, "{report:#}");
    federation.wait_converged();
    assert_eq!(
        federation.hub.export("food-permits/410181"),
        "number,issued_on,seats\nJY001,2024-01-05,1200\nJY001,2024-01-06,\n"
    );
    let found = federation.hub.json(&["get", "food-permits", "JY001", "2024-01-05"]);
    assert_eq!(found[0]["record"]["seats"], 1200);

    // A county that joins now knows it from the beginning.
    federation.add_county("410182");
    assert!(known(&federation.counties[2]));
    federation.wait_converged();
    let members = federation.hub.json(&["node", "list"]);
    for county in &federation.counties {
        let told = county.json(&["node", "list"]);
        let names = |list: &Json| -> Vec<(Json, Json)> {
            let nodes = list["nodes"].as_array().unwrap();
            nodes.iter().map(|node| (node["node"].clone(), node["signing_keys"].clone())).collect()
        };
        assert_eq!(names(&told), names(&members));
        assert_eq!(names(&told).len(), 4);
    }
    federation.finish();
}
