//! Bad days of the ledger: another pod on it, two sidecars on it, damage, no space, no right to write.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::aws::Aws;
use crate::pod::{Pod, early_in_the_hour, free_address, get, poll};
use crate::volume::Volume;

fn usage(quantity: u32) -> Value {
    json!({"dimension": "requests", "quantity": quantity})
}

/// The same volume in another pod, with credentials of its own.
fn moved_to_pod_2(aws: &Aws, pod: Pod) -> Pod {
    let (key, secret) = aws.add_caller("task-2");
    pod.with("POD_UID", "pod-2")
        .with("AWS_ACCESS_KEY_ID", &key)
        .with("AWS_SECRET_ACCESS_KEY", &secret)
}

#[test]
fn open_usage_goes_on_under_another_identity() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    early_in_the_hour();
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    pod.reported(&usage(5));
    drop(sidecar);
    let pod = moved_to_pod_2(&aws, pod);
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    pod.reported(&usage(1));
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), 0, "{}", pod.log());
    let records = aws.records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(
        (records[0].identity.as_str(), records[0].quantity.0),
        ("task-2", 6_000_000)
    );
    assert!(
        !pod.log_lines("the ledger is now this identity's")
            .is_empty()
    );
}

#[test]
fn what_may_have_been_counted_under_one_identity_is_never_sent_under_another() {
    let period = Duration::from_secs(1);
    let aws = Aws::with_hours_of(period, &["requests"]);
    let pod = Pod::new(&aws).with_hours_of(period);
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    aws.fault("MeterUsage", "reply-lost", 10_000);
    let id = pod.reported(&usage(5));
    poll(|| (aws.count("MeterUsage") > 0).then_some(())).expect("it is sent");
    drop(sidecar);
    aws.clear_faults();
    let pod = moved_to_pod_2(&aws, pod);
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    assert_eq!(pod.find(&id)["state"], "in_doubt");
    let other = pod.reported(&usage(1));
    pod.finds(&other, "settled");
    assert_eq!(pod.find(&id)["state"], "in_doubt");
    let billed: Vec<_> = aws
        .records()
        .into_iter()
        .map(|record| (record.identity, record.quantity.0))
        .collect();
    assert_eq!(
        billed,
        [
            ("task-1".to_owned(), 5_000_000),
            ("task-2".to_owned(), 1_000_000)
        ]
    );
}

#[test]
fn a_second_sidecar_on_the_same_ledger_ends_with_a_clear_error() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    let state = pod.path("state").display().to_string();
    let second = Pod::new(&aws).with("TOLLGATE_STATE_DIR", &state);
    assert_eq!(second.start().ends(), 78, "{}", second.log());
    let complaints = second.log_lines("\"ERROR\"");
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    let said = complaints[0].to_string();
    assert!(
        said.contains("another tollgate uses the ledger") && said.contains(&state),
        "{said}"
    );
    pod.reported(&usage(3));
    assert!(sidecar.is_running());
    assert_eq!(pod.usage().len(), 1);
}

/// A pod with usage in its ledger, killed or ended, and that usage's id.
fn left_behind(aws: &Aws, killed: bool) -> (Pod, String) {
    let pod = Pod::new(aws);
    early_in_the_hour();
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    let id = pod.reported(&usage(5));
    if killed {
        drop(sidecar);
    } else {
        sidecar.signal("TERM");
        assert_eq!(sidecar.ends(), 0);
    }
    (pod, id)
}

fn is_moved_aside(pod: &Pod, lost: &str) {
    early_in_the_hour();
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    let loud = pod.log_lines("kept aside");
    assert_eq!(loud.len(), 1, "{}", pod.log());
    assert_eq!(loud[0]["level"], "ERROR");
    let place = PathBuf::from(loud[0]["moved_to"].as_str().unwrap());
    assert!(place.join("ledger.redb").exists() || place.read_dir().unwrap().count() > 0);
    let (code, answer) = get(pod.metering, &format!("/v1/usage/{lost}")).unwrap();
    assert_eq!(code, 404, "{answer}");
    // The hour may have a record that is known no more, so usage goes to the next.
    let id = pod.reported(&usage(2));
    let hour: jiff::Timestamp = pod.find(&id)["hour"].as_str().unwrap().parse().unwrap();
    assert!(hour > jiff::Timestamp::now());
    assert_eq!(pod.usage().len(), 1);
    drop(sidecar);
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    assert_eq!(
        pod.find(&id)["quantity"],
        "2",
        "the new ledger is one like any other"
    );
    assert_eq!(pod.log_lines("kept aside").len(), 1);
}

fn journal(pod: &Pod) -> PathBuf {
    let files = pod.path("state").read_dir().unwrap();
    let mut names: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("journal-")
        })
        .collect();
    names.sort();
    names.remove(0)
}

#[test]
fn a_journal_with_a_flipped_bit_is_moved_aside_and_the_sidecar_serves_on() {
    let (pod, id) = left_behind(&Aws::start(), true);
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(journal(&pod))
        .unwrap();
    // The first block begins after the header's sector; behind its own header is the payload.
    let mut byte = [0];
    file.read_exact_at(&mut byte, 512 + 20).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 512 + 20).unwrap();
    is_moved_aside(&pod, &id);
}

