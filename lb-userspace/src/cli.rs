//! The command line: arguments, logging, exit codes.

/// Runs medlb and gives its exit code: 0 done, 1 failed, 2 the command line is wrong, 69 no daemon
/// answers, 78 the configuration is invalid.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
