//! The command line of Spot Guard.

use actix_web::dev::Server;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use spot_guard::actors::supervision::Shutdown;
use spot_guard::clock::Clock;
use spot_guard::config::Config;
use spot_guard::controller::Controller;
use spot_guard::http::{self, ApiState, Certificate, Door, Reviews, Secrets};
use spot_guard::telemetry::liveness::Liveness;
use spot_guard::telemetry::log_filter::LogFilter;
use spot_guard::{crd, telemetry};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Replaces EC2 Spot nodes before AWS takes them, and brings the cluster back to Spot.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Replace nodes under notice, and bring fallbacks back to Spot
    Controller {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The kubeconfig for the Kubernetes API; by default the pod's own service account
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
        /// The address of the HTTP API; overrides the configuration
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
        /// The loopback address for reading without a token; overrides the configuration
        #[arg(long, value_name = "ADDR", value_parser = loopback)]
        local_listen: Option<SocketAddr>,
        /// The address of health and metrics; overrides the configuration
        #[arg(long, value_name = "ADDR")]
        probe_listen: Option<SocketAddr>,
    },
    /// Check the configuration, the permissions and the groups of every pool
    Check(spot_guard::check::CheckOptions),
    /// Show what AWS still knows of two groups, and what Spot Guard would have done
    Lookback(spot_guard::lookback::LookbackOptions),
    /// Print the custom resource definitions
    Crds,
    /// Print the description of the HTTP API (OpenAPI 3.1)
    Openapi,
    #[command(flatten)]
    Ask(spot_guard::client::ClientCommand),
    /// Play a scenario in a simulated cloud
    #[cfg(feature = "sim")]
    Demo(spot_guard::sim::demo::DemoOptions),
}

/// The name of the file as a plugin of kubectl.
const PLUGIN: &str = "kubectl-spot_guard";

/// The exit status for input that cannot be used, as clap has it.
const BAD_INPUT: u8 = 2;

/// As a plugin of kubectl it is called `kubectl-spot_guard`, and people write `kubectl spot-guard`.
fn arguments() -> Arguments {
    let command = Arguments::command();
    let called = std::env::args_os().next().map(PathBuf::from);
    let is_plugin = called.as_deref().and_then(Path::file_name).is_some_and(|name| name == PLUGIN);
    let command = if is_plugin { command.bin_name("kubectl spot-guard") } else { command };
    Arguments::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

fn main() -> ExitCode {
    match arguments().command {
        Command::Check(options) => check(options),
        Command::Lookback(options) => {
            finish(in_system(|_| spot_guard::lookback::run(options)).map(|text| print!("{text}")))
        }
        Command::Crds => finish(print_crds()),
        Command::Openapi => {
            println!("{:#}", http::document());
            ExitCode::SUCCESS
        }
        Command::Ask(question) => finish(spot_guard::client::run(&question).map(|text| print!("{text}"))),
        #[cfg(feature = "sim")]
        Command::Demo(options) => demo(&options),
        Command::Controller { config, kubeconfig, listen, local_listen, probe_listen } => {
            match Config::load(&config) {
                Ok(mut settings) => {
                    settings.listen = listen.unwrap_or(settings.listen);
                    settings.local_listen = local_listen.or(settings.local_listen);
                    settings.probe_listen = probe_listen.unwrap_or(settings.probe_listen);
                    finish(in_system(|logs| run_controller(settings, kubeconfig, (config, logs))))
                }
                Err(error) => bad_input(&error),
            }
        }
    }
}

fn in_system<T, W: Future<Output = anyhow::Result<T>>>(
    work: impl FnOnce(LogFilter) -> W,
) -> anyhow::Result<T> {
    actix::System::new().block_on(async {
        let telemetry = telemetry::tracing::init(None)?;
        work(telemetry.logs.clone()).await
    })
}

/// Succeeds if nothing stands in the way.
fn check(options: spot_guard::check::CheckOptions) -> ExitCode {
    let config = match options.config.as_deref().map(Config::load).transpose() {
        Ok(config) => config.unwrap_or_default(),
        Err(error) => return bad_input(&error),
    };
    match in_system(async |_| Ok(spot_guard::check::run(options, &config).await)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => finish(Err(error)),
    }
}

fn bad_input(error: &spot_guard::config::ConfigError) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(BAD_INPUT)
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "sim")]
#[expect(clippy::disallowed_methods, reason = "RUST_LOG asks for logs beside what is told")]
fn demo(options: &spot_guard::sim::demo::DemoOptions) -> ExitCode {
    // The demo prints its own lines; logs are for those who set RUST_LOG.
    let _telemetry = std::env::var_os("RUST_LOG").map(|_| telemetry::tracing::init(None));
    match spot_guard::sim::demo::run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => finish(Err(error)),
    }
}

