//! One file for each subcommand.

pub mod admin;
pub mod check;
pub mod check_now;
pub mod connections;
pub mod doctor;
pub mod explain;
pub mod persistence;
pub mod probe;
pub mod reload;
pub mod run;
pub mod schema;
pub mod stats;
pub mod status;
pub mod teardown;
pub mod ui;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::api::client::{Client, ClientError};
use crate::api::protocol::{Failure as ApiFailure, FailureKind};
use crate::cli::{DEFAULT_SOCKET, GlobalArgs};
use ui::Paint;

/// What a subcommand ends with.
pub type Done = Result<ExitCode, Failure>;

/// What every subcommand gets.
pub struct Context {
    /// `--socket`, if given.
    pub socket: Option<PathBuf>,
    /// Colours for standard output.
    pub paint: Paint,
}

impl Context {
    /// From the global options.
    pub fn new(args: &GlobalArgs) -> Self {
        Self { socket: args.socket.clone(), paint: Paint::stdout(args.color) }
    }

    /// The control socket to speak to.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into())
    }

    /// Connects to the daemon.
    ///
    /// # Errors
    /// [`Failure::NoDaemon`] when none answers.
    pub fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.socket())?)
    }
}

/// Why a subcommand failed, which decides its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Exit code 1.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// Exit code 69 (EX_UNAVAILABLE).
    #[error("{0}")]
    NoDaemon(String),
    /// Exit code 78 (EX_CONFIG). The text names every error, a line each.
    #[error("{0}")]
    Configuration(String),
}

impl Failure {
    /// The exit code that goes with it.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Failed(_) => 1,
            Failure::NoDaemon(_) => 69,
            Failure::Configuration(_) => 78,
        }
    }

    /// Prints it and gives its exit code. A broken pipe is not an error: whoever read has read
    /// enough.
    pub fn report(&self) -> ExitCode {
        if self.is_broken_pipe() {
            return ExitCode::SUCCESS;
        }
        // Standard error may be gone as well; the exit code still tells.
        let mut stderr = std::io::stderr().lock();
        std::io::Write::write_all(&mut stderr, format!("medlb: {self}\n").as_bytes()).ok();
        ExitCode::from(self.code())
    }

    fn is_broken_pipe(&self) -> bool {
        let Failure::Failed(error) = self else { return false };
        error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
            .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Failed(error.into())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NoDaemon(_) => Failure::NoDaemon(error.to_string()),
            ClientError::Refused(ApiFailure {
                kind: FailureKind::InvalidConfiguration,
                message,
            }) => Failure::Configuration(message),
            other => Failure::Failed(anyhow::Error::msg(other.to_string())),
        }
    }
}

/// A runtime for commands that need one.
///
/// # Errors
/// The kernel gives no more threads or file descriptors.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    use anyhow::Context as _;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("cannot start the asynchronous runtime")?)
}
