//! Every answer of AWS to a record: what follows, and what `tollgate usage`, GET /v1/usage/ID and /status show of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::aws::Aws;
use crate::pod::{Pod, Sidecar, poll};

/// AWS takes a record for six of these.
const PERIOD: Duration = Duration::from_millis(500);

struct Scene {
    aws: Aws,
    pod: Pod,
}

impl Scene {
    /// An entitled pod with hours of half a second.
    fn new() -> Self {
        let aws = Aws::with_hours_of(PERIOD, &["requests"]);
        let pod = Pod::new(&aws).with_hours_of(PERIOD);
        Self { aws, pod }
    }

    fn start(&self) -> Sidecar<'_> {
        let mut sidecar = self.pod.start();
        sidecar.answers("/readyz", 200);
        sidecar
    }

    fn report(&self) -> String {
        self.pod
            .reported(&json!({"dimension": "requests", "quantity": "1.25"}))
    }

    /// Polls until AWS has been called so often about records.
    fn is_called(&self, times: usize) {
        poll(|| (self.aws.count("MeterUsage") >= times).then_some(()))
            .unwrap_or_else(|| panic!("never called; log:\n{}", self.pod.log()));
    }

    /// The one record in `state`, as `tollgate usage` lists it.
    fn record(&self, state: &str) -> Value {
        let found = poll(|| {
            self.pod
                .usage()
                .into_iter()
                .find(|record| record["state"] == state)
        });
        found.unwrap_or_else(|| panic!("none {state}: {:?}", self.pod.usage()))
    }

    fn metering_status(&self) -> Value {
        let (_, status) = self.pod.get("/status").unwrap();
        serde_json::from_str::<Value>(&status).unwrap()["metering"].clone()
    }

    /// The usage is billed in the end, once.
    fn is_billed_once(&self) {
        let billed = || (self.aws.billed("requests") == 1_250_000).then_some(());
        poll(billed).unwrap_or_else(|| panic!("not billed: {:?}", self.pod.usage()));
        let unfinished = |record: &Value| record["state"] == "sealed";
        poll(|| (!self.pod.usage().iter().any(unfinished)).then_some(())).expect("it is settled");
        assert_eq!(self.aws.billed("requests"), 1_250_000);
    }
}

fn fault(kind: &str) -> Value {
    json!({"operation": "MeterUsage", "kind": kind})
}

fn error(name: &str) -> Value {
    json!({"operation": "MeterUsage", "kind": "error", "error": name})
}

fn once(mut fault: Value) -> Value {
    fault["count"] = json!(1);
    fault
}

#[test]
fn success_settles_and_shows_awss_record_id() {
    let scene = Scene::new();
    let _sidecar = scene.start();
    let id = scene.report();
    let found = scene.pod.finds(&id, "settled");
    let billed = scene.aws.bills(1).remove(0);
    assert_eq!(found["aws_record_id"], billed.record_id);
    assert_eq!(found["quantity"], "1.25");
    assert_eq!(found["id"], id);
    let listed = scene.record("settled");
    assert_eq!(listed["aws_record_id"], billed.record_id);
    assert_eq!(listed["hour"], billed.hour.to_string());
    assert_eq!(
        (&listed["attempts"], &listed["identity"]),
        (&json!(1), &json!("pod-1"))
    );
    let status = scene.metering_status();
    assert_eq!(
        (&status["settled"], &status["sealed"]),
        (&json!(1), &json!(0))
    );
    assert!(status["last_settled_at"].is_string() && status["oldest_unsettled_at"].is_null());
}

#[test]
fn the_list_comes_as_table_json_and_csv() {
    let scene = Scene::new();
    let sidecar = scene.start();
    let id = scene.report();
    let aws_id = scene.pod.finds(&id, "settled")["aws_record_id"].clone();
    let aws_id = aws_id.as_str().unwrap();
    let (code, table) = scene.pod.run(&["usage"]);
    assert_eq!(code, 0);
    let lines: Vec<_> = table.lines().collect();
    assert!(
        lines[0].starts_with("id  state") && lines.len() == 2,
        "{table}"
    );
    assert!(lines[1].contains("settled") && lines[1].contains("1.25") && lines[1].contains(aws_id));
    let (code, csv) = scene.pod.run(&["usage", "--format", "csv"]);
    assert_eq!(code, 0);
    let rows: Vec<Vec<_>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(
        rows[0][..5],
        ["id", "state", "dimension", "hour", "quantity"]
    );
    assert_eq!(rows[1][1..3], ["settled", "requests"]);
    assert_eq!(rows[0].len(), rows[1].len());
    drop(sidecar);
    let (code, output) = scene.pod.run(&["usage"]);
    assert_eq!(code, 75);
    assert!(output.contains("no sidecar answers"), "{output}");
}

