//! The `tollgate` command: hands the arguments to [`tollgate::cli`] and the outcome to the caller as an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    tollgate::cli::main()
}
