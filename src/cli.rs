//! The command line: one subcommand each, one flag per setting. `run` is the default.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};

use crate::clock::Uptime;
use crate::command;
use crate::config::settings::{SETTINGS, Sources, sealed_path};
use crate::config::{ConfigErrors, duration};
use crate::exit::Exit;

/// Parses the arguments of this process, runs the command and says how it ended.
pub fn main() -> ExitCode {
    let matches = match definition().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Success
            };
            // There is nobody left to tell when neither stdout nor stderr can be written.
            let _ = error.print();
            return exit.into();
        }
    };
    dispatch(&matches).into()
}

fn definition() -> Command {
    let settings = SETTINGS.iter().map(|setting| {
        Arg::new(setting.name)
            .long(setting.name)
            .value_name(setting.value)
            .help(format!("{} [{}]", setting.help, setting.variable()))
            .global(true)
            .help_heading("Settings (flag, or variable)")
    });
    let run = Command::new("run")
        .about("Register, serve probes and hold the main container back (the default)");
    let healthcheck = Command::new("healthcheck")
        .about("Exit with 0 when the sidecar is ready, else 1; for ECS and Docker");
    let wait = Command::new("wait")
        .about("Wait for a status file whose proof verifies, then become COMMAND")
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("DURATION")
                .default_value("5m")
                .value_parser(|text: &str| {
                    duration::parse(text).ok_or(format!("expected {}", duration::EXPECTED))
                })
                .help("Give up after this long (exit code 75)"),
        )
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .action(ArgAction::Append)
                .value_parser(value_parser!(OsString))
                .last(true)
                .help("The main program and its arguments"),
        );
    let verify = Command::new("verify")
        .about("Verify the proof in a status file, offline: 0 valid, 77 not")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("The status file [default: the configured one]"),
        );
    let usage = Command::new("usage")
        .about("List what has become of the usage; decide a record in doubt")
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .value_parser(["table", "json", "csv"])
                .default_value("table")
                .help("How to list"),
        )
        .subcommand(
            Command::new("resolve")
                .about("Decide a record in doubt, after a look at AWS's own reports")
                .arg(
                    Arg::new("id")
                        .value_name("ID")
                        .required(true)
                        .help("The record's number"),
                )
                .arg(
                    Arg::new("delivered")
                        .long("delivered")
                        .action(ArgAction::SetTrue)
                        .help("AWS has it"),
                )
                .arg(
                    Arg::new("not-delivered")
                        .long("not-delivered")
                        .action(ArgAction::SetTrue)
                        .help("AWS has it not: its quantity joins the open hour"),
                )
                .group(
                    ArgGroup::new("decision")
                        .args(["delivered", "not-delivered"])
                        .required(true),
                ),
        );
    let install = Command::new("install")
        .about("Copy this binary to PATH, for images without a cp")
        .arg(
            Arg::new("path")
                .value_name("PATH")
                .required(true)
                .value_parser(value_parser!(PathBuf)),
        );
    Command::new("tollgate")
        .about("The sidecar that proves entitlement on AWS Marketplace and holds the main container back until then")
        .version(env!("CARGO_PKG_VERSION"))
        .args(settings)
        .subcommands([run, healthcheck, wait, verify, usage, install])
}

fn dispatch(matches: &ArgMatches) -> Exit {
    let uptime = Uptime::start();
    let sources = match sources(matches.subcommand().map_or(matches, |(_, sub)| sub)) {
        Ok(sources) => sources,
        Err(errors) => return command::misconfigured(&errors),
    };
    match matches.subcommand() {
        None | Some(("run", _)) => command::run(&sources, uptime),
        Some(("healthcheck", _)) => command::healthcheck(&sources),
        Some(("wait", sub)) => {
            let timeout = *sub.get_one("timeout").expect("it has a default");
            let main: Vec<OsString> = sub
                .get_many("command")
                .unwrap_or_default()
                .cloned()
                .collect();
            command::wait(&sources, timeout, &main)
        }
        Some(("verify", sub)) => command::verify(
            &sources,
            sub.get_one::<PathBuf>("file").map(PathBuf::as_path),
        ),
        Some(("usage", sub)) => dispatch_usage(sub, &sources),
        Some(("install", sub)) => {
            command::install(sub.get_one::<PathBuf>("path").expect("it is required"))
        }
        Some((other, _)) => unreachable!("clap knows no command {other}"),
    }
}

fn dispatch_usage(matches: &ArgMatches, sources: &Sources) -> Exit {
    if let Some(("resolve", sub)) = matches.subcommand() {
        let id = sub.get_one::<String>("id").expect("it is required");
        return command::resolve(sources, id, sub.get_flag("delivered"));
    }
    let format = match matches.get_one::<String>("format").map(String::as_str) {
        Some("json") => command::Format::Json,
        Some("csv") => command::Format::Csv,
        _ => command::Format::Table,
    };
    command::usage(sources, format)
}

fn sources(matches: &ArgMatches) -> Result<Sources, ConfigErrors> {
    let flags: BTreeMap<&'static str, String> = SETTINGS
        .iter()
        .filter_map(|setting| {
            Some((
                setting.name,
                matches.get_one::<String>(setting.name)?.clone(),
            ))
        })
        .collect();
    let mut sources = Sources::new(flags, std::env::vars_os());
    sources.seal(&sealed_path()).map_err(ConfigErrors)?;
    Ok(sources)
}
