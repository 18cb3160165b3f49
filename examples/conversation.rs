//! A long session with a real model: twelve requests with reads, edits and commands in a small project, a side question and
//! an undo among them. Prints what each came to in tokens: `prefilled` should be what is new, `repeated` zero.
//!
//!     cargo run --release --example conversation -- [MODEL.gguf] [f16|q8_0]

use qwright::agent::protocol::{ApprovalMode, Event, Op, Usage};
use qwright::agent::{Limits, Session, SessionOptions};
use qwright::engine::kv::KvType;
use qwright::model::local::{LocalModel, LocalOptions};
use qwright::workspace::Workspace;
use qwright::workspace::shell::{SandboxChoice, Shell, ShellSettings};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

const FILES: &[(&str, &str)] = &[
    (
        "shapes.py",
        "def area(width, height):\n    return width * height\n\n\ndef border(width, height):\n    return 2 * width + 2 * height\n",
    ),
    (
        "test_shapes.py",
        "import shapes\n\nassert shapes.area(2, 3) == 6\nassert shapes.border(2, 3) == 10\nprint('all good')\n",
    ),
];

enum Step {
    Ask(&'static str),
    Aside(&'static str),
    Undo,
}
use Step::{Aside, Ask, Undo};

const STEPS: &[Step] = &[
    Ask("What does shapes.py contain?"),
    Ask("Run `python3 test_shapes.py` and tell me what it prints."),
    Ask("In shapes.py rename the parameter width of area to w."),
    Ask("Run `python3 test_shapes.py` again."),
    Aside("In one word: which language is this project written in?"),
    Ask("In shapes.py add a function square(side) that returns side * side."),
    Ask("Which functions does shapes.py have now?"),
    Undo,
    Ask("Run `ls`."),
    Ask("In shapes.py change border so that it returns 2 * (width + height)."),
    Ask("Run `python3 test_shapes.py` again."),
    Ask("What does test_shapes.py check?"),
    Ask("In test_shapes.py change the printed text to 'done'."),
    Ask("Run `python3 test_shapes.py` again."),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let home = std::env::var("HOME").unwrap_or_default();
    let path = args
        .next()
        .unwrap_or(format!("{home}/.cache/qwright/models/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"));
    let kv = args.next().and_then(|name| KvType::from_name(&name)).unwrap_or(KvType::Q8_0);
    let folder = tempfile::tempdir()?;
    for (name, text) in FILES {
        std::fs::write(folder.path().join(name), text)?;
    }
    let options = LocalOptions { kv, context: Some(16_384), ..LocalOptions::default() };
    let model =
        LocalModel::load(std::path::Path::new(&path), &options, &AtomicBool::new(false), &mut |_, _| {})?;
    let workspace = Workspace::open(folder.path(), &[])?;
    let shell = Shell::with(ShellSettings { choice: SandboxChoice::Auto, ..ShellSettings::default() });
    let options = SessionOptions {
        mode: ApprovalMode::AutoEdit,
        can_ask: false,
        limits: Limits { model_calls: Some(12), ..Limits::default() },
        ..SessionOptions::default()
    };
    let (ops, events) = Session::start(Box::new(model), workspace, shell, options);
    println!(
        "{:4} {:>7} {:>7} {:>9} {:>9} {:>8} {:>6} {:>7}  request",
        "turn", "prompt", "cached", "prefilled", "generated", "repeated", "calls", "seconds"
    );
    let mut held = 0;
    let mut total = Usage::default();
    for (number, step) in STEPS.iter().enumerate() {
        let started = Instant::now();
        let (op, text) = match step {
            Ask(text) => (Op::Submit { text: (*text).into() }, *text),
            Aside(text) => (Op::Ask { text: (*text).into() }, *text),
            Undo => (Op::Undo, "/undo"),
        };
        ops.send(op)?;
        let (mut usage, mut calls) = (Usage::default(), 0);
        for event in &events {
            match event {
                Event::ContextUsage { usage: one, used, .. } => {
                    usage += one;
                    calls += 1;
                    held = used;
                }
                Event::TurnFinished { .. } | Event::Undone { .. } => break,
                Event::AsideFinished { usage: one, .. } => {
                    usage += one;
                    calls += 1;
                    break;
                }
                Event::Error { message, .. } => {
                    println!("     {message}");
                    break;
                }
                _ => {}
            }
        }
        total += usage;
        println!(
            "{:4} {:>7} {:>7} {:>9} {:>9} {:>8} {:>6} {:>7.1}  {text}",
            number + 1,
            usage.prompt,
            usage.cached,
            usage.prefilled,
            usage.completion,
            usage.repeated,
            calls,
            started.elapsed().as_secs_f64(),
        );
    }
    println!(
        "the conversation holds {held} tokens; {} were prefilled, {} of them again",
        total.prefilled, total.repeated
    );
    ops.send(Op::Quit)?;
    Ok(())
}
