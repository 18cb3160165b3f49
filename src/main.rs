//! Arguments -> front end -> exit code, nothing else.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all, while there is one thread: the sandbox helper is this program under another first argument.
    if std::env::args_os().nth(1).is_some_and(|first| first == qwright::workspace::sandbox::INIT_ARGUMENT) {
        qwright::workspace::sandbox::sandbox_init_main();
    }
    match qwright::cli::Cli::parse().run() {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("qwright: {failure}");
            if let Some(hint) = &failure.hint {
                eprintln!("  {hint}");
            }
            ExitCode::from(failure.code)
        }
    }
}
