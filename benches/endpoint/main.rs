//! The metering endpoint of the release binary under load, each figure beside its baseline of the same run.
//!
//! `cargo build --release --workspace && cargo bench --bench endpoint [-- SECONDS [DIRECTORY]]`. SECONDS is the length of
//! one measurement (3); DIRECTORY is where ledgers go, on the kind of disk that matters.

#![allow(
    clippy::unwrap_used,
    reason = "a measurement stops where its set-up fails"
)]
#![allow(unreachable_pub, reason = "a bench has no outside")]

mod load;
mod pod;
mod requests;
mod saas;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use load::{Load, Measured};
use pod::{Sidecar, Simulator};
use requests::Requests;

/// What ubbagent persists with 16 connections, unsynced, on the machine where it was measured.
const UBBAGENT_RATE: f64 = 7_800.0;
const HOUR_MS: u32 = 3_600_000;
/// The hour where several have to pass.
const SHORT_MS: u32 = 1_000;
/// The hour in an outage: short enough that records wait, long enough that it is not the attempts that are measured, whose
/// pauses are shares of it.
const OUTAGE_MS: u32 = 10_000;
const REPEATS: usize = 3;
const MINUTE: Duration = Duration::from_mins(1);
/// The two ways to report.
const REPORTS: [(&str, Requests); 2] = [
    ("POST /v1/usage", requests::usage),
    ("MeterUsage", requests::meter_usage),
];

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let seconds = arguments
        .next()
        .map_or(3, |seconds| seconds.parse().unwrap());
    let folder = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from)
        .join(format!("tollgate-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let bench = Bench {
        folder: folder.clone(),
        length: Duration::from_secs(seconds),
    };
    let simulator = Simulator::start(&folder, HOUR_MS);
    bench.against_livez(&simulator);
    bench.against_ubbagent(&simulator);
    bench.against_fdatasync(&simulator);
    bench.memory(&simulator);
    saas::throughput(&bench, &simulator);
    drop(simulator);
    let simulator = Simulator::start(&folder, SHORT_MS);
    bench.calls(&simulator);
    drop(simulator);
    let simulator = Simulator::start(&folder, OUTAGE_MS);
    bench.outage(&simulator);
    drop(simulator);
    saas::many_customers(&folder);
    std::fs::remove_dir_all(folder).unwrap();
}

struct Bench {
    folder: PathBuf,
    length: Duration,
}

impl Bench {
    /// Rates of this process's own /livez and of durable reports, in turn.
    fn against_livez(&self, simulator: &Simulator) {
        let sidecar = self.sidecar(simulator, "livez", HOUR_MS, &[]);
        let mut ratios = [Vec::new(), Vec::new()];
        for _ in 0..REPEATS {
            let livez = self.load(&sidecar, "GET /livez", 64, requests::livez);
            for (ratios, (name, requests)) in ratios.iter_mut().zip(REPORTS) {
                ratios.push(self.load(&sidecar, name, 64, requests).rate() / livez.rate());
            }
        }
        for (ratios, (name, _)) in ratios.into_iter().zip(REPORTS) {
            let name = format!("{name} / livez, 64 connections");
            figure(&name, median(ratios), ">= 0.5", |ratio| ratio >= 0.5);
        }
    }

    fn against_ubbagent(&self, simulator: &Simulator) {
        let sidecar = self.sidecar(simulator, "ubbagent", HOUR_MS, &[]);
        for (name, requests) in REPORTS {
            let (mut ratios, mut p99s_ms) = (Vec::new(), Vec::new());
            for _ in 0..REPEATS {
                let run = self.load(&sidecar, name, 16, requests);
                ratios.push(run.rate() / UBBAGENT_RATE);
                p99s_ms.push(run.percentile_ms(0.99));
            }
            let against = format!("{name} / ubbagent's {UBBAGENT_RATE}/s, 16 conn.");
            figure(&against, median(ratios), ">= 2", |ratio| ratio >= 2.0);
            let p99 = format!("{name}, p99 in ms, 16 connections");
            figure(&p99, median(p99s_ms), "< 5", |ms| ms < 5.0);
        }
    }

    fn against_fdatasync(&self, simulator: &Simulator) {
        let sidecar = self.sidecar(simulator, "fdatasync", HOUR_MS, &[]);
        let mut ratios = [Vec::new(), Vec::new()];
        for _ in 0..REPEATS {
            let append = bare_append(&self.folder, self.length);
            let overwrite = bare_overwrite(&self.folder, self.length);
            println!("bare loops with fdatasync: append {append:.0}/s, overwrite {overwrite:.0}/s");
            for (ratios, (name, requests)) in ratios.iter_mut().zip(REPORTS) {
                ratios.push(self.load(&sidecar, name, 1, requests).rate() / append);
            }
        }
        for (ratios, (name, _)) in ratios.into_iter().zip(REPORTS) {
            let name = format!("{name} / append + fdatasync, 1 connection");
            figure(&name, median(ratios), ">= 0.9", |ratio| ratio >= 0.9);
        }
    }