#[test]
fn failures_after_counting_settle_by_the_identical_repeat() {
    for kind in ["reply-lost", "internal-error-after", "truncated"] {
        let scene = Scene::new();
        let _sidecar = scene.start();
        scene.aws.add_fault(once(fault(kind)));
        let id = scene.report();
        scene.pod.finds(&id, "settled");
        scene.is_billed_once();
        let requests = scene.aws.requests();
        assert!(requests.len() >= 2, "{kind}");
        assert!(
            requests.iter().all(|request| *request == requests[0]),
            "{kind}: {requests:?}"
        );
    }
}

#[test]
fn failures_before_counting_settle_by_the_identical_repeat() {
    for kind in [
        "connection-reset",
        "internal-error",
        "unavailable-page",
        "html-page",
        "garbage",
    ] {
        let scene = Scene::new();
        let _sidecar = scene.start();
        scene.aws.add_fault(once(fault(kind)));
        let id = scene.report();
        scene.pod.finds(&id, "settled");
        scene.is_billed_once();
    }
}

#[test]
fn throttling_is_waited_out_and_rolls_forward_after_six_hours() {
    let scene = Scene::new();
    let _sidecar = scene.start();
    scene.aws.add_fault(error("ThrottlingException"));
    let id = scene.report();
    scene.is_called(2);
    assert_eq!(scene.pod.find(&id)["state"], "sealed");
    assert!(
        scene.pod.find(&id)["problem"]
            .as_str()
            .unwrap()
            .contains("ThrottlingException")
    );
    let moved = scene.pod.finds(&id, "rolled_forward");
    assert!(moved["aws_record_id"].is_null());
    assert!(scene.record("rolled_forward")["rolled_into"].is_number());
    scene.aws.clear_faults();
    scene.is_billed_once();
}

#[test]
fn a_refusal_of_the_role_is_waited_out() {
    let scene = Scene::new();
    let _sidecar = scene.start();
    scene.aws.add_fault(error("AccessDeniedException"));
    let id = scene.report();
    scene.is_called(2);
    let waiting = scene.record("sealed");
    assert!(
        waiting["problem"]
            .as_str()
            .unwrap()
            .contains("AccessDeniedException"),
        "{waiting}"
    );
    scene.aws.clear_faults();
    scene.is_billed_once();
    assert_ne!(scene.pod.find(&id)["state"], "rejected");
}

#[test]
fn another_record_in_the_hour_rolls_forward() {
    let scene = Scene::new();
    let _sidecar = scene.start();
    scene
        .aws
        .add_fault(once(error("DuplicateRequestException")));
    let id = scene.report();
    scene.pod.finds(&id, "rolled_forward");
    scene.is_billed_once();
    assert_eq!(scene.metering_status()["rolled_forward"], 1);
}

#[test]
fn a_timestamp_out_of_bounds_rolls_forward_what_was_certainly_not_counted() {
    let scene = Scene::new();
    let _sidecar = scene.start();
    scene
        .aws
        .add_fault(once(error("TimestampOutOfBoundsException")));
    let id = scene.report();
    scene.pod.finds(&id, "rolled_forward");
    scene.is_billed_once();
}

#[test]
fn a_timestamp_out_of_bounds_after_a_lost_reply_is_in_doubt() {
    let scene = Scene::new();
    let _sidecar = scene.start();
    scene.aws.add_fault(fault("internal-error"));
    let id = scene.report();
    scene.is_called(1);
    scene
        .aws
        .replace_faults(&[error("TimestampOutOfBoundsException")]);
    scene.pod.finds(&id, "in_doubt");
    assert_eq!(scene.aws.billed("requests"), 0);
}

#[test]
fn a_payload_that_aws_refuses_is_rejected_at_once_and_loud() {
    for code in [
        "InvalidUsageDimensionException",
        "InvalidTagException",
        "InvalidUsageAllocationsException",
        "InvalidProductCodeException",
        "IdempotencyConflictException",
        "ValidationException",
    ] {
        let scene = Scene::new();
        let _sidecar = scene.start();
        scene.aws.add_fault(error(code));
        let id = scene.report();
        let rejected = scene.pod.finds(&id, "rejected");
        assert_eq!(rejected["quantity"], "1.25");
        let listed = scene.record("rejected");
        assert_eq!(
            (&listed["code"], &listed["attempts"]),
            (&json!(code), &json!(1))
        );
        assert_eq!(scene.metering_status()["rejected"], 1);
        let loud = scene
            .pod
            .log_lines("rejected; this usage will not be billed");
        assert!(
            loud.iter().any(|line| line["level"] == "ERROR"),
            "{}",
            scene.pod.log()
        );
        scene.aws.clear_faults();
        let other = scene.report();
        scene.pod.finds(&other, "settled");
        assert_eq!(
            scene.aws.billed("requests"),
            1_250_000,
            "{code}: only the other one"
        );
    }
}

