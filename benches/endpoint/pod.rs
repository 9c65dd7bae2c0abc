//! The release binaries as a pod runs them: a sidecar beside the simulator.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running simulator.
pub struct Simulator {
    process: Child,
    pub address: SocketAddr,
    keys: PathBuf,
}

/// A running sidecar.
pub struct Sidecar {
    process: Child,
    pub metering: SocketAddr,
    pub health: SocketAddr,
}

const BINARIES: &str = "target/release";
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(1);

impl Simulator {
    /// Starts one whose hour has `period_ms`, with three dimensions.
    pub fn start(folder: &Path, period_ms: u32) -> Self {
        Self::start_with(folder, period_ms, &["requests", "gb", "jobs"], "")
    }

    /// Starts one with these dimensions, and further set-up as TOML.
    pub fn start_with(folder: &Path, period_ms: u32, dimensions: &[&str], further: &str) -> Self {
        let config = folder.join("simulator.toml");
        let text = format!(
            "period_ms = {period_ms}\n[[product]]\ncode = \"prod-demo\"\ndimensions = {dimensions:?}\n{further}\
             [[caller]]\naccess_key_id = \"SIMULATORKEY1\"\nsecret_access_key = \"simulator-secret-1\"\nidentity = \"bench\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let keys = folder.join("keys");
        let mut process = Command::new(Path::new(BINARIES).join("marketplace-simulator"))
            .args(["--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--keys-dir")
            .arg(&keys)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let url = ready["listening"].as_str().unwrap();
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        Self {
            process,
            address,
            keys,
        }
    }

    /// Dimension and timestamp (ms) of every MeterUsage call that came.
    pub fn meter_usage_calls(&self) -> Vec<(String, f64)> {
        let (status, body) = exchange(self.address, "GET", "/simulator/calls", "").unwrap();
        assert_eq!(status, 200);
        let calls: Vec<Value> = serde_json::from_str(&body).unwrap();
        calls
            .iter()
            .filter(|call| call["operation"] == "MeterUsage")
            .map(|call| {
                let request = &call["request"];
                let dimension = request["UsageDimension"].to_string();
                (dimension, request["Timestamp"].as_f64().unwrap() * 1000.0)
            })
            .collect()
    }

    /// How many calls of `operation` have come.
    pub fn calls(&self, operation: &str) -> u32 {
        let (status, body) = exchange(self.address, "GET", "/simulator/calls", "").unwrap();
        assert_eq!(status, 200);
        let calls: Vec<Value> = serde_json::from_str(&body).unwrap();
        let of_operation = calls.iter().filter(|call| call["operation"] == operation);
        u32::try_from(of_operation.count()).unwrap()
    }

    /// AWS is down from now on.
    pub fn fail(&self) {
        let fault = r#"{"kind":"unavailable-page"}"#;
        let (status, _) = exchange(self.address, "POST", "/simulator/faults", fault).unwrap();
        assert_eq!(status, 200);
    }
}

impl Sidecar {
    /// Starts one on a new ledger in `folder`, and waits until it is ready.
    pub fn start(
        simulator: &Simulator,
        folder: &Path,
        period_ms: u32,
        settings: &[(&str, String)],
    ) -> Self {
        let (metering, health) = (free_address(), free_address());
        std::fs::create_dir_all(folder).unwrap();
        let process = Command::new(Path::new(BINARIES).join("tollgate"))
            .env_clear()
            .env(
                "AWS_ENDPOINT_URL_MARKETPLACE_METERING",
                format!("http://{}", simulator.address),
            )
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "SIMULATORKEY1")
            .env("AWS_SECRET_ACCESS_KEY", "simulator-secret-1")
            .env("POD_UID", "bench")
            .env("TOLLGATE_PRODUCT_CODE", "prod-demo")
            .env(
                "TOLLGATE_PUBLIC_KEYS",
                format!("1={}", simulator.keys.join("prod-demo/1.pem").display()),
            )
            .env("TOLLGATE_STATE_DIR", folder.join("state"))
            .env("TOLLGATE_STATUS_FILE", folder.join("status.json"))
            .env("TOLLGATE_LISTEN", metering.to_string())
            .env("TOLLGATE_HEALTH_LISTEN", health.to_string())
            .env("TOLLGATE_METERING_PERIOD", format!("{period_ms}ms"))
            .env("TOLLGATE_STRAGGLER_WAIT", "0s")
            .env("TOLLGATE_SUBMIT_JITTER", "0s")
            .env("TOLLGATE_LOG", "error")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stderr(std::fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut sidecar = Self {
            process,
            metering,
            health,
        };
        sidecar.until_ready(folder);
        sidecar
    }

    fn until_ready(&mut self, folder: &Path) {
        let begin = Instant::now();
        while !matches!(exchange(self.health, "GET", "/readyz", ""), Some((200, _))) {
            assert!(
                begin.elapsed() < PATIENCE && self.process.try_wait().unwrap().is_none(),
                "the sidecar never became ready: {}",
                std::fs::read_to_string(folder.join("log")).unwrap_or_default()
            );
            std::thread::sleep(POLL);
        }
    }

    /// The memory it has now, in MiB.
    pub fn resident_mib(&self) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024.0
    }

    /// How many records are settled.
    pub fn settled(&self) -> usize {
        let (_, body) = exchange(self.health, "GET", "/status", "").unwrap();
        let status: Value = serde_json::from_str(&body).unwrap();
        let settled = status["metering"]["settled"].as_u64().unwrap();
        usize::try_from(settled).unwrap()
    }

    /// The processor time it has taken, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        crate::load::cpu_seconds(&self.process.id().to_string())
    }

    /// Asks it to end, and waits until it has delivered what it has.
    pub fn stop(mut self) {
        let id = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// It may have ended by itself.
fn end(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// One request: status and body; `None` while nothing listens.
fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
}
