//! The `marketplace-simulator` command.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, Command, value_parser};
use futures_util::StreamExt as _;
use marketplace_simulator::config::Product;
use marketplace_simulator::{Config, Simulator};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_tokio::Signals;

/// The command line, read.
struct Arguments {
    config: Config,
    address: SocketAddr,
    keys_dir: Option<PathBuf>,
    healthcheck: bool,
}

const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let done = arguments().and_then(|arguments| {
        if arguments.healthcheck {
            healthcheck(arguments.address)
        } else {
            run(&arguments)
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("marketplace-simulator: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Arguments, String> {
    let matches = Command::new("marketplace-simulator")
        .about("The AWS Marketplace Metering Service on loopback")
        .version(env!("CARGO_PKG_VERSION"))
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Products, callers, keys: TOML"),
        )
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("ADDRESS")
                .help("[default: 127.0.0.1:8430]"),
        )
        .arg(
            Arg::new("keys-dir")
                .long("keys-dir")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Where the public keys go"),
        )
        .arg(
            Arg::new("product-code")
                .long("product-code")
                .value_name("CODE")
                .action(ArgAction::Append)
                .help("A further product, entitled, with default settings"),
        )
        .arg(
            Arg::new("allow-remote")
                .long("allow-remote")
                .action(ArgAction::SetTrue)
                .help("Allow an address that is not loopback: for containers"),
        )
        .subcommand(
            Command::new("healthcheck")
                .about("Ask the simulator that listens at --listen whether it is up: 0 yes, 1 no"),
        )
        .get_matches();
    let mut config = match matches.get_one::<PathBuf>("config") {
        None => Config::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            Config::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?
        }
    };
    if let Some(listen) = matches.get_one::<String>("listen") {
        config.listen.clone_from(listen);
    }
    for code in matches
        .get_many::<String>("product-code")
        .unwrap_or_default()
    {
        config.products.push(Product::new(code));
    }
    let address: SocketAddr = config.listen.parse().map_err(|_| {
        format!(
            "{:?} is no address with a port, such as 127.0.0.1:8430",
            config.listen
        )
    })?;
    if !address.ip().is_loopback() && !matches.get_flag("allow-remote") {
        return Err(format!(
            "{address} is not loopback; --allow-remote allows it, where nobody else can reach it"
        ));
    }
    Ok(Arguments {
        config,
        address,
        healthcheck: matches.subcommand_matches("healthcheck").is_some(),
        keys_dir: matches.get_one::<PathBuf>("keys-dir").cloned(),
    })
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| error.to_string())?;
        let simulator = Simulator::start(&arguments.config).await.map_err(|error| error.to_string())?;
        if let Some(folder) = &arguments.keys_dir {
            write_keys(&simulator, folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        println!("{}", serde_json::json!({"listening": simulator.url(), "products": simulator.world().product_codes()}));
        signals.next().await;
        Ok(())
    })
}

/// For images that have no HTTP client.
fn healthcheck(mut address: SocketAddr) -> Result<(), String> {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, HEALTHCHECK_TIMEOUT)?;
        stream.set_read_timeout(Some(HEALTHCHECK_TIMEOUT))?;
        write!(
            stream,
            "GET /simulator/health HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    match ask() {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => Ok(()),
        Ok(answer) => Err(format!("{address} answers {:?}", answer.lines().next())),
        Err(error) => Err(format!("no simulator answers at {address}: {error}")),
    }
}

/// Each public key as `DIR/CODE/VERSION.pem`, and the first product's as `DIR/VERSION.pem` too.
fn write_keys(simulator: &Simulator, folder: &Path) -> std::io::Result<()> {
    let world = simulator.world();
    for (index, code) in world.product_codes().iter().enumerate() {
        // Product codes may contain slashes.
        let own = folder.join(code.replace('/', "_"));
        std::fs::create_dir_all(&own)?;
        let versions = world
            .product(code)
            .map(|product| product.keys.clone())
            .unwrap_or_default();
        for version in versions.iter().map(|key| key.version) {
            let pem = world.public_key(code, version).unwrap_or_default();
            std::fs::write(own.join(format!("{version}.pem")), pem)?;
            if index == 0 {
                std::fs::write(folder.join(format!("{version}.pem")), pem)?;
            }
        }
    }
    Ok(())
}
