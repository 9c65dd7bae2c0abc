//! The configuration: typed, whole, every error reported at once.
//!
//! Each command reads the part it needs: [`RunConfig`], [`ProofConfig`] for `wait` and `verify`, [`health_address`]
//! for `healthcheck`. Files that a setting names (keys, nonce) are read here too, so that a mistake in
//! them is found together with all others and before anything starts.

pub mod duration;
pub mod metering;
mod reader;
pub mod settings;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::filter::Targets;

use crate::entitlement::keys::{KeyFiles, PublicKeys};
use crate::entitlement::nonce::Nonce;
use crate::telemetry::{LogConfig, LogFormat};
use crate::usage::{Dimension, ProductCode};
use metering::MeteringConfig;
use reader::{Read, Reader};
use settings::{Given, Sources};

/// Everything `tollgate run` needs to know.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// What is sold.
    pub product_code: ProductCode,
    /// How the buyer's entitlement is found out.
    pub check: EntitlementCheck,
    /// The nonce of the main container; without it each request gets a random one.
    pub nonce: Option<Nonce>,
    /// Where the status file goes.
    pub status_file: PathBuf,
    /// Where grant and ledger are kept.
    pub state_dir: PathBuf,
    /// The address of probes and status.
    pub health_listen: SocketAddr,
    /// Transient failures are retried until the process has been up for this long.
    pub register_deadline: Duration,
    /// What a refusal leads to.
    pub on_denied: OnDenied,
    /// What the deadline leads to.
    pub on_unavailable: OnUnavailable,
    /// From the first SIGTERM to the end.
    pub shutdown_grace: Duration,
    /// False when the sealed file switches `AWS_ENDPOINT_URL*` off.
    pub endpoint_override_allowed: bool,
    /// The metering endpoint, and what becomes of usage.
    pub metering: MeteringConfig,
    /// Filter and format.
    pub log: LogConfig,
}

/// How the entitlement is found out (`TOLLGATE_ENTITLEMENT_CHECK`).
#[derive(Clone, Debug)]
pub enum EntitlementCheck {
    /// RegisterUsage and its signature: products priced by hour or month.
    RegisterUsage {
        /// Read at start, and again on SIGHUP.
        files: KeyFiles,
        /// What the files hold.
        keys: PublicKeys,
    },
    /// A MeterUsage record of 0: custom-metered products, which have no RegisterUsage.
    MeterUsage(Dimension),
    /// Free and bring-your-own-licence products.
    None,
}

/// What a refusal leads to (`TOLLGATE_ON_DENIED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDenied {
    /// Exit with 77.
    Exit,
    /// Stay up, not ready, and ask again every few minutes.
    Hold,
}

/// What the deadline leads to (`TOLLGATE_ON_UNAVAILABLE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnavailable {
    /// Exit with 75.
    Exit,
    /// Ready in state "grace" for so long after the deadline, then exit with 75.
    Grace(Duration),
}

/// What `wait` and `verify` need: the proof's place and what it is checked against.
#[derive(Clone, Debug)]
pub struct ProofConfig {
    /// The status file to read.
    pub status_file: PathBuf,
    /// The product that the proof must be for.
    pub product_code: ProductCode,
    /// The check that the status file must have passed.
    pub check: EntitlementCheck,
    /// The nonce that the proof must carry.
    pub nonce: Option<Nonce>,
    /// True when a status of "grace" counts.
    pub grace_accepted: bool,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// One thing that is wrong: shown as one line with origin, value and expected form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The flag, variable or sealed key.
    pub origin: String,
    /// The text given, if any was.
    pub value: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// What would be right.
    pub expected: String,
}

const VALUE_CHARS_SHOWN: usize = 200;
const DEADLINE_MAX: Duration = Duration::from_hours(30 * 24);