#[test]
fn a_buyer_who_unsubscribes_is_asked_for_slowly_and_never_billed_later() {
    let scene = Scene::new();
    let mut sidecar = scene.start();
    scene.aws.set_entitled(false);
    let id = scene.report();
    scene.is_called(1);
    assert_eq!(
        scene.record("sealed")["problem"].as_str().unwrap()[..28],
        *"CustomerNotEntitledException"
    );
    scene.pod.finds(&id, "rejected");
    assert_eq!(
        scene.record("rejected")["code"],
        "CustomerNotEntitledException"
    );
    assert!(scene.aws.count("MeterUsage") > 1, "it is retried");
    scene.aws.set_entitled(true);
    sidecar.answers("/readyz", 200);
    let other = scene.report();
    scene.pod.finds(&other, "settled");
    assert_eq!(
        scene.aws.billed("requests"),
        1_250_000,
        "what was rejected is not billed"
    );
}

#[test]
fn a_buyer_who_subscribes_again_in_time_is_billed() {
    let scene = Scene::new();
    let _sidecar = scene.start();
    scene.aws.add_fault(error("CustomerNotEntitledException"));
    let id = scene.report();
    scene.is_called(1);
    scene.aws.clear_faults();
    scene.pod.finds(&id, "settled");
    scene.is_billed_once();
}

/// Whatever AWS says is lost for six hours: a record in doubt, and AWS has it, or has it not.
fn in_doubt(kind: &str) -> (Scene, String, String) {
    let scene = Scene::new();
    let (id, number) = {
        let _sidecar = scene.start();
        scene.aws.add_fault(fault(kind));
        let id = scene.report();
        scene.pod.finds(&id, "in_doubt");
        let record = scene.record("in_doubt");
        assert!(
            record["problem"].as_str().unwrap().contains("six hours"),
            "{record}"
        );
        assert_eq!(scene.metering_status()["in_doubt"], 1);
        assert!(
            !scene
                .pod
                .log_lines("decide it with `tollgate usage resolve`")
                .is_empty(),
            "{}",
            scene.pod.log()
        );
        (id, record["id"].to_string())
    };
    scene.aws.clear_faults();
    (scene, id, number)
}

#[test]
fn what_is_in_doubt_waits_for_a_person_who_says_that_it_was_delivered() {
    let (scene, id, number) = in_doubt("reply-lost");
    let _sidecar = scene.start();
    assert_eq!(
        scene.pod.find(&id)["state"],
        "in_doubt",
        "a restart changes nothing"
    );
    assert_eq!(
        scene
            .pod
            .run(&["usage", "resolve", &number, "--delivered"])
            .0,
        0
    );
    assert_eq!(scene.pod.find(&id)["state"], "settled");
    scene.is_billed_once();
    let (code, output) = scene.pod.run(&["usage", "resolve", &number, "--delivered"]);
    assert_eq!(code, 2);
    assert!(
        output.contains("only a record in doubt can be resolved"),
        "{output}"
    );
}

#[test]
fn what_is_in_doubt_is_billed_later_where_a_person_says_that_it_was_not_delivered() {
    let (scene, id, number) = in_doubt("connection-reset");
    let _sidecar = scene.start();
    assert_eq!(
        scene
            .pod
            .run(&["usage", "resolve", &number, "--not-delivered"])
            .0,
        0
    );
    assert_eq!(scene.pod.find(&id)["state"], "rolled_forward");
    scene.is_billed_once();
}

#[test]
fn only_a_record_in_doubt_can_be_resolved() {
    let scene = Scene::new();
    let sidecar = scene.start();
    let id = scene.report();
    scene.pod.finds(&id, "settled");
    let number = scene.record("settled")["id"].to_string();
    for (arguments, said) in [
        (&[number.as_str(), "--not-delivered"][..], "is settled"),
        (&["4711", "--delivered"], "there is no record 4711"),
        (&["nonsense", "--delivered"], "is no record's number"),
        (&[number.as_str()], "--delivered"),
        (
            &[number.as_str(), "--delivered", "--not-delivered"],
            "--delivered",
        ),
    ] {
        let (code, output) = scene.pod.run(&[&["usage", "resolve"], arguments].concat());
        assert_eq!(code, 2, "{output}");
        assert!(output.contains(said), "{said} is not in {output}");
    }
    drop(sidecar);
    assert_eq!(
        scene
            .pod
            .run(&["usage", "resolve", &number, "--delivered"])
            .0,
        75
    );
}

/// Nothing listens where AWS should be: certainly not counted.
#[test]
fn an_endpoint_that_is_away_rolls_forward() {
    let scene = Scene::new();
    let nowhere = format!("http://{}", crate::pod::free_address());
    let pod = Pod::new(&scene.aws)
        .with_hours_of(PERIOD)
        .with("TOLLGATE_ENTITLEMENT_CHECK", "none")
        .with("AWS_ENDPOINT_URL_MARKETPLACE_METERING", &nowhere);
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    let id = pod.reported(&json!({"dimension": "requests", "quantity": 1}));
    let moved = pod.finds(&id, "rolled_forward");
    assert!(
        moved["problem"].as_str().unwrap().contains("was not sent"),
        "{moved}"
    );
}
