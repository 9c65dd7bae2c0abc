//! The settings by name, and where a value may come from: the sealed file, flags, the environment.
//!
//! The sealed file wins and can't be contradicted; then a flag; then the `TOLLGATE_` variable of the same name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ConfigError;

/// One setting: its flag is `--name`, its variable `TOLLGATE_NAME`, its key in the sealed file `name` in `snake_case`.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// In kebab-case.
    pub name: &'static str,
    /// What stands for the value in help texts.
    pub value: &'static str,
    /// One line for `--help`, the default included.
    pub help: &'static str,
}

const fn setting(name: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { name, value, help }
}

/// Every setting there is.
pub const SETTINGS: &[Setting] = &[
    setting(
        "product-code",
        "CODE",
        "Product code of the listing on AWS Marketplace (required)",
    ),
    setting(
        "public-keys",
        "V=FILE,...",
        "Public key versions and their SPKI PEM files, 1=/etc/tollgate/keys/1.pem,2=... (required for register-usage)",
    ),
    setting(
        "entitlement-check",
        "CHECK",
        "register-usage, meter-usage:DIMENSION or none [default: register-usage]",
    ),
    setting(
        "nonce-file",
        "FILE",
        "The nonce that the main container wants in the signature [default: a random one]",
    ),
    setting(
        "status-file",
        "FILE",
        "Entitlement status for the main container [default: /run/tollgate/status.json]",
    ),
    setting(
        "state-dir",
        "DIR",
        "Grant and ledger, mode 0700 [default: /var/lib/tollgate]",
    ),
    setting(
        "health-listen",
        "ADDR",
        "Probes and status, read-only [default: 0.0.0.0:8422]",
    ),
    setting(
        "register-deadline",
        "DURATION",
        "How long transient failures are retried [default: 30m]",
    ),
    setting(
        "on-denied",
        "ACTION",
        "exit (77), or hold: stay up, not ready, ask again every 5 minutes [default: exit]",
    ),
    setting(
        "on-unavailable",
        "ACTION",
        "After the deadline: exit (75), or grace:DURATION [default: exit]",
    ),
    setting(
        "listen",
        "ADDR",
        "Metering endpoint: loopback or unix:/path, any address with client authentication [default: 127.0.0.1:8421]",
    ),
    setting(
        "client-auth-file",
        "FILE",
        "Key pairs with one of which callers of the metering endpoint must sign (SigV4) [default: none, nobody signs]",
    ),
    setting(
        "dimensions",
        "NAME[:HOW],...",
        "Dimensions allowed, and how reports within an hour combine: gb,users:max,seats:last,hosts:distinct [default: any, sum]",
    ),
    setting(
        "on-metering-failure",
        "ACTION",
        "open, or closed:DURATION (2h at least): not ready while usage could not be delivered for so long [default: open]",
    ),
    setting(
        "quitquitquit",
        "SWITCH",
        "on: POST /quitquitquit on the metering endpoint ends the sidecar as SIGTERM does [default: off]",
    ),
    setting(
        "metering-period",
        "DURATION",
        "The metering hour; shorter only against a simulator on loopback [default: 1h]",
    ),
    setting(
        "straggler-wait",
        "DURATION",
        "From an hour's end until its record is sealed [default: 60s]",
    ),
    setting(
        "submit-jitter",
        "DURATION",
        "Over which a fleet's records are spread [default: 5m]",
    ),
    setting(
        "zero-usage",
        "WHAT",
        "report: each of the dimensions gets a record of 0 for an hour without usage; or skip [default: skip]",
    ),
    setting(
        "saas-mode",
        "MODE",
        "What becomes of BatchMeterUsage: aggregate (summed, one record an hour), or passthrough (sent as it is); set it for SaaS products [default: aggregate]",
    ),
    setting(
        "shutdown-grace",
        "DURATION",
        "From SIGTERM to exit [default: 25s]",
    ),
    setting(
        "log",
        "FILTER",
        "Log filter: error, warn, info, debug, or target=level,... [default: info]",
    ),
    setting(
        "log-format",
        "FORMAT",
        "json, or text for people [default: json]",
    ),
];

/// The sealed file's own setting: `false` makes `AWS_ENDPOINT_URL*` ineffective. No flag or variable corresponds to it.
pub const ALLOW_ENDPOINT_OVERRIDE: &str = "allow_endpoint_override";

const PREFIX: &str = "TOLLGATE_";

/// The raw texts that the configuration is read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// From the command line, by setting name.
    pub flags: BTreeMap<&'static str, String>,
    /// The whole environment; names and values that are not UTF-8 are in `undecodable`.
    pub environment: BTreeMap<String, String>,
    /// `TOLLGATE_` variables whose value is not UTF-8.
    pub undecodable: Vec<String>,
    /// What the sealed file sets, by its key.
    pub sealed: BTreeMap<String, String>,
    /// The sealed file's `allow_endpoint_override`; true without it.
    pub endpoint_override_allowed: bool,
}

/// A value and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) origin: String,
}

impl Setting {
    /// The environment variable, `TOLLGATE_PRODUCT_CODE`.
    pub fn variable(&self) -> String {
        variable(self.name)
    }
}

/// The variable of the setting `name`.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('-', "_").to_ascii_uppercase())
}