impl RunConfig {
    /// Reads all settings that `run` has.
    pub fn read(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(sources);
        let product_code = read_product_code(&mut reader);
        let check = read_check(&mut reader);
        let nonce = read_nonce(&mut reader);
        let status_file = read_path(&mut reader, "status-file", "/run/tollgate/status.json");
        let state_dir = read_state_dir(&mut reader);
        let health_listen = read_health_listen(&mut reader);
        let register_deadline = read_duration(&mut reader, "register-deadline", "30m");
        let on_denied = reader.or_default("on-denied", "exit", "exit or hold", |text| match text {
            "exit" => Ok(OnDenied::Exit),
            "hold" => Ok(OnDenied::Hold),
            _ => Err("it is neither".to_owned()),
        });
        let on_unavailable = read_on_unavailable(&mut reader);
        let shutdown_grace = read_duration(&mut reader, "shutdown-grace", "25s");
        let metering = metering::read(&mut reader, sources);
        let log = read_log(&mut reader);
        reader.finish()?;
        let complete = || {
            Read::Ok(Self {
                product_code: product_code?,
                check: check?,
                nonce: nonce?,
                status_file: status_file?,
                state_dir: state_dir?,
                health_listen: health_listen?,
                register_deadline: register_deadline?,
                on_denied: on_denied?,
                on_unavailable: on_unavailable?,
                shutdown_grace: shutdown_grace?,
                endpoint_override_allowed: sources.endpoint_override_allowed,
                metering: metering?,
                log: log?,
            })
        };
        Ok(complete().expect("what can't be read has been noted, and `finish` has returned it"))
    }
}

impl ProofConfig {
    /// Reads what concerns the proof; `status_file` comes from an argument where a command takes one.
    pub fn read(sources: &Sources, status_file: Option<&Path>) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(sources);
        let product_code = read_product_code(&mut reader);
        let check = read_check(&mut reader);
        let nonce = read_nonce(&mut reader);
        let configured = read_path(&mut reader, "status-file", "/run/tollgate/status.json");
        let on_unavailable = read_on_unavailable(&mut reader);
        reader.finish()?;
        let complete = || {
            Read::Ok(Self {
                status_file: status_file.map_or(configured, |path| Ok(path.to_owned()))?,
                product_code: product_code?,
                check: check?,
                nonce: nonce?,
                grace_accepted: on_unavailable? != OnUnavailable::Exit,
            })
        };
        Ok(complete().expect("what can't be read has been noted, and `finish` has returned it"))
    }
}

/// The address that `healthcheck` asks: the health listener's, with loopback in place of "any address".
pub fn health_address(sources: &Sources) -> Result<SocketAddr, ConfigErrors> {
    let mut reader = Reader::new(sources);
    let address = read_health_listen(&mut reader);
    reader.finish()?;
    let mut address =
        address.expect("what can't be read has been noted, and `finish` has returned it");
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(address)
}

/// The state folder, for commands that ask the running sidecar.
pub fn state_dir(sources: &Sources) -> Result<PathBuf, ConfigErrors> {
    let mut reader = Reader::new(sources);
    let state_dir = read_state_dir(&mut reader);
    reader.finish()?;
    Ok(state_dir.expect("what can't be read has been noted, and `finish` has returned it"))
}

impl EntitlementCheck {
    /// The name that status files carry.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RegisterUsage { .. } => REGISTER_USAGE,
            Self::MeterUsage(_) => METER_USAGE,
            Self::None => NONE,
        }
    }
}

/// The check of products priced by hour or month.
pub const REGISTER_USAGE: &str = "register-usage";
/// The check of custom-metered products.
pub const METER_USAGE: &str = "meter-usage";
/// No check.
pub const NONE: &str = "none";

const CHECK_EXPECTED: &str = "register-usage, meter-usage:DIMENSION or none";

fn read_product_code(reader: &mut Reader<'_>) -> Read<ProductCode> {
    reader.required("product-code", "the product code of the listing", |text| {
        ProductCode::parse(text).map_err(|e| e.to_string())
    })
}

enum CheckKind {
    RegisterUsage,
    MeterUsage(Dimension),
    None,
}

fn read_check_kind(reader: &mut Reader<'_>) -> Read<CheckKind> {
    let parse = |text: &str| match text {
        REGISTER_USAGE => Ok(CheckKind::RegisterUsage),
        NONE => Ok(CheckKind::None),
        METER_USAGE => Err("it names no dimension".to_owned()),
        _ => match text.split_once(':') {
            Some((METER_USAGE, dimension)) => Dimension::parse(dimension)
                .map(CheckKind::MeterUsage)
                .map_err(|e| format!("its dimension can't be used: {e}")),
            _ => Err("it is none of them".to_owned()),
        },
    };
    reader.or_default("entitlement-check", REGISTER_USAGE, CHECK_EXPECTED, parse)
}

fn read_keys(reader: &mut Reader<'_>) -> Read<Option<(KeyFiles, PublicKeys)>> {
    reader.optional(
        "public-keys",
        "key versions and their SPKI PEM files: 1=/etc/tollgate/keys/1.pem,2=/etc/tollgate/keys/2.pem",
        |text| {
            let files = KeyFiles::parse(text).map_err(|e| e.to_string())?;
            let keys = files.load().map_err(|e| e.to_string())?;
            Ok((files, keys))
        },
    )
}

