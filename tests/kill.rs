//! SIGKILL at random moments, under load, while AWS misbehaves: what AWS bills is what was acknowledged.
//!
//! One pod, one state folder, many processes one after the other. Clients report without pause, each in its own way, and
//! repeat an unanswered report under the same key until it is answered. AWS loses requests and answers, fails before and
//! after counting, throttles and dawdles. Hours are a second long. At the end AWS is well, a person who knows what AWS has
//! decides what is in doubt, the process is drained and started until nothing is open, and then the bill is compared
//! with what the clients were told, to the millionth.
//!
//! `KILLS` sets how many processes are killed, `KILL_SEED` repeats a run's decisions.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

#[allow(dead_code, reason = "shared with tests/sidecar, which uses all of it")]
#[path = "sidecar/aws.rs"]
mod aws;
#[path = "kill/clients.rs"]
mod clients;
#[path = "kill/expected.rs"]
mod expected;
#[allow(dead_code, reason = "shared with tests/sidecar, which uses all of it")]
#[path = "sidecar/pod.rs"]
mod pod;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws::Aws;
use clients::{Load, Shared};
use expected::Expected;
use pod::{Pod, Sidecar, poll};
use serde_json::{Value, json};

pub(crate) const PERIOD_MS: i64 = 1000;
pub(crate) const STRAGGLER_WAIT_MS: i64 = 200;
const KILLS_DEFAULT: u64 = 40;
/// Restarts until nothing is open; each lasts a good part of an hour.
const DRAINS_MAX: usize = 20;

#[test]
fn what_aws_bills_is_what_was_acknowledged() {
    let kills = number("KILLS").unwrap_or(KILLS_DEFAULT);
    let seed = number("KILL_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("KILL_SEED={seed} KILLS={kills}");
    let mut random = fastrand::Rng::with_seed(seed);
    let aws = Aws::with_hours_of(
        Duration::from_millis(PERIOD_MS.unsigned_abs()),
        &["requests", "gb", "tagged", "users", "seats", "hosts"],
    );
    let mut weather = Weather::new(&aws);
    let pod = pod(&aws);
    // Usage counts from the beginning of the pod's first process on: the clients begin after it.
    let mut first = pod.start();
    first.answers("/readyz", 200);
    let load = Load::start(pod.metering, seed);
    drop(first);
    let mut kill = 0;
    // An outage that has begun goes on to its end.
    while kill < kills || weather.outage_begun.is_some() {
        let moment = weather
            .change(kill)
            .unwrap_or_else(|| some_moment(&mut random));
        load.is_well();
        load.allow(random.u64(5..80));
        let sidecar = pod.start();
        wait_for(&moment, &mut random, &aws, &sidecar, load.shared());
        drop(sidecar);
        kill += 1;
        assert!(
            !pod.log().contains("damaged-"),
            "a ledger that was killed is not damaged:\n{}",
            pod.log()
        );
    }
    aws.clear_faults();
    let expected = finish(&pod, load);
    let (drains, doubts, listed) = drain(&pod, &aws);
    keep_for_a_post_mortem(&expected, &listed, &aws, &pod);
    eprintln!(
        "{kill} kills, {drains} drains, {doubts} records were in doubt, {} AWS calls, {} records; {expected}",
        aws.count("MeterUsage"),
        aws.records().len()
    );
    assert!(
        expected.acknowledged > kills && expected.unanswered > 0,
        "there was load: {expected}"
    );
    assert!(
        doubts > 0 || kills < KILLS_DEFAULT,
        "an outage outlasts AWS's six hours"
    );
    expected.compare(&aws.records());
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("KILLS and KILL_SEED are numbers"))
}

fn pod(aws: &Aws) -> Pod {
    Pod::new(aws)
        .with("TOLLGATE_METERING_PERIOD", &format!("{PERIOD_MS}ms"))
        .with("TOLLGATE_STRAGGLER_WAIT", &format!("{STRAGGLER_WAIT_MS}ms"))
        .with("TOLLGATE_SUBMIT_JITTER", "100ms")
        .with(
            "TOLLGATE_DIMENSIONS",
            "requests,gb,tagged,users:max,seats:last,hosts:distinct",
        )
        .with("TOLLGATE_LOG", "warn")
}

/// How AWS is: unreliable, and now and then away for longer than it takes a record.
struct Weather<'a> {
    aws: &'a Aws,
    outage_begun: Option<Instant>,
}

impl<'a> Weather<'a> {
    fn new(aws: &'a Aws) -> Self {
        misbehave(aws);
        Self {
            aws,
            outage_begun: None,
        }
    }

    /// Lets an outage begin with some of the kills, and end in its time. Where it says so, the process has to be killed
    /// while AWS has counted a record and not answered yet.
    fn change(&mut self, kill: u64) -> Option<Moment> {
        const OUTAGE: Duration = Duration::from_millis(7_500);
        if let Some(begun) = self.outage_begun {
            if begun.elapsed() > OUTAGE {
                self.outage_begun = None;
                self.aws.clear_faults();
                misbehave(self.aws);
            }
            return None;
        }
        let fault = |kind: &str| json!({"operation": "MeterUsage", "kind": kind});
        let (fault, moment) = match kill % 60 {
            // What is counted here is throttled to the end of its window below: nothing but doubt tells it from what is not.
            3 => {
                let mut fault = fault("delay");
                fault["delay_ms"] = json!(2000);
                (fault, Some(Moment::Call))
            }
            4 => {
                let mut fault = fault("error");
                fault["error"] = json!("ThrottlingException");
                (fault, None)
            }
            25 => (fault("connection-reset"), None),
            44 => (fault("reply-lost"), None),
            _ => return None,
        };
        self.aws.clear_faults();
        self.aws.add_fault(fault);
        self.outage_begun = moment.is_none().then(Instant::now);
        moment
    }
}