fn print_crds() -> anyhow::Result<()> {
    let mut text = String::new();
    for definition in crd::definitions() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&definition)?);
    }
    print!("{text}");
    Ok(())
}

async fn run_controller(
    config: Config,
    kubeconfig: Option<PathBuf>,
    (file, logs): (PathBuf, LogFilter),
) -> anyhow::Result<()> {
    logs.set(config.log_filter.as_deref())?;
    actix::spawn(logs.follow(move || Ok(Config::load(&file)?.log_filter)));
    let webhook_secrets = Secrets::in_files(&config.webhook_secret_files);
    webhook_secrets.check()?;
    let client = spot_guard::kube::client::infer(kubeconfig.as_deref()).await?;
    let aws = spot_guard::aws::settings::load().await;
    let clock = Clock::System;
    let tls = config.tls.as_ref().map(Certificate::load).transpose()?;
    let main = listener("listen", config.listen)?;
    let probes = listener("probeListen", config.probe_listen)?;
    let local = config.local_listen.map(|address| listener("localListen", address)).transpose()?;
    let controller = Controller::new(config.settings(&identity()), client.clone(), &aws, clock);
    let state = ApiState {
        is_leader: controller.leading(),
        holder: controller.holder(),
        last_readings: controller.last_readings.clone(),
        cluster_name: config.cluster_name.clone(),
        webhook_secrets,
        trace_url: config.trace_url.clone(),
        ..ApiState::of(
            &controller.view,
            client.clone(),
            Liveness::of_this_thread(),
            controller.readiness.clone(),
            controller.metrics.clone(),
            config.policy(),
            &config.taint_key,
        )
    };
    match tls.clone() {
        Some(certificate) => drop(actix::spawn(async move { certificate.follow().await })),
        None => {
            tracing::warn!("no TLS (setting tls): tokens are accepted from loopback only")
        }
    }
    actix::spawn(http::keep_history(state.clone()));
    let reviews = Arc::new(Reviews::new(client, controller.metrics.clone()));
    let mut servers = vec![
        http::serve(main, Door::Main { reviews, tls }, state.clone())?,
        http::serve(probes, Door::Probes, state.clone())?,
    ];
    if let Some(local) = local {
        servers.push(http::serve(local, Door::Local, state)?);
    }
    let api: Vec<_> = servers.iter().map(Server::handle).collect();
    servers.into_iter().for_each(|server| drop(actix::spawn(server)));
    let (listen, local, probes) = (config.listen, config.local_listen, config.probe_listen);
    tracing::info!(%listen, ?local, %probes, "controller started");
    let end = Shutdown::new();
    let mut terminated = signal(SignalKind::terminate())?;
    let running = controller.run(end.clone());
    let stop = async {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::info!("the process ends and gives the lease back");
        end.trigger();
    };
    tokio::join!(running, stop);
    futures::future::join_all(api.iter().map(|server| server.stop(true))).await;
    Ok(())
}

fn listener(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    http::bind(address)
        .map_err(|error| anyhow::anyhow!("cannot listen on {address} (setting {setting}): {error}"))
}

/// An address that only this machine reaches.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|error| format!("{error}"))?;
    if address.ip().is_loopback() { Ok(address) } else { Err("it is not on loopback".to_owned()) }
}

/// This process among the replicas: the pod's name and something that a new life does not share.
#[expect(clippy::disallowed_methods, reason = "Kubernetes tells a pod its name so")]
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "spot-guard".to_owned());
    format!("{host}-{:08x}", fastrand::u32(..))
}
