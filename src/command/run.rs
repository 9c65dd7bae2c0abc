//! `tollgate run`.

use crate::app::App;
use crate::clock::Uptime;
use crate::command::{complain, misconfigured};
use crate::config::RunConfig;
use crate::config::settings::Sources;
use crate::descriptors;
use crate::exit::Exit;
use crate::telemetry;

/// Runs the sidecar until a signal or a decision ends it.
pub fn run(sources: &Sources, uptime: Uptime) -> Exit {
    let config = match RunConfig::read(sources) {
        Ok(config) => config,
        Err(errors) => return misconfigured(&errors),
    };
    telemetry::init(&config.log);
    descriptors::claim();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format_args!("can't start: {error}"));
            return Exit::Internal;
        }
    };
    let environment = sources.environment.clone();
    let ended =
        runtime.block_on(async { App::build(config, environment, uptime).await?.run().await });
    // Look-ups and file work in progress must not hold the exit back.
    runtime.shutdown_background();
    ended.unwrap_or_else(|error| {
        tracing::error!(%error, "tollgate can't go on");
        error.exit()
    })
}