/// Each kind of trouble strikes some of the calls.
fn misbehave(aws: &Aws) {
    for (kind, rate) in [
        ("reply-lost", 0.06),
        ("connection-reset", 0.06),
        ("internal-error", 0.06),
        ("internal-error-after", 0.06),
        ("truncated", 0.04),
        ("unavailable-page", 0.03),
        ("html-page", 0.03),
    ] {
        aws.add_fault(json!({"operation": "MeterUsage", "kind": kind, "rate": rate}));
    }
    aws.add_fault(json!({"operation": "MeterUsage", "kind": "error", "error": "ThrottlingException", "rate": 0.08}));
    aws.add_fault(
        json!({"operation": "MeterUsage", "kind": "delay", "delay_ms": 120, "rate": 0.2}),
    );
}

/// A moment of the process's life.
enum Moment {
    Early,
    Reports,
    Call,
    Drain,
}

fn some_moment(random: &mut fastrand::Rng) -> Moment {
    match random.u8(0..4) {
        0 => Moment::Early,
        1 => Moment::Reports,
        2 => Moment::Call,
        _ => Moment::Drain,
    }
}

fn wait_for(
    moment: &Moment,
    random: &mut fastrand::Rng,
    aws: &Aws,
    sidecar: &Sidecar<'_>,
    load: &Shared,
) {
    let some_reports = load.acknowledged() + random.u64(1..60);
    let reports = || (load.acknowledged() >= some_reports || load.is_idle()).then_some(());
    match moment {
        Moment::Early => pass(Duration::from_micros(random.u64(0..150_000))),
        Moment::Reports => poll(reports).expect("reports are taken"),
        Moment::Call => {
            let calls = aws.count("MeterUsage") + random.usize(1..4);
            poll(|| (aws.count("MeterUsage") >= calls).then_some(())).expect("records are sent");
        }
        Moment::Drain => {
            poll(reports).expect("reports are taken");
            sidecar.signal("TERM");
            pass(Duration::from_micros(random.u64(0..800_000)));
        }
    }
    let begun = Instant::now();
    let moment = Duration::from_micros(random.u64(0..10_000));
    while begun.elapsed() < moment {
        std::hint::spin_loop();
    }
}

fn pass(time: Duration) {
    let begun = Instant::now();
    poll(|| (begun.elapsed() >= time).then_some(())).expect("time passes");
}

/// Lets every client get its last answer, and asks what they were told.
fn finish(pod: &Pod, load: Load) -> Expected {
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    let expected = load.finish();
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), 0, "{}", pod.log());
    expected
}

/// Starts and stops until nothing is open, sealed or in doubt; says how often, how many records were in doubt, and
/// what `tollgate usage` lists at last.
fn drain(pod: &Pod, aws: &Aws) -> (usize, usize, Vec<Value>) {
    let mut doubts = 0;
    for drains in 1..=DRAINS_MAX {
        let mut sidecar = pod.start();
        sidecar.answers("/readyz", 200);
        doubts += decide_doubts(pod, aws);
        let listed = usage(pod);
        let finished = !listed.iter().any(is_unfinished);
        sidecar.signal("TERM");
        assert_eq!(sidecar.ends(), 0, "{}", pod.log());
        if finished {
            return (drains, doubts, listed);
        }
    }
    panic!("something is never finished; log:\n{}", pod.log());
}

fn is_unfinished(record: &Value) -> bool {
    match record["state"].as_str().unwrap() {
        "open" => record["quantity"] != "0",
        "settled" | "rolled_forward" => false,
        "sealed" | "in_doubt" => true,
        other => panic!("{other} is no state that these faults lead to: {record}"),
    }
}

/// Decides each record in doubt as someone does who sees what AWS has billed; says how many there were.
fn decide_doubts(pod: &Pod, aws: &Aws) -> usize {
    let mut doubts = 0;
    let billed: BTreeMap<(String, jiff::Timestamp), u128> = aws
        .records()
        .into_iter()
        .map(|record| ((record.dimension, record.hour), record.quantity.0))
        .collect();
    for record in usage(pod) {
        if record["state"] != "in_doubt" {
            continue;
        }
        doubts += 1;
        let text = |field: &str| record[field].as_str().unwrap().to_owned();
        let hour = (text("dimension"), text("hour").parse().unwrap());
        let decision = match billed.get(&hour) {
            Some(quantity) => {
                assert_eq!(*quantity, expected::millionths(&text("quantity")));
                "--delivered"
            }
            None => "--not-delivered",
        };
        let id = record["id"].to_string();
        let (code, output) = pod.run(&["usage", "resolve", &id, decision]);
        assert_eq!(code, 0, "{output}");
    }
    doubts
}

/// Where the bill is wrong, this says in which hour and how it came about.
fn keep_for_a_post_mortem(expected: &Expected, listed: &[Value], aws: &Aws, pod: &Pod) {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("kill");
    std::fs::create_dir_all(&folder).unwrap();
    let billed: Vec<_> = aws.records().iter().map(|record| json!(record)).collect();
    for (name, content) in [
        ("expected", format!("{expected:#?}")),
        ("usage.json", format!("{:#}", json!(listed))),
        ("billed.json", format!("{:#}", json!(billed))),
        ("log", pod.log()),
    ] {
        std::fs::write(folder.join(name), content).unwrap();
    }
    eprintln!("{} has the details", folder.display());
}

fn usage(pod: &Pod) -> Vec<Value> {
    let (code, output) = pod.run(&["usage", "--format", "json"]);
    assert_eq!(code, 0, "{output}");
    serde_json::from_str(&output).expect("a list of records")
}
