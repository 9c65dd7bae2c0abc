//! What the tests of the real binary share: a sidecar process with its folders, and small HTTP questions to it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::aws::{self, Aws};
use serde_json::{Value, json};

/// No condition that a test waits for takes longer, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// A sidecar's environment and folders; several processes can be started with it one after the other.
pub struct Pod {
    folder: tempfile::TempDir,
    environment: BTreeMap<String, String>,
    pub health: SocketAddr,
    pub metering: SocketAddr,
}

/// A running `tollgate`.
pub struct Sidecar<'a> {
    pod: &'a Pod,
    child: Child,
}

impl Pod {
    /// A pod beside `aws`, with static credentials, a region and a host-name identity.
    pub fn new(aws: &Aws) -> Self {
        let pod = Self::bare();
        let keys = format!(
            "1={}",
            pod.write("keys/1.pem", &aws.public_key(1)).display()
        );
        pod.with("AWS_ENDPOINT_URL_MARKETPLACE_METERING", &aws.url())
            .with("AWS_ACCESS_KEY_ID", aws::ACCESS_KEY_ID)
            .with("AWS_SECRET_ACCESS_KEY", aws::SECRET_ACCESS_KEY)
            .with("AWS_REGION", aws::REGION)
            .with("POD_UID", "pod-1")
            .with("TOLLGATE_PUBLIC_KEYS", &keys)
    }

    /// A pod with folders and ports alone.
    pub fn bare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (health, metering) = (free_address(), free_address());
        let pod = Self {
            folder,
            environment: BTreeMap::new(),
            health,
            metering,
        };
        let (state, status) = (pod.path("state"), pod.path("run/status.json"));
        pod.with("TOLLGATE_PRODUCT_CODE", aws::PRODUCT)
            .with("TOLLGATE_STATE_DIR", &state.display().to_string())
            .with("TOLLGATE_STATUS_FILE", &status.display().to_string())
            .with("TOLLGATE_HEALTH_LISTEN", &health.to_string())
            .with("TOLLGATE_LISTEN", &metering.to_string())
            .with("AWS_EC2_METADATA_DISABLED", "true")
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Short metering hours, whose records are sent as soon as they are over.
    pub fn with_hours_of(self, period: Duration) -> Self {
        self.with(
            "TOLLGATE_METERING_PERIOD",
            &format!("{}ms", period.as_millis()),
        )
        .with("TOLLGATE_STRAGGLER_WAIT", "0s")
        .with("TOLLGATE_SUBMIT_JITTER", "0s")
    }

    pub fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the pod's folder.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A command of the binary in this pod's environment and nothing else.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null());
        command
    }

    /// Starts the sidecar; what it logs goes to a file.
    pub fn start(&self) -> Sidecar<'_> {
        self.spawn(self.command(&["run"]))
    }

    /// Starts the sidecar by a shell script that prepares its surroundings and then runs `exec "$0" run`.
    pub fn start_by(&self, script: &str) -> Sidecar<'_> {
        let mut shell = Command::new("unshare");
        shell
            .args([
                "--mount",
                "sh",
                "-ec",
                script,
                env!("CARGO_BIN_EXE_tollgate"),
            ])
            .env_clear()
            .envs(&self.environment)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null());
        self.spawn(shell)
    }

    fn spawn(&self, mut command: Command) -> Sidecar<'_> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Sidecar { pod: self, child }
    }

    /// Runs a command to its end: exit code and both outputs.
    pub fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().unwrap();
        let text = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .concat();
        (output.status.code().unwrap_or(-1), text)
    }

    /// The status file's content; `None` while there is none.
    pub fn status(&self) -> Option<Value> {
        let text = std::fs::read(self.path("run/status.json")).ok()?;
        Some(serde_json::from_slice(&text).expect("a status file is complete at every instant"))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// HTTP status and body of a GET on the health listener; `None` while nothing listens.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.health, path)
    }

    /// MeterUsage of this product as an SDK sends it: HTTP status and body.
    pub fn meter(&self, mut usage: Value) -> (u16, Value) {
        usage["ProductCode"] = json!(aws::PRODUCT);
        if usage["Timestamp"].is_null() {
            usage["Timestamp"] = json!(now_seconds());
        }
        let target = "x-amz-target: AWSMPMeteringService.MeterUsage\r\n";
        self.post("/", target, &usage.to_string())
    }

    /// POST /v1/usage: HTTP status and body.
    pub fn report(&self, usage: &Value) -> (u16, Value) {
        self.post("/v1/usage", "", &usage.to_string())
    }

    /// POST /v1/usage that is taken; its id.
    pub fn reported(&self, usage: &Value) -> String {
        let (code, answer) = self.report(usage);
        assert_eq!(code, 200, "{answer}; log:\n{}", self.log());
        answer["id"].as_str().unwrap().to_owned()
    }

    /// A POST to the metering endpoint; `headers` are whole lines.
    pub fn post(&self, path: &str, headers: &str, body: &str) -> (u16, Value) {
        let (address, length) = (self.metering, body.len());
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        );
        let (code, answer) = poll(|| exchange(address, &request))
            .unwrap_or_else(|| panic!("the endpoint never answers; log:\n{}", self.log()));
        (code, serde_json::from_str(&answer).expect("JSON"))
    }

    /// What GET /v1/usage/ID says of a report.
    pub fn find(&self, id: &str) -> Value {
        let (code, answer) = get(self.metering, &format!("/v1/usage/{id}")).unwrap();
        assert_eq!(code, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// Polls until the record that a report is in is in `state`.
    pub fn finds(&self, id: &str, state: &str) -> Value {
        poll(|| Some(self.find(id)).filter(|record| record["state"] == state)).unwrap_or_else(
            || {
                panic!(
                    "never {state}; last {}, log:\n{}",
                    self.find(id),
                    self.log()
                )
            },
        )
    }

    /// What `tollgate usage` lists.
    pub fn usage(&self) -> Vec<Value> {
        let (code, output) = self.run(&["usage", "--format", "json"]);
        assert_eq!(code, 0, "{output}");
        serde_json::from_str(&output).unwrap()
    }

    /// The log's lines that contain `text`.
    pub fn log_lines(&self, text: &str) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains(text));
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn log_path(&self) -> PathBuf {
        self.path("log")
    }
}

