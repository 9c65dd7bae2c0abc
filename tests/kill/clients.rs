//! The main container's side: clients that report in every way there is, and never give an unanswered report up.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::aws::PRODUCT;
use crate::expected::{Expected, POD, decimal, hour_of};
use crate::pod::{exchange, poll};
use crate::{PERIOD_MS, STRAGGLER_WAIT_MS};

/// Running clients.
pub struct Load {
    shared: Arc<Shared>,
    seed: u64,
    clients: Vec<JoinHandle<Expected>>,
    sampler: Option<JoinHandle<Expected>>,
}

/// What clients and test tell each other.
pub struct Shared {
    address: SocketAddr,
    write: Write,
    since_ms: i64,
    /// Reports that may still be begun; `None` when there will be no more.
    allowed: Mutex<Option<u64>>,
    changed: Condvar,
    acknowledged: AtomicU64,
    stopped: AtomicBool,
}

/// One call as it is made, and made again.
pub struct Report {
    pub path: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// A call to an address as it goes over the wire.
pub type Write = fn(SocketAddr, &Report) -> String;

/// A client's own state.
pub struct Client {
    pub shared: Arc<Shared>,
    pub random: fastrand::Rng,
    pub told: Expected,
    /// The latest reports with their answers, to be repeated.
    past: Vec<(Report, String)>,
}

/// How a client reports.
pub type Way = fn(&mut Client);

/// For the task's or pod's own usage.
pub const METERING_WAYS: [Way; 7] = [
    Client::report_whole,
    Client::report_whole,
    Client::report_decimal,
    Client::report_tagged,
    Client::report_plain,
    Client::report_peak,
    Client::report_host,
];
const PAST_MAX: usize = 20;

impl Load {
    /// Clients in each of these ways.
    pub fn start(address: SocketAddr, seed: u64, ways: &[Way], write: Write) -> Self {
        let shared = Arc::new(Shared {
            address,
            write,
            since_ms: now_ms(),
            allowed: Mutex::new(Some(0)),
            changed: Condvar::new(),
            acknowledged: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let clients = (1..).zip(ways.to_vec()).map(|(number, way)| {
            let client = Client::new(&shared, seed, number);
            std::thread::spawn(move || client.run(way))
        });
        let clients = clients.collect();
        Self {
            shared,
            seed,
            clients,
            sampler: None,
        }
    }

    /// And one that samples a level.
    pub fn with_sampler(mut self) -> Self {
        let sampler = Client::new(&self.shared, self.seed, 0);
        self.sampler = Some(std::thread::spawn(move || sampler.sample()));
        self
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Lets the clients begin so many reports more.
    pub fn allow(&self, reports: u64) {
        let mut allowed = self.shared.allowed.lock().unwrap();
        *allowed = allowed.map(|allowed| allowed + reports);
        self.shared.changed.notify_all();
    }

    /// Clients end only when they are told to, or where something is wrong.
    pub fn is_well(&self) {
        let ended = self.clients.iter().chain(&self.sampler);
        assert!(
            ended.filter(|client| client.is_finished()).count() == 0,
            "a client has found something wrong; its words are above"
        );
    }

    /// No more reports; what the clients were told, once each has its last answer.
    pub fn finish(self) -> Expected {
        *self.shared.allowed.lock().unwrap() = None;
        self.shared.changed.notify_all();
        let mut expected = Expected::default();
        for client in self.clients {
            expected.join(client.join().expect("a client ends well"));
        }
        self.shared.stopped.store(true, Ordering::Release);
        if let Some(sampler) = self.sampler {
            expected.join(sampler.join().expect("the sampler ends well"));
        }
        expected
    }
}

impl Shared {
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Whether no report may be begun any more.
    pub fn is_idle(&self) -> bool {
        *self.allowed.lock().unwrap() == Some(0)
    }

    fn begin(&self) -> bool {
        let waits = |allowed: &mut Option<u64>| *allowed == Some(0);
        let mut allowed = self
            .changed
            .wait_while(self.allowed.lock().unwrap(), waits)
            .unwrap();
        *allowed = allowed.map(|allowed| allowed - 1);
        allowed.is_some()
    }
}

impl Client {
    fn new(shared: &Arc<Shared>, seed: u64, number: u64) -> Self {
        Self {
            shared: Arc::clone(shared),
            random: fastrand::Rng::with_seed(seed ^ number),
            told: Expected::default(),
            past: Vec::new(),
        }
    }

    /// The last report is made when there are to be no more.
    fn run(mut self, way: Way) -> Expected {
        loop {
            let more = self.shared.begin();
            way(&mut self);
            self.repeat_one();
            if !more {
                return self.told;
            }
        }
    }

    /// MeterUsage with a ClientToken, in whole units.
    fn report_whole(&mut self) {
        let units = self.random.u64(0..1000);
        let mut usage = meter_usage("requests", self.some_time());
        usage["UsageQuantity"] = json!(units);
        usage["ClientToken"] = json!(self.key());
        if self.deliver(meter_usage_call(None, &usage)).is_some() {
            self.told
                .sum(POD, "requests", u128::from(units) * 1_000_000);
        }
    }

    /// MeterUsage without a ClientToken, as an SDK retries it.
    fn report_decimal(&mut self) {
        let quantity = u128::from(self.random.u64(0..3_000_000));
        let mut usage = meter_usage("gb", self.some_time());
        usage["UsageQuantityAsDecimal"] = json!(decimal(quantity));
        let invocation = Some(self.key());
        if self.deliver(meter_usage_call(invocation, &usage)).is_some() {
            self.told.sum(POD, "gb", quantity);
        }
    }

    /// MeterUsage with allocations; one part may be without tags.
    fn report_tagged(&mut self) {
        let parts = self.some_parts();
        let total = parts.iter().map(|(_, quantity)| quantity).sum();
        let mut usage = meter_usage("tagged", self.some_time());
        usage["UsageQuantityAsDecimal"] = json!(decimal(total));
        usage["UsageAllocations"] = allocations(&parts);
        usage["ClientToken"] = json!(self.key());
        if self.deliver(meter_usage_call(None, &usage)).is_some() {
            self.told.tagged(POD, &parts);
        }
    }

    /// POST /v1/usage without a timestamp.
    fn report_plain(&mut self) {
        let quantity = u128::from(self.random.u64(1..5_000_000));
        let usage = json!({"dimension": "requests", "quantity": decimal(quantity)});
        if self.deliver_plain(&usage) {
            self.told.sum(POD, "requests", quantity);
        }
    }

    fn report_peak(&mut self) {
        let (at, quantity) = (self.some_time(), u128::from(self.random.u64(1..50_000_000)));
        let usage =
            json!({"dimension": "users", "quantity": decimal(quantity), "timestamp": seconds(at)});
        if self.deliver_plain(&usage) {
            self.told.peak(POD, at, quantity);
        }
    }

    fn report_host(&mut self) {
        let (at, host) = (self.some_time(), self.random.u64(0..30));
        let usage =
            json!({"dimension": "hosts", "key": format!("host-{host}"), "timestamp": seconds(at)});
        if self.deliver_plain(&usage) {
            self.told.host(at, host);
        }
    }

    /// Samples a level that only rises, several times an hour and in every hour, so that it is known what each hour is worth:
    /// its last sample. At the end the level is 0.
    fn sample(mut self) -> Expected {
        let mut level = 1_000_000;
        let mut hour = hour_of(now_ms()) + PERIOD_MS;
        // It may have fallen behind while there was no sidecar.
        while !self.shared.stopped.load(Ordering::Acquire) || hour < now_ms() {
            for part in [0, PERIOD_MS / 2] {
                let at = hour + part;
                poll(|| (now_ms() >= at).then_some(())).expect("time passes");
                level += u128::from(self.random.u64(0..1_000_000));
                if self.deliver_sample(at, level) {
                    self.told.level(at, level);
                } else {
                    self.told.uncertain_level(level);
                }
            }
            hour += PERIOD_MS;
        }
        poll(|| (now_ms() >= hour).then_some(())).expect("time passes");
        let taken = self.deliver_sample(hour, 0);
        if !taken || now_ms() > hour + PERIOD_MS + STRAGGLER_WAIT_MS {
            self.told.uncertain_level(level);
        }
        self.told
    }

    fn deliver_sample(&mut self, at: i64, level: u128) -> bool {
        let usage =
            json!({"dimension": "seats", "quantity": decimal(level), "timestamp": seconds(at)});
        self.deliver_plain(&usage)
    }

    fn deliver_plain(&mut self, usage: &Value) -> bool {
        let report = Report {
            path: "/v1/usage",
            headers: vec![("idempotency-key", self.key())],
            body: usage.to_string(),
        };
        self.deliver(report).is_some()
    }

    /// Makes a call until it is answered. None if its hour is too long ago, and it was not counted.
    pub fn deliver(&mut self, report: Report) -> Option<String> {
        let mut unanswered = 0;
        let answer = poll(|| {
            let answer = self.shared.send(&report);
            unanswered += u64::from(answer.is_none());
            answer
        });
        self.told.unanswered += unanswered;
        match answer.expect("the sidecar comes back") {
            Ok(answer) => {
                self.told.acknowledged += 1;
                self.shared.acknowledged.fetch_add(1, Ordering::AcqRel);
                if self.past.len() == PAST_MAX {
                    self.past.swap_remove(self.random.usize(0..PAST_MAX));
                }
                self.past.push((report, answer.clone()));
                Some(answer)
            }
            Err(problem) => {
                assert!(
                    problem.contains("TimestampOutOfBoundsException"),
                    "{problem}: {}",
                    report.body
                );
                self.told.refused += 1;
                None
            }
        }
    }

    /// Now and then an app repeats a report that was answered long ago: it gets the same answer, and is not counted again.
    fn repeat_one(&mut self) {
        if self.random.u8(0..8) == 0 && !self.past.is_empty() {
            let (report, before) = &self.past[self.random.usize(0..self.past.len())];
            let answer = poll(|| self.shared.send(report)).expect("the sidecar comes back");
            assert_eq!(answer.as_ref(), Ok(before), "{}", report.body);
        }
    }

    /// Mostly now, at times up to two hours ago.
    pub fn some_time(&mut self) -> i64 {
        let ago = if self.random.u8(0..4) == 0 {
            self.random.i64(0..2 * PERIOD_MS)
        } else {
            0
        };
        (now_ms() - ago).max(self.shared.since_ms)
    }

    /// Quantities of some tags; one may be without any.
    pub fn some_parts(&mut self) -> Vec<(&'static str, u128)> {
        let mut parts = Vec::new();
        for team in ["red", "green", "blue", ""] {
            if self.random.bool() {
                parts.push((team, u128::from(self.random.u64(1..2_000_000))));
            }
        }
        if parts.is_empty() {
            parts.push(("red", 1));
        }
        parts
    }

    pub fn key(&mut self) -> String {
        format!("{:032x}", self.random.u128(..))
    }
}

impl Shared {
    /// The answer, or why the report is refused; `None` where nobody knows what became of it.
    fn send(&self, report: &Report) -> Option<Result<String, String>> {
        let (code, answer) = self.exchange(report)?;
        match code {
            200 => Some(Ok(answer)),
            500.. => None,
            _ => Some(Err(answer)),
        }
    }

    /// HTTP status and body; `None` where no answer comes.
    pub fn exchange(&self, report: &Report) -> Option<(u16, String)> {
        exchange(self.address, &(self.write)(self.address, report))
    }
}

/// Without a signature.
pub fn plain(address: SocketAddr, report: &Report) -> String {
    let headers = [("host", address.to_string())];
    let headers: Vec<String> = headers
        .iter()
        .chain(&report.headers)
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    request(report, &headers.concat())
}

/// A request with these whole lines of headers.
pub fn request(Report { path, body, .. }: &Report, headers: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A call of the service, under the id that an SDK gives its retries where there is one.
pub fn aws_call(operation: &str, invocation: Option<String>, request: &Value) -> Report {
    let target = format!("AWSMPMeteringService.{operation}");
    let mut headers = vec![("x-amz-target", target)];
    headers.extend(invocation.map(|id| ("amz-sdk-invocation-id", id)));
    Report {
        path: "/",
        headers,
        body: request.to_string(),
    }
}

fn meter_usage_call(invocation: Option<String>, usage: &Value) -> Report {
    aws_call("MeterUsage", invocation, usage)
}

fn meter_usage(dimension: &str, at_ms: i64) -> Value {
    json!({"ProductCode": PRODUCT, "UsageDimension": dimension, "Timestamp": seconds(at_ms)})
}

pub fn allocations(parts: &[(&str, u128)]) -> Value {
    let parts = parts.iter().map(|(team, quantity)| {
        let mut part = json!({"AllocatedUsageQuantityAsDecimal": decimal(*quantity)});
        if !team.is_empty() {
            part["Tags"] = json!([{"Key": "team", "Value": team}]);
        }
        part
    });
    parts.collect()
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds of this century are exact in f64"
)]
pub fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
