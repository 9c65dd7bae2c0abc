//! Durable reports per second through the ledger's handle, against a bare loop of write and fdatasync.
//!
//! `cargo bench --bench ledger [-- SECONDS [DIRECTORY]]`; run it on the kind of disk that matters.

#![allow(
    clippy::unwrap_used,
    reason = "a measurement stops where its set-up fails"
)]

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tollgate::ledger::{CallKey, KeyKind, Ledger, Options};
use tollgate::meter::{Amount, Report, Rules};
use tollgate::usage::{Allocations, Period, Quantity};

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let first = arguments.next();
    if first.as_deref() == Some("open") {
        return print_open(&PathBuf::from(arguments.next().unwrap()));
    }
    let seconds = first.map_or(5, |seconds| seconds.parse().unwrap());
    let directory = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from)
        .join(format!("tollgate-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let length = Duration::from_secs(seconds);
    bare_append(&directory, length).print("append + fdatasync", length);
    bare_overwrite(&directory, length).print("overwrite + fdatasync", length);
    let unpaced = [
        (1, true),
        (1, false),
        (16, true),
        (64, true),
        (64, false),
        (256, true),
    ];
    for (callers, keyed) in unpaced {
        let load = Load {
            callers,
            keyed,
            rate: None,
            length,
        };
        let name = format!("{callers} callers{}", if keyed { ", keyed" } else { "" });
        ledger(&directory.join(name.replace(' ', "-")), load).print(&name, length);
    }
    let load = Load {
        callers: 64,
        keyed: true,
        rate: Some(50_000),
        length: 6 * length,
    };
    ledger(&directory.join("paced"), load).print("64 callers, 50,000/s", load.length);
    for name in ["new", "new", "paced"] {
        // In a process of its own, whose memory nothing else has used.
        let mut process = std::process::Command::new(std::env::current_exe().unwrap());
        process
            .arg("open")
            .arg(directory.join(name))
            .status()
            .unwrap();
    }
    std::fs::remove_dir_all(directory).unwrap();
}

fn print_open(directory: &Path) {
    let start = Instant::now();
    let ledger = open(directory);
    let taken = start.elapsed();
    println!(
        "open {:<70} {:>6} us  {}",
        directory.display(),
        taken.as_micros(),
        memory()
    );
    drop(ledger);
}

#[derive(Clone, Copy)]
struct Load {
    callers: u32,
    keyed: bool,
    /// Reports per second of all callers together.
    rate: Option<u32>,
    length: Duration,
}

/// How many took how many microseconds: no memory that grows with the load.
struct Latencies {
    by_us: Vec<u32>,
    count: u32,
    memory: String,
}

impl Latencies {
    fn new() -> Self {
        Self {
            by_us: vec![0; 50_000],
            count: 0,
            memory: String::new(),
        }
    }

    fn add(&mut self, taken: Duration) {
        let us = usize::try_from(taken.as_micros()).unwrap_or(usize::MAX);
        self.by_us[us.min(49_999)] += 1;
        self.count += 1;
    }

    fn at(&self, share: f64) -> usize {
        let wanted = f64::from(self.count) * share;
        let mut seen = 0;
        let reached = self.by_us.iter().position(|count| {
            seen += count;
            f64::from(seen) >= wanted
        });
        reached.unwrap_or(50_000)
    }

    fn print(&self, name: &str, length: Duration) {
        let rate = f64::from(self.count) / length.as_secs_f64();
        let (p50, p99, p999) = (self.at(0.5), self.at(0.99), self.at(0.999));
        println!(
            "{name:<24} {rate:>8.0}/s  p50 {p50:>5} us  p99 {p99:>5} us  p99.9 {p999:>5} us  {}",
            self.memory
        );
    }
}

fn bare_append(directory: &Path, length: Duration) -> Latencies {
    let mut file = File::create(directory.join("append")).unwrap();
    sample(length, |_| {
        file.write_all(&[7; 96]).unwrap();
        file.sync_data().unwrap();
    })
}

fn bare_overwrite(directory: &Path, length: Duration) -> Latencies {
    let file = File::create(directory.join("overwrite")).unwrap();
    file.write_all_at(&vec![0; 8 << 20], 0).unwrap();
    file.sync_all().unwrap();
    sample(length, |index| {
        file.write_all_at(&[7; 96], index * 96 % (8 << 20)).unwrap();
        file.sync_data().unwrap();
    })
}

fn sample(length: Duration, mut step: impl FnMut(u64)) -> Latencies {
    let begin = Instant::now();
    let mut latencies = Latencies::new();
    while begin.elapsed() < length {
        let start = Instant::now();
        step(latencies.count.into());
        latencies.add(start.elapsed());
    }
    latencies
}

fn open(directory: &Path) -> Ledger {
    let rules = Rules {
        period: Period::HOUR,
        straggler_wait_ms: 60_000,
        submit_jitter_ms: 0,
        dimensions: None,
        saas: false,
        zero_usage: false,
    };
    let options = Options {
        product: "prod".parse().unwrap(),
        identity: "bench".parse().unwrap(),
        rules,
        segment_bytes: Options::SEGMENT_BYTES,
        seed: None,
    };
    let clock = Arc::new(|| Timestamp::now().into());
    Ledger::open(directory, &options, clock).unwrap().0
}

fn ledger(directory: &Path, load: Load) -> Latencies {
    let ledger = open(directory);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let latencies = Rc::new(RefCell::new(Latencies::new()));
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let tasks: Vec<_> = (0..load.callers)
            .map(|caller| call(ledger.clone(), caller, load, latencies.clone()))
            .map(tokio::task::spawn_local)
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    latencies.borrow_mut().memory = memory();
    drop(ledger);
    Rc::into_inner(latencies).unwrap().into_inner()
}

async fn call(ledger: Ledger, caller: u32, load: Load, latencies: Rc<RefCell<Latencies>>) {
    let begin = Instant::now();
    let mut count: u32 = 0;
    while begin.elapsed() < load.length {
        if let Some(rate) = load.rate {
            let due = Duration::from_secs(1) * count * load.callers / rate;
            tokio::time::sleep(due.saturating_sub(begin.elapsed())).await;
        }
        let start = Instant::now();
        let quantity = Quantity::from_millionths(1_500_000).unwrap();
        let amount = Amount::Quantity {
            quantity,
            allocations: Allocations::NONE,
        };
        let report = Report {
            customer: None,
            dimension: "requests".parse().unwrap(),
            amount,
            at: None,
        };
        let key = load.keyed.then(|| {
            let body = b"a body of the usual length, which is some two hundred bytes";
            CallKey::new(KeyKind::ClientToken, &format!("{caller}-{count}"), body)
        });
        ledger.report(report, key).await.unwrap();
        latencies.borrow_mut().add(start.elapsed());
        count += 1;
    }
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.unwrap_or_default().replace(['\t', ' '], "")
}
