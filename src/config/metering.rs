//! The settings of the metering endpoint and of what becomes of usage.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reader::{Read, Reader};
use super::settings::Sources;
use super::{ConfigError, bounded_duration, positive_duration};
use crate::auth::ClientAuth;
use crate::meter::{Combine, Rules};
use crate::usage::{Dimension, Period};

/// What `tollgate run` needs to know about metering.
#[derive(Clone, Debug)]
pub struct MeteringConfig {
    /// The metering endpoint.
    pub listen: Listen,
    /// Whose signatures callers of the endpoint need; `None` where nobody has to sign.
    pub client_auth: Option<ClientAuth>,
    /// What the core goes by.
    pub rules: Rules,
    /// What usage that can't be delivered leads to.
    pub on_failure: OnMeteringFailure,
    /// What becomes of BatchMeterUsage.
    pub saas_mode: Option<SaasMode>,
    /// Whether `POST /quitquitquit` ends the sidecar.
    pub quitquitquit: bool,
}

/// Where the metering endpoint is (`TOLLGATE_LISTEN`): nowhere that other hosts reach, unless callers have to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A socket in the file system; absolute, and short enough for the kernel.
    Unix(PathBuf),
}

/// What usage that can't be delivered leads to (`TOLLGATE_ON_METERING_FAILURE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMeteringFailure {
    /// Nothing: it is kept, logged and shown.
    Open,
    /// Not ready once the oldest undelivered usage has waited for so long.
    Closed(Duration),
}

/// What becomes of BatchMeterUsage (`TOLLGATE_SAAS_MODE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaasMode {
    /// Usage is summed in the ledger; AWS gets one record an hour.
    Aggregate,
    /// Each call goes to AWS as it is: the caller aggregates.
    Passthrough,
}

/// AWS advises not to fail closed before.
const CLOSED_MIN: Duration = Duration::from_hours(2);
const WAIT_MAX: Duration = Duration::from_hours(1);
const DIMENSIONS_EXPECTED: &str = "names with how reports within an hour combine: gb,users:max,seats:last,hosts:distinct (without suffix: sum)";
const LISTEN_EXPECTED: &str = "a loopback address and a port (127.0.0.1:8421, [::1]:8421), unix:/path, or any address with TOLLGATE_CLIENT_AUTH_FILE";
/// Of `sockaddr_un`'s 108 bytes the last one ends the path.
const SOCKET_PATH_BYTES_MAX: usize = 107;
const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_MARKETPLACE_METERING", "AWS_ENDPOINT_URL"];

/// Reads the settings of this file.
pub(super) fn read(reader: &mut Reader<'_>, sources: &Sources) -> Read<MeteringConfig> {
    let client_auth = read_client_auth(reader);
    let listen = read_listen(reader, sources, !matches!(client_auth, Ok(None)));
    let dimensions = reader.optional("dimensions", DIMENSIONS_EXPECTED, parse_dimensions);
    let on_failure = read_on_failure(reader);
    let quitquitquit = reader.or_default("quitquitquit", "off", "on or off", |text| match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it is neither".to_owned()),
    });
    let period = read_period(reader, sources);
    let straggler_wait_ms = read_wait(reader, "straggler-wait", "60s");
    let submit_jitter_ms = read_wait(reader, "submit-jitter", "5m");
    let zero_usage = reader.or_default("zero-usage", "skip", "skip or report", |text| match text {
        "skip" => Ok(false),
        "report" => Ok(true),
        _ => Err("it is neither".to_owned()),
    });
    let saas_mode = reader.optional("saas-mode", "aggregate or passthrough", |text| match text {
        "aggregate" => Ok(SaasMode::Aggregate),
        "passthrough" => Ok(SaasMode::Passthrough),
        _ => Err("it is neither".to_owned()),
    });
    if let (Ok(None), Ok(true)) = (&dimensions, &zero_usage) {
        return Err(reader.missing(
            "dimensions",
            "the dimensions that TOLLGATE_ZERO_USAGE=report is to report",
        ));
    }
    Ok(MeteringConfig {
        listen: listen?,
        client_auth: client_auth?,
        rules: Rules {
            period: period?,
            straggler_wait_ms: straggler_wait_ms?,
            submit_jitter_ms: submit_jitter_ms?,
            dimensions: dimensions?,
            zero_usage: zero_usage?,
            saas: saas_mode?.is_some(),
        },
        on_failure: on_failure?,
        saas_mode: saas_mode?,
        quitquitquit: quitquitquit?,
    })
}

fn read_client_auth(reader: &mut Reader<'_>) -> Read<Option<ClientAuth>> {
    reader.optional(
        "client-auth-file",
        "a TOML file, not readable by others, with a [[key]] of access_key_id and secret_access_key for each caller",
        |text| ClientAuth::load(Path::new(text)).map_err(|error| error.to_string()),
    )
}

