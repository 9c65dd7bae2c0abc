//! One state folder, many processes one after the other, each killed at some moment of its life.

use crate::aws::Aws;
use crate::clients::Load;
use crate::drains::{decide_doubts, drain, finish};
use crate::expected::{Expected, bill};
use crate::moments::{records_calls, some_moment, wait_for};
use crate::pod::Pod;
use crate::weather::Weather;

/// How many processes are killed, and what repeats a run's decisions.
#[derive(Clone, Copy)]
pub struct Settings {
    pub kills: u64,
    pub seed: u64,
}

/// What a run came to.
pub struct Outcome {
    /// Records that a person had to decide.
    pub doubts: usize,
    pub expected: Expected,
}

impl Settings {
    /// `KILLS` and `KILL_SEED`; `kills_default` of them where nothing is said.
    pub fn read(name: &str, kills_default: u64) -> Self {
        let settings = Self {
            kills: number("KILLS").unwrap_or(kills_default),
            seed: number("KILL_SEED").unwrap_or_else(|| fastrand::u64(..)),
        };
        eprintln!(
            "{name}: KILL_SEED={} KILLS={}",
            settings.seed, settings.kills
        );
        settings
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("KILLS and KILL_SEED are numbers"))
}

/// Kills under load, lets everything come to its end, and compares the bill. `between` is asked before each start, except
/// during an outage, and says whether something of its own goes on, during which no outage begins.
pub fn kill_under_load(
    pod: &Pod,
    aws: &Aws,
    load: Load,
    mut weather: Weather<'_>,
    settings: Settings,
    mut between: impl FnMut(u64, &Weather<'_>) -> bool,
) -> Outcome {
    let mut random = fastrand::Rng::with_seed(settings.seed);
    let (mut kills, mut doubts) = (0, 0);
    // What has begun goes on to its end.
    loop {
        let busy = !weather.is_outage() && between(kills, &weather);
        if kills >= settings.kills && !busy && !weather.is_outage() {
            break;
        }
        let was_outage = weather.is_outage();
        let moment = if busy { None } else { weather.change(kills) };
        if was_outage && !weather.is_outage() {
            let mut calm = pod.start();
            calm.answers("/readyz", 200);
            doubts += decide_doubts(pod, aws);
        }
        let moment = moment.unwrap_or_else(|| some_moment(&mut random));
        load.is_well();
        load.allow(random.u64(5..80));
        let sidecar = pod.start();
        wait_for(&moment, &mut random, aws, pod, &sidecar, load.shared());
        drop(sidecar);
        kills += 1;
        assert!(
            !pod.log().contains("damaged-"),
            "a ledger that was killed is not damaged:\n{}",
            pod.log()
        );
    }
    aws.clear_faults();
    let expected = finish(pod, load);
    let drained = drain(pod, aws);
    doubts += drained.doubts;
    let mut accounted = bill(aws);
    eprintln!(
        "{kills} kills, {} drains, {doubts} records were in doubt, {} rejected, {} AWS calls, {} records; {expected}",
        drained.drains,
        drained.rejected.len(),
        records_calls(aws),
        accounted.len()
    );
    assert!(
        expected.acknowledged > settings.kills && expected.unanswered > 0,
        "there was load: {expected}"
    );
    assert!(
        drained.rejected.len() * REJECTED_SHARE <= accounted.len(),
        "a subscription that is away for less than a day costs next to nothing"
    );
    accounted.extend(drained.rejected);
    expected.compare(&accounted);
    Outcome { doubts, expected }
}

/// What is reported a day late while AWS does not see the subscription is one record in this many at most.
const REJECTED_SHARE: usize = 50;