    fn memory(&self, simulator: &Simulator) {
        let sidecar = self.sidecar(simulator, "memory", HOUR_MS, &[]);
        let ready_mib = sidecar.resident_mib();
        let minute = Load {
            connections: 16,
            requests: requests::usage,
            length: MINUTE,
            count_max: None,
        };
        measure(&sidecar, "POST /v1/usage, for a minute", &minute);
        println!("memory when ready: {ready_mib:.1} MiB");
        let mib = sidecar.resident_mib();
        figure("memory after that minute, MiB", mib, "<= 12", |mib| {
            mib <= 12.0
        });
    }

    /// Many reports in several hours: one call per dimension and hour.
    fn calls(&self, simulator: &Simulator) {
        let sidecar = self.sidecar(simulator, "calls", SHORT_MS, &[]);
        self.load(&sidecar, "three dimensions", 16, requests::dimensions);
        sidecar.stop();
        let calls = simulator.meter_usage_calls();
        let mut hours: Vec<_> = calls
            .iter()
            .map(|(dimension, at_ms)| (dimension, (at_ms / f64::from(SHORT_MS)).floor()))
            .map(|hour| format!("{hour:?}"))
            .collect();
        hours.sort();
        hours.dedup();
        let per_hour = ratio(calls.len(), hours.len());
        println!("{} calls to AWS", calls.len());
        figure(
            "calls to AWS per dimension and hour",
            per_hour,
            "= 1",
            |n| (n - 1.0).abs() < f64::EPSILON,
        );
    }

    /// The rate while AWS answers, and after 100,000 reports of an outage that records of an earlier hour wait in.
    fn outage(&self, simulator: &Simulator) {
        const REPORTS: u32 = 100_000;
        let sidecar = self.sidecar(simulator, "outage", OUTAGE_MS, &[]);
        let rate = |name| {
            let rates = (0..REPEATS).map(|_| self.load(&sidecar, name, 16, requests::dimensions));
            median(rates.map(|run| run.rate()).collect())
        };
        let before = rate("AWS answers");
        simulator.fail();
        let (begin, an_hour) = (Instant::now(), Duration::from_millis(OUTAGE_MS.into()));
        let mut reports = 0;
        while reports < REPORTS || begin.elapsed() < an_hour {
            let queue = Load {
                connections: 16,
                requests: requests::dimensions,
                length: MINUTE,
                count_max: Some(REPORTS),
            };
            reports += measure(&sidecar, "AWS is down", &queue).count;
        }
        let after = rate("AWS is down still");
        let name = format!("rate after {reports} reports without AWS / before");
        figure(&name, after / before, "> 0.9", |ratio| ratio > 0.9);
    }

    fn sidecar(
        &self,
        simulator: &Simulator,
        name: &str,
        period_ms: u32,
        settings: &[(&str, String)],
    ) -> Sidecar {
        Sidecar::start(simulator, &self.folder.join(name), period_ms, settings)
    }

    fn load(
        &self,
        sidecar: &Sidecar,
        name: &str,
        connections: u32,
        requests: Requests,
    ) -> Measured {
        let load = Load {
            connections,
            requests,
            length: self.length,
            count_max: None,
        };
        measure(sidecar, name, &load)
    }
}

/// Runs a load and prints what it came to, with the processor time of both sides: what a busy machine does not change.
fn measure(sidecar: &Sidecar, name: &str, load: &Load) -> Measured {
    let address = if name.contains("livez") {
        sidecar.health
    } else {
        sidecar.metering
    };
    let before = sidecar.cpu_seconds();
    let run = load.run(address);
    let each_us = |seconds: f64| seconds * 1e6 / f64::from(run.count);
    println!(
        "{name:<32} {:>3} connections {:>8.0}/s  p50 {:>6.2} ms  p99 {:>6.2} ms  processor time of each: sidecar {:>5.1} us, load generator {:>5.1} us",
        load.connections,
        run.rate(),
        run.percentile_ms(0.5),
        run.percentile_ms(0.99),
        each_us(sidecar.cpu_seconds() - before),
        each_us(run.own_cpu_seconds)
    );
    run
}

/// A figure beside what it should be.
fn figure(name: &str, value: f64, target: &str, reached: impl Fn(f64) -> bool) {
    let verdict = if reached(value) { "reached" } else { "MISSED" };
    println!("=> {name:<50} {value:>8.2}  target {target}: {verdict}");
}

fn bare_append(folder: &Path, length: Duration) -> f64 {
    let mut file = File::create(folder.join("append")).unwrap();
    per_second(length, |_| {
        file.write_all(&[7; 96]).unwrap();
        file.sync_data().unwrap();
    })
}

fn bare_overwrite(folder: &Path, length: Duration) -> f64 {
    const BYTES: usize = 8 << 20;
    let file = File::create(folder.join("overwrite")).unwrap();
    file.write_all_at(&vec![0; BYTES], 0).unwrap();
    file.sync_all().unwrap();
    per_second(length, |index| {
        file.write_all_at(&[7; 96], index * 96 % BYTES as u64)
            .unwrap();
        file.sync_data().unwrap();
    })
}

fn per_second(length: Duration, mut step: impl FnMut(u64)) -> f64 {
    let begin = Instant::now();
    let mut count: u32 = 0;
    while begin.elapsed() < length {
        step(count.into());
        count += 1;
    }
    f64::from(count) / begin.elapsed().as_secs_f64()
}

fn ratio(over: usize, under: usize) -> f64 {
    f64::from(u32::try_from(over).unwrap()) / f64::from(u32::try_from(under).unwrap())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
