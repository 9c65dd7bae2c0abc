//! When a process is killed.

use std::time::{Duration, Instant};

use crate::aws::Aws;
use crate::clients::Shared;
use crate::pod::{Pod, Sidecar, poll};

/// A moment of the process's life.
pub enum Moment {
    Early,
    Reports,
    Call,
    Drain,
}

pub fn some_moment(random: &mut fastrand::Rng) -> Moment {
    match random.u8(0..4) {
        0 => Moment::Early,
        1 => Moment::Reports,
        2 => Moment::Call,
        _ => Moment::Drain,
    }
}

pub fn wait_for(
    moment: &Moment,
    random: &mut fastrand::Rng,
    aws: &Aws,
    pod: &Pod,
    sidecar: &Sidecar<'_>,
    load: &Shared,
) {
    let some_reports = load.acknowledged() + random.u64(1..60);
    let reports = || load.acknowledged() >= some_reports || load.is_idle();
    let comes = |what: &str, condition: &dyn Fn() -> bool| {
        poll(|| condition().then_some(())).unwrap_or_else(|| {
            let log = pod.log();
            let latest: Vec<_> = log.lines().rev().take(20).collect();
            panic!("no {what}; the log, latest first:\n{}", latest.join("\n"));
        });
    };
    match moment {
        Moment::Early => pass(Duration::from_micros(random.u64(0..150_000))),
        Moment::Reports => comes("reports are taken", &reports),
        Moment::Call => {
            let calls = records_calls(aws) + random.usize(1..4);
            comes("records are sent", &|| records_calls(aws) >= calls);
        }
        Moment::Drain => {
            comes("reports are taken", &reports);
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

/// How many calls with records have come.
pub fn records_calls(aws: &Aws) -> usize {
    aws.count("MeterUsage") + aws.count("BatchMeterUsage")
}

fn pass(time: Duration) {
    let begun = Instant::now();
    poll(|| (begun.elapsed() >= time).then_some(())).expect("time passes");
}