fn read_check(reader: &mut Reader<'_>) -> Read<EntitlementCheck> {
    let kind = read_check_kind(reader);
    let keys = read_keys(reader);
    match (kind?, keys?) {
        (CheckKind::None, _) => Ok(EntitlementCheck::None),
        (CheckKind::MeterUsage(dimension), _) => Ok(EntitlementCheck::MeterUsage(dimension)),
        (CheckKind::RegisterUsage, Some((files, keys))) => {
            Ok(EntitlementCheck::RegisterUsage { files, keys })
        }
        (CheckKind::RegisterUsage, None) => Err(reader.missing(
            "public-keys",
            "the public keys that AWS Marketplace gave for this product: 1=/etc/tollgate/keys/1.pem",
        )),
    }
}

fn read_nonce(reader: &mut Reader<'_>) -> Read<Option<Nonce>> {
    reader.optional("nonce-file", "a file with 1 to 255 characters", |text| {
        Nonce::read(Path::new(text)).map_err(|e| e.to_string())
    })
}

fn read_path(reader: &mut Reader<'_>, name: &'static str, default: &str) -> Read<PathBuf> {
    reader.or_default(name, default, "a path", |text| match text {
        "" => Err("it is empty".to_owned()),
        _ => Ok(PathBuf::from(text)),
    })
}

fn read_state_dir(reader: &mut Reader<'_>) -> Read<PathBuf> {
    read_path(reader, "state-dir", "/var/lib/tollgate")
}

fn read_health_listen(reader: &mut Reader<'_>) -> Read<SocketAddr> {
    reader.or_default(
        "health-listen",
        "0.0.0.0:8422",
        "an address and a port: 0.0.0.0:8422 or [::]:8422",
        |text| {
            text.parse()
                .map_err(|_| "it is no socket address".to_owned())
        },
    )
}

fn read_duration(reader: &mut Reader<'_>, name: &'static str, default: &str) -> Read<Duration> {
    reader.or_default(name, default, duration::EXPECTED, positive_duration)
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match bounded_duration(text, DEADLINE_MAX)? {
        Duration::ZERO => Err("it is zero".to_owned()),
        duration => Ok(duration),
    }
}

/// A duration up to `longest`, zero included.
fn bounded_duration(text: &str, longest: Duration) -> Result<Duration, String> {
    match duration::parse(text) {
        None => Err("it is no duration".to_owned()),
        Some(duration) if duration > longest => {
            Err(format!("it is longer than {}h", longest.as_secs() / 3600))
        }
        Some(duration) => Ok(duration),
    }
}

fn read_on_unavailable(reader: &mut Reader<'_>) -> Read<OnUnavailable> {
    reader.or_default(
        "on-unavailable",
        "exit",
        "exit, or grace:DURATION as in grace:2h",
        |text| match text.split_once(':') {
            None if text == "exit" => Ok(OnUnavailable::Exit),
            Some(("grace", length)) => positive_duration(length).map(OnUnavailable::Grace),
            _ => Err("it is neither".to_owned()),
        },
    )
}

fn read_log(reader: &mut Reader<'_>) -> Read<LogConfig> {
    let filter = reader.or_default(
        "log",
        "info",
        "error, warn, info, debug, or target=level,...",
        |text| text.parse::<Targets>().map_err(|e| e.to_string()),
    );
    let format = reader.or_default("log-format", "json", "json or text", |text| match text {
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err("it is neither".to_owned()),
    });
    Ok(LogConfig {
        filter: filter?,
        format: format?,
    })
}

impl ConfigError {
    fn sealed(path: &Path, problem: &str) -> Self {
        Self {
            origin: path.display().to_string(),
            value: None,
            problem: problem.to_owned(),
            expected: "TOML whose keys are settings in snake_case, or allow_endpoint_override"
                .to_owned(),
        }
    }

    fn contradiction(given: &Given, sealed: &str) -> Self {
        Self {
            origin: given.origin.clone(),
            value: Some(given.text.clone()),
            problem: format!(
                "the seller's sealed file sets this to {sealed:?} and nothing may change it"
            ),
            expected: "leave it out".to_owned(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)?;
        if let Some(value) = &self.value {
            let shown: String = value.chars().take(VALUE_CHARS_SHOWN).collect();
            let rest = if shown.len() < value.len() { "..." } else { "" };
            write!(f, " is {shown:?}{rest}")?;
        }
        write!(f, ": {}; expected {}", self.problem, self.expected)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}
