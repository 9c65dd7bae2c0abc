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
#[path = "kill/drains.rs"]
mod drains;
#[allow(dead_code, reason = "shared with tests/kill_saas.rs")]
#[path = "kill/expected.rs"]
mod expected;
#[path = "kill/moments.rs"]
mod moments;
#[allow(dead_code, reason = "shared with tests/sidecar, which uses all of it")]
#[path = "sidecar/pod.rs"]
mod pod;
#[allow(dead_code, reason = "shared with tests/kill_saas.rs")]
#[path = "kill/run.rs"]
mod run;
#[path = "kill/weather.rs"]
mod weather;

use std::time::Duration;

use aws::Aws;
use clients::{Load, METERING_WAYS, plain};
use pod::Pod;
use run::{Settings, kill_under_load};
use weather::{Climate, Weather};

pub(crate) const PERIOD_MS: i64 = 1000;
pub(crate) const STRAGGLER_WAIT_MS: i64 = 200;
const KILLS_DEFAULT: u64 = 40;

#[test]
fn what_aws_bills_is_what_was_acknowledged() {
    let settings = Settings::read("kill", KILLS_DEFAULT);
    let aws = Aws::with_hours_of(
        Duration::from_millis(PERIOD_MS.unsigned_abs()),
        &["requests", "gb", "tagged", "users", "seats", "hosts"],
    );
    let climate = Climate {
        operations: &["MeterUsage"],
        outage: Duration::from_millis(7_500),
        further: Vec::new(),
    };
    let weather = Weather::new(&aws, climate);
    let pod = pod(&aws);
    // Usage counts from the beginning of the pod's first process on: the clients begin after it.
    let mut first = pod.start();
    first.answers("/readyz", 200);
    let load = Load::start(pod.metering, settings.seed, &METERING_WAYS, plain).with_sampler();
    drop(first);
    let outcome = kill_under_load(&pod, &aws, load, weather, settings, |_, _| false);
    assert!(
        outcome.doubts > 0 || settings.kills < KILLS_DEFAULT,
        "an outage outlasts AWS's six hours"
    );
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
