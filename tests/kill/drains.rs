//! The end: every client has its last answer, nothing is open, and a person decides what is in doubt.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;

use marketplace_simulator::meter::AllocationRecord;
use marketplace_simulator::quantity::Millionths;
use serde_json::Value;

use crate::aws::Aws;
use crate::clients::Load;
use crate::expected::{self, Billed, Expected, POD};
use crate::pod::{Pod, exchange_on};

/// Restarts until nothing is open; each lasts a good part of an hour.
const DRAINS_MAX: usize = 20;

/// Lets every client get its last answer, and asks what they were told.
pub fn finish(pod: &Pod, load: Load) -> Expected {
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    let expected = load.finish();
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), 0, "{}", pod.log());
    expected
}

/// What it came to when nothing was open, sealed or in doubt any more.
#[derive(Default)]
pub struct Drained {
    /// Starts and stops.
    pub drains: usize,
    /// Records that were in doubt.
    pub doubts: usize,
    /// What AWS has not taken, of customers that it did not call subscribed until it took that hour no more.
    pub rejected: Vec<Billed>,
}

/// Starts and stops until nothing is open, sealed or in doubt.
pub fn drain(pod: &Pod, aws: &Aws) -> Drained {
    let mut drained = Drained::default();
    while drained.drains < DRAINS_MAX {
        drained.drains += 1;
        let mut sidecar = pod.start();
        sidecar.answers("/readyz", 200);
        drained.doubts += decide_doubts(pod, aws);
        let records = pod.usage();
        sidecar.signal("TERM");
        assert_eq!(sidecar.ends(), 0, "{}", pod.log());
        if !records.iter().any(is_unfinished) {
            let rejected = records
                .iter()
                .filter(|record| record["state"] == "rejected");
            drained.rejected = rejected.map(read_rejected).collect();
            return drained;
        }
    }
    panic!("something is never finished; log:\n{}", pod.log());
}

fn is_unfinished(record: &Value) -> bool {
    match record["state"].as_str().unwrap() {
        "open" => record["quantity"] != "0",
        "settled" | "rolled_forward" => false,
        "sealed" | "in_doubt" => true,
        "rejected" if record["code"] == "CustomerNotSubscribed" => false,
        other => panic!("{other} is no state that these faults lead to: {record}"),
    }
}

fn read_rejected(record: &Value) -> Billed {
    let quantity = |of: &Value| expected::millionths(of["quantity"].as_str().unwrap());
    let allocations = record["allocations"].as_array().unwrap().iter();
    Billed {
        who: who(record),
        dimension: record["dimension"].as_str().unwrap().to_owned(),
        hour: record["hour"].as_str().unwrap().parse().unwrap(),
        quantity: quantity(record),
        allocations: allocations
            .map(|part| AllocationRecord {
                tags: serde_json::from_value::<Option<Vec<_>>>(part["tags"].clone())
                    .unwrap()
                    .into_iter()
                    .flatten()
                    .collect(),
                quantity: Millionths(quantity(part)),
            })
            .collect(),
    }
}

fn who(record: &Value) -> String {
    let names = [&record["customer_identifier"], &record["license_arn"]];
    let name = names.iter().find_map(|name| name.as_str());
    name.unwrap_or(POD).to_owned()
}

/// Decides each record in doubt as someone does who sees what AWS has billed; says how many there were.
pub fn decide_doubts(pod: &Pod, aws: &Aws) -> usize {
    let mut doubts = 0;
    // What is in doubt now, AWS counts no more.
    let records = pod.usage();
    let bill: BTreeMap<_, u128> = expected::bill(aws)
        .into_iter()
        .map(|record| ((record.who, record.dimension, record.hour), record.quantity))
        .collect();
    for record in records {
        if record["state"] != "in_doubt" {
            continue;
        }
        doubts += 1;
        let text = |field: &str| record[field].as_str().unwrap().to_owned();
        let hour = (
            who(&record),
            text("dimension"),
            text("hour").parse().unwrap(),
        );
        let decision = match bill.get(&hour) {
            Some(quantity) => {
                assert_eq!(*quantity, expected::millionths(&text("quantity")));
                "delivered"
            }
            None => "not-delivered",
        };
        resolve(pod, &record["id"], decision);
    }
    doubts
}

/// What `tollgate usage resolve` asks of the running process; a process for each of a thousand would take minutes.
fn resolve(pod: &Pod, id: &Value, decision: &str) {
    let socket = UnixStream::connect(pod.path("state/control.sock")).unwrap();
    let request = format!(
        "POST /usage/{id}/{decision} HTTP/1.1\r\nhost: control\r\nconnection: close\r\n\r\n"
    );
    let (code, answer) = exchange_on(socket, &request).expect("an answer");
    assert_eq!(code, 200, "{answer}");
}