impl Sidecar<'_> {
    /// Polls until the status file is in `state`.
    pub fn reaches(&mut self, state: &str) -> Value {
        let pod = self.pod;
        poll(|| pod.status().filter(|status| status["state"] == state)).unwrap_or_else(|| {
            panic!(
                "never {state}; status {:?}, log:\n{}",
                pod.status(),
                pod.log()
            )
        })
    }

    /// Polls until the probe at `path` answers `code`.
    pub fn answers(&mut self, path: &str, code: u16) -> String {
        let pod = self.pod;
        poll(|| {
            pod.get(path)
                .filter(|(found, _)| *found == code)
                .map(|(_, body)| body)
        })
        .unwrap_or_else(|| {
            panic!(
                "{path} never {code}; last {:?}, log:\n{}",
                pod.get(path),
                pod.log()
            )
        })
    }

    /// Sends a signal by name, as `kill` does.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for the end and says the exit code.
    pub fn ends(mut self) -> i32 {
        let ended = poll(|| self.child.try_wait().unwrap());
        let ended: ExitStatus =
            ended.unwrap_or_else(|| panic!("never ended; log:\n{}", self.pod.log()));
        ended.code().unwrap_or(-1)
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Sidecar<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends the signal `name` to the process `id`.
pub fn signal(id: u32, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &id.to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// Polls `condition` until it holds, up to [`PATIENCE`].
pub fn poll<T>(mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if started.elapsed() > PATIENCE {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// A GET: HTTP status and body; `None` when nothing answers.
pub fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    exchange(
        address,
        &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"),
    )
}

/// Sends `request` as it is and reads the answer to its end.
pub fn exchange(address: SocketAddr, request: &str) -> Option<(u16, String)> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange_on(stream, request)
}

/// The same on a connection that is there already.
pub fn exchange_on(mut stream: impl Read + Write, request: &str) -> Option<(u16, String)> {
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let code = answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((code, body.to_owned()))
}

/// Polls until so much of a metering hour is left that the test ends within it.
pub fn early_in_the_hour() {
    const NEEDED: i64 = 25;
    let second = || jiff::Timestamp::now().as_second() % 3600;
    poll(|| (second() < 3600 - NEEDED).then_some(())).expect("an hour begins");
}

pub fn now_seconds() -> f64 {
    jiff::Timestamp::now().as_duration().as_secs_f64()
}

/// A loopback address that no other test and no outgoing connection uses, so that it stays free while nothing listens there.
pub fn free_address() -> SocketAddr {
    static USED: AtomicU16 = AtomicU16::new(1);
    let [low, high] = USED.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    let process = std::process::id() % 250 + 2;
    let ip = Ipv4Addr::new(127, u8::try_from(process).unwrap(), high, low);
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
