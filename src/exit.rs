//! How a process ends: the exit codes that orchestrators and scripts rely on.

use std::process::ExitCode;

/// The outcome of a command, as its exit code (the values of `sysexits.h` where one fits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, drained, ready or valid.
    Success,
    /// 1: `healthcheck` found the sidecar not ready.
    NotReady,
    /// 2: the command line can't be understood.
    Usage,
    /// 70: tollgate itself failed, a latched ledger error included.
    Internal,
    /// 75: AWS could not be asked before the deadline, or `wait` ran out of time.
    Unavailable,
    /// 77: the buyer is not entitled, or the proof is not valid.
    Denied,
    /// 78: the configuration or what it names can't be used.
    Configuration,
}

impl Exit {
    /// The number that the operating system sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::NotReady => 1,
            Self::Usage => 2,
            Self::Internal => 70,
            Self::Unavailable => 75,
            Self::Denied => 77,
            Self::Configuration => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
