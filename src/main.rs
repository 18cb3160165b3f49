//! Arguments -> front end -> exit code, nothing else.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
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
