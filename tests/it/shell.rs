//! (skeleton)
use qwright::workspace::shell::*;
use std::sync::atomic::AtomicBool;
#[test]
fn smoke() {
    let t = std::time::Instant::now();
    let shell = Shell::with(ShellSettings { helper: Some(env!("CARGO_BIN_EXE_qwright").into()), ..Default::default() });
    println!("{} {:?}", shell.status_line(), t.elapsed());
    let root = tempfile::tempdir().unwrap();
    let line = std::env::var("LINE").unwrap_or("id".into());
    let out = shell.run(root.path(), &ShellCommand { command: line, ..Default::default() }, &AtomicBool::new(false), &mut |_| {});
    match out { Ok(o) => println!("{}\n{o:?}", o.output), Err(e) => println!("{e} / {}", e.hint()) }
}