fn read_listen(reader: &mut Reader<'_>, sources: &Sources, signed: bool) -> Read<Listen> {
    let listen =
        reader.or_default(
            "listen",
            "127.0.0.1:8421",
            LISTEN_EXPECTED,
            |text| match Listen::parse(text)? {
                Listen::Tcp(address) if !address.ip().is_loopback() && !signed => Err(
                    "it can be reached from other hosts, and anybody there could meter".to_owned(),
                ),
                listen => Ok(listen),
            },
        )?;
    match endpoint(sources) {
        Some((name, url)) if listen.is_target_of(url) => Err(reader.note(ConfigError {
            origin: name.to_owned(),
            value: Some(url.to_owned()),
            problem:
                "it leads to this sidecar's own metering endpoint, and nothing would ever reach AWS"
                    .to_owned(),
            expected: "set this variable on the main container alone".to_owned(),
        })),
        _ => Ok(listen),
    }
}

impl Listen {
    fn parse(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "it is no socket address".to_owned());
        };
        if path.len() > SOCKET_PATH_BYTES_MAX {
            return Err(format!(
                "the path has {} bytes, and the kernel takes {SOCKET_PATH_BYTES_MAX}",
                path.len()
            ));
        }
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err("it is no absolute path of a file".to_owned());
        }
        Ok(Self::Unix(PathBuf::from(path)))
    }

    fn is_target_of(&self, url: &str) -> bool {
        let Self::Tcp(address) = self else {
            return false;
        };
        let own_ip = address.ip();
        let any = own_ip.is_loopback() || own_ip.is_unspecified();
        let reached = (any && is_loopback(url)) || host(url).parse() == Ok(own_ip);
        reached && port(url) == Some(address.port())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn parse_dimensions(text: &str) -> Result<BTreeMap<Dimension, Combine>, String> {
    let mut dimensions = BTreeMap::new();
    for entry in text.split(',') {
        let entry = entry.trim();
        let (name, combine) = match entry.rsplit_once(':') {
            Some((name, "sum")) => (name, Combine::Sum),
            Some((name, "max")) => (name, Combine::Max),
            Some((name, "last")) => (name, Combine::Last),
            Some((name, "distinct")) => (name, Combine::Distinct),
            Some((_, suffix)) => {
                return Err(format!("{suffix:?} is none of sum, max, last and distinct"));
            }
            None => (entry, Combine::Sum),
        };
        let dimension = Dimension::parse(name)
            .map_err(|error| format!("{name:?} can't be a dimension: {error}"))?;
        if dimensions.insert(dimension, combine).is_some() {
            return Err(format!("{name:?} stands twice"));
        }
    }
    Ok(dimensions)
}

fn read_on_failure(reader: &mut Reader<'_>) -> Read<OnMeteringFailure> {
    reader.or_default(
        "on-metering-failure",
        "open",
        "open, or closed:DURATION with 2h at least",
        |text| match text.split_once(':') {
            None if text == "open" => Ok(OnMeteringFailure::Open),
            Some(("closed", length)) => match positive_duration(length)? {
                length if length < CLOSED_MIN => {
                    Err("AWS advises not to fail closed before two hours".to_owned())
                }
                length => Ok(OnMeteringFailure::Closed(length)),
            },
            _ => Err("it is neither".to_owned()),
        },
    )
}

/// A shortened hour would be nonsense to AWS, so the real service never sees one.
fn read_period(reader: &mut Reader<'_>, sources: &Sources) -> Read<Period> {
    let simulated = endpoint(sources).is_some_and(|(_, url)| is_loopback(url));
    reader.or_default(
        "metering-period",
        "1h",
        "1h; shorter only while AWS_ENDPOINT_URL_MARKETPLACE_METERING is a loopback address",
        |text| {
            let period = positive_duration(text)?;
            let millis = i64::try_from(period.as_millis()).map_err(|error| error.to_string())?;
            match Period::from_millis(millis) {
                None => Err("it is longer than an hour".to_owned()),
                Some(period) if period != Period::HOUR && !simulated => Err(
                    "AWS meters by the hour, and the endpoint is not a loopback address".to_owned(),
                ),
                Some(period) => Ok(period),
            }
        },
    )
}

fn read_wait(reader: &mut Reader<'_>, name: &'static str, default: &str) -> Read<i64> {
    let wait = reader.or_default(name, default, super::duration::EXPECTED, |text| {
        bounded_duration(text, WAIT_MAX)
    })?;
    Ok(i64::try_from(wait.as_millis()).expect("an hour of milliseconds fits"))
}

/// The AWS endpoint that takes the place of the real one, and the variable that says so.
fn endpoint(sources: &Sources) -> Option<(&'static str, &str)> {
    if !sources.endpoint_override_allowed {
        return None;
    }
    ENDPOINT_VARIABLES
        .into_iter()
        .filter_map(|name| Some((name, sources.environment.get(name)?.as_str())))
        .find(|(_, url)| !url.is_empty())
}

fn is_loopback(url: &str) -> bool {
    let host = host(url);
    host.parse::<IpAddr>()
        .map_or(host == "localhost", |address| address.is_loopback())
}

fn host(url: &str) -> String {
    let uri: http::Uri = url.parse().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned()
}

fn port(url: &str) -> Option<u16> {
    let uri: http::Uri = url.parse().ok()?;
    uri.port_u16().or(match uri.scheme_str() {
        Some("https") => Some(443),
        _ => Some(80),
    })
}