#[test]
fn a_journal_cut_short_is_moved_aside_and_the_sidecar_serves_on() {
    let (pod, id) = left_behind(&Aws::start(), true);
    std::fs::File::options()
        .write(true)
        .open(journal(&pod))
        .unwrap()
        .set_len(520)
        .unwrap();
    is_moved_aside(&pod, &id);
}

#[test]
fn a_database_with_flipped_bits_is_moved_aside_and_the_sidecar_serves_on() {
    let (pod, id) = left_behind(&Aws::start(), false);
    let path = pod.path("state/ledger.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes
        .iter_mut()
        .skip(4096)
        .step_by(97)
        .for_each(|byte| *byte ^= 4);
    std::fs::write(&path, bytes).unwrap();
    is_moved_aside(&pod, &id);
}

/// A pod whose ledger is on a volume of its own, and large reports to it, each under its own key.
struct SmallDisk {
    pod: Pod,
    volume: Volume,
}

impl SmallDisk {
    const UNITS: usize = 800;

    fn new(aws: &Aws) -> Self {
        let pod = Pod::new(aws);
        let volume = Volume::mount(&pod.path("volume"), "8m");
        let state = volume.path().join("state").display().to_string();
        early_in_the_hour();
        Self {
            pod: pod.with("TOLLGATE_STATE_DIR", &state),
            volume,
        }
    }

    fn report(&self, number: usize) -> (u16, Value) {
        let parts: Vec<Value> = (0..Self::UNITS)
            .map(|part| json!({"quantity": 1, "tags": {"report": number.to_string(), "part": format!("{part:0>50}")}}))
            .collect();
        let report =
            json!({"dimension": "requests", "quantity": Self::UNITS, "allocations": parts});
        let key = format!("idempotency-key: report-{number}\r\n");
        self.pod.post("/v1/usage", &key, &report.to_string())
    }

    /// Reports until one is refused, as it must be on a full disk; how many were taken before.
    fn reports_until_refused(&self) -> usize {
        let mut taken = 0;
        let (code, answer) = loop {
            assert!(taken < 100, "a full disk is noticed");
            match self.report(taken) {
                (200, _) => taken += 1,
                refusal => break refusal,
            }
        };
        assert_eq!(code, 500);
        assert_eq!(answer["error"]["code"], "InternalServiceErrorException");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("the ledger can't be written"), "{message}");
        taken
    }
}

#[test]
fn on_a_full_disk_nothing_is_acknowledged_that_is_not_durable() {
    let aws = Aws::start();
    let disk = SmallDisk::new(&aws);
    let mut sidecar = disk.pod.start();
    sidecar.answers("/readyz", 200);
    disk.volume.fill();
    let taken = disk.reports_until_refused();
    assert_eq!(sidecar.ends(), 70, "{}", disk.pod.log());
    assert!(taken > 0, "it was not full before");
    std::fs::remove_file(disk.volume.path().join("filler")).unwrap();
    let mut sidecar = disk.pod.start();
    sidecar.answers("/readyz", 200);
    let again = disk.report(taken).0;
    assert_eq!(again, 200, "the caller repeats what was not taken");
    let units = |record: &Value| {
        record["quantity"]
            .as_str()
            .unwrap()
            .parse::<usize>()
            .unwrap()
    };
    let total: usize = disk.pod.usage().iter().map(units).sum();
    assert_eq!(total, (taken + 1) * SmallDisk::UNITS);
}

#[test]
fn a_disk_that_is_full_at_the_end_is_no_success() {
    let aws = Aws::start();
    let disk = SmallDisk::new(&aws);
    let mut sidecar = disk.pod.start();
    sidecar.answers("/readyz", 200);
    disk.volume.fill();
    disk.report(1000);
    sidecar.signal("TERM");
    sidecar.answers("/readyz", 503);
    disk.reports_until_refused();
    assert_eq!(sidecar.ends(), 70, "{}", disk.pod.log());
}

#[test]
fn a_state_folder_that_can_only_be_read_is_named() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let volume = Volume::mount(&pod.path("volume"), "4m");
    volume.remount("ro");
    let pod = pod.with(
        "TOLLGATE_STATE_DIR",
        &volume.path().join("state").display().to_string(),
    );
    assert_eq!(pod.start().ends(), 78);
    let complaints = pod.log_lines("\"ERROR\"");
    assert_eq!(complaints.len(), 1, "{}", pod.log());
    assert!(
        complaints[0].to_string().contains("TOLLGATE_STATE_DIR"),
        "{}",
        complaints[0]
    );
    assert!(aws.all_calls().is_empty());
}

/// A shorter hour is a development set-up; a ledger of the other kind must not mix with it.
#[test]
fn a_ledger_with_hours_of_another_length_is_kept_aside() {
    let aws = Aws::start();
    let (pod, _) = left_behind(&aws, false);
    let pod = pod
        .with_hours_of(Duration::from_secs(2))
        .with("TOLLGATE_HEALTH_LISTEN", &free_address().to_string());
    let _sidecar = pod.start();
    poll(|| (!pod.log_lines("kept aside").is_empty()).then_some(())).expect("it is loud");
    assert!(
        pod.log_lines("kept aside")[0]
            .to_string()
            .contains("/other-")
    );
}
