//! The audit log of real processes.

use serde_json::{Value, json};

use crate::fleet::Instance;

fn events(of: &Instance) -> Vec<String> {
    let records = of.json(&["audit"]);
    let event = |record: &Value| record["event"].as_str().unwrap().to_owned();
    records.as_array().unwrap().iter().map(event).collect()
}

#[test]
fn an_instance_records_its_beginning_and_every_start_and_end() {
    let mut hub = Instance::new("hub");
    assert_eq!(events(&hub), ["initialized"]);
    hub.serve("127.0.0.1:0");
    hub.stop("TERM");
    hub.serve("none");
    hub.kill();
    hub.serve("none");
    hub.stop("INT");
    let expected = ["initialized", "started", "stopped", "started", "started", "stopped"];
    assert_eq!(events(&hub), expected);
    let details = hub.json(&["audit"]);
    assert!(!details[3]["detail"].as_str().unwrap().contains("without a word"));
    assert!(details[4]["detail"].as_str().unwrap().contains("without a word"));
    assert!(details[0]["detail"].as_str().unwrap().contains("the key is new"));
}

#[test]
fn since_leaves_out_what_is_older() {
    let hub = Instance::new("hub");
    hub.ok(&["pair", "token"]);
    assert_eq!(hub.json(&["audit", "--since", "1h"]), hub.json(&["audit"]));
    assert_eq!(hub.json(&["audit", "--since", "2099-01-01"]), json!([]));
}

#[test]
fn verify_says_what_does_not_fit_and_exits_20() {
    let hub = Instance::new("hub");
    for _ in 0..3 {
        hub.ok(&["pair", "token"]);
    }
    let good = hub.json(&["audit", "--verify"]);
    let records = hub.json(&["audit"]);
    let last = records[3]["chain"].clone();
    assert_eq!(good, json!({"equal": true, "count": "4", "bad_id": null, "fault": "", "chain": last}));
    let tamper = |sql: &str| {
        rusqlite::Connection::open(hub.dir.join("opmesh.db")).unwrap().execute_batch(sql).unwrap();
    };
    tamper(
        "DELETE FROM audit WHERE number = 4; UPDATE audit_head SET records = 3,
            hash = (SELECT hash FROM audit WHERE number = 3)",
    );
    assert_eq!(hub.code(&["audit", "--verify"]), 20);
    let found = hub.json(&["audit", "--verify"]);
    assert_eq!((&found["bad_id"], &found["fault"]), (&json!("4"), &json!("beside")));
    tamper("UPDATE audit SET detail = 'nothing' WHERE number = 2");
    let found = hub.json(&["audit", "--verify"]);
    assert_eq!((&found["bad_id"], &found["fault"]), (&json!("2"), &json!("chain")));
}