impl Sources {
    /// Flags and an environment, without a sealed file.
    pub fn new(
        flags: BTreeMap<&'static str, String>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut sources = Self {
            flags,
            endpoint_override_allowed: true,
            ..Self::default()
        };
        for (name, value) in environment {
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => {
                    sources.environment.insert(name, value);
                }
                Err(_) if name.starts_with(PREFIX) => sources.undecodable.push(name),
                Err(_) => {}
            }
        }
        sources
    }

    /// Adds what the sealed file at `path` sets; a file that is not there sets nothing.
    pub fn seal(&mut self, path: &Path) -> Result<(), Vec<ConfigError>> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(vec![ConfigError::sealed(path, &error.to_string())]),
        };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            vec![ConfigError::sealed(
                path,
                error.to_string().replace('\n', " ").trim(),
            )]
        })?;
        let mut errors = Vec::new();
        for (key, value) in table {
            if let Err(why) = self.seal_one(&key, value) {
                errors.push(ConfigError::sealed(path, &format!("{key}: {why}")));
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    fn seal_one(&mut self, key: &str, value: toml::Value) -> Result<(), String> {
        if key == ALLOW_ENDPOINT_OVERRIDE {
            self.endpoint_override_allowed = value
                .as_bool()
                .ok_or_else(|| "expected true or false".to_owned())?;
            return Ok(());
        }
        if !SETTINGS.iter().any(|s| s.name.replace('-', "_") == key) {
            return Err("there is no such setting".to_owned());
        }
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Array(items) => items
                .into_iter()
                .map(|item| match item {
                    toml::Value::String(text) => Ok(text),
                    _ => Err("expected a list of strings".to_owned()),
                })
                .collect::<Result<Vec<_>, _>>()?
                .join(","),
            _ => return Err("expected a string, or a list of strings".to_owned()),
        };
        self.sealed.insert(key.to_owned(), text);
        Ok(())
    }

    /// The value of `name` from the strongest source; an error where the sealed file is contradicted.
    pub(super) fn find(&self, name: &'static str) -> Result<Option<Given>, ConfigError> {
        let variable = variable(name);
        let flag = self.flags.get(name).map(|text| Given {
            text: text.clone(),
            origin: format!("--{name}"),
        });
        let from_environment = self.environment.get(&variable).map(|text| Given {
            text: text.clone(),
            origin: variable.clone(),
        });
        let Some(sealed) = self.sealed.get(&name.replace('-', "_")) else {
            return Ok(flag.or(from_environment));
        };
        for given in [flag, from_environment].into_iter().flatten() {
            if given.text != *sealed {
                return Err(ConfigError::contradiction(&given, sealed));
            }
        }
        Ok(Some(Given {
            text: sealed.clone(),
            origin: format!("{} in the sealed file", name.replace('-', "_")),
        }))
    }

    /// An error for each `TOLLGATE_` variable that is not a setting.
    pub(super) fn unknown_variables(&self) -> impl Iterator<Item = ConfigError> {
        let undecodable = self.undecodable.iter().map(|name| ConfigError {
            origin: name.clone(),
            value: None,
            problem: "its value is not UTF-8".to_owned(),
            expected: "plain text".to_owned(),
        });
        let unknown = self
            .environment
            .iter()
            .filter(|(name, value)| {
                name.starts_with(PREFIX)
                    && !SETTINGS.iter().any(|s| s.variable() == **name)
                    && !is_kubernetes_service_link(name, value)
            })
            .map(|(name, value)| ConfigError {
                origin: name.clone(),
                value: Some(value.clone()),
                problem: "there is no such setting".to_owned(),
                expected: closest_variable(name).map_or_else(
                    || "one of the variables that `tollgate run --help` lists".to_owned(),
                    |close| format!("perhaps {close}"),
                ),
            });
        undecodable.chain(unknown)
    }
}

/// Kubernetes puts `NAME_SERVICE_HOST`, `NAME_PORT_443_TCP_ADDR` and the like into every container for each Service of the
/// namespace; a Service named `tollgate` must not stop the sidecar.
fn is_kubernetes_service_link(name: &str, value: &str) -> bool {
    let service_port = |name: &str| {
        name.split_once("_PORT_").is_some_and(|(_, rest)| {
            let mut parts = rest.split('_');
            parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
                && parts
                    .next()
                    .is_some_and(|protocol| matches!(protocol, "TCP" | "UDP" | "SCTP"))
        })
    };
    let suffixes = ["_SERVICE_HOST", "_SERVICE_PORT"];
    let links = ["tcp://", "udp://", "sctp://"];
    suffixes.iter().any(|suffix| name.ends_with(suffix))
        || name.contains("_SERVICE_PORT_")
        || service_port(name)
        || (name.ends_with("_PORT") && links.iter().any(|link| value.starts_with(link)))
}

fn closest_variable(name: &str) -> Option<String> {
    SETTINGS
        .iter()
        .map(Setting::variable)
        .map(|variable| (edit_distance(name, &variable), variable))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, variable)| variable)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Where the sealed file stands in the seller's image.
pub fn sealed_path() -> PathBuf {
    PathBuf::from("/etc/tollgate/sealed.toml")
}
