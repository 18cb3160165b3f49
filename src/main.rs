//! Arguments -> front end -> exit code, nothing else.

use clap::Parser;
use qwright::chat::escape::{escape_for_terminal, escape_line};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all, while there is one thread: the sandbox helper is this program under another first argument.
    if std::env::args_os().nth(1).is_some_and(|first| first == qwright::workspace::sandbox::INIT_ARGUMENT) {
        qwright::workspace::sandbox::sandbox_init_main();
    }
    match qwright::cli::Cli::parse().run() {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            // A closed stderr is no reason to panic; the exit code still tells.
            let mut stderr = std::io::stderr().lock();
            let _ = writeln!(stderr, "qwright: {}", escape_for_terminal(&failure.message));
            if let Some(hint) = &failure.hint {
                let _ = writeln!(stderr, "  {}", escape_line(hint));
            }
            ExitCode::from(failure.code)
        }
    }
}
