//! A long context of this repository's own text with ten lines hidden in it, each asked for in a side question; then the
//! same session resumed from its snapshot. Prints seconds to the first token, prefilled and resumed, and what was
//! quoted back. The prompts go to a file, so that another engine can be asked the same.
//!
//!     cargo run --release --example needles -- MODEL.gguf TOKENS f16|q8_0 PROMPTS.json

use qwright::chat::{ChatFormat, Message, Role, format};
use qwright::engine::EngineOptions;
use qwright::engine::backend::BackendKind;
use qwright::engine::kv::KvType;
use qwright::engine::memory;
use qwright::engine::sampler::SamplingParams;
use qwright::model::local::{LocalModel, LocalOptions};
use qwright::model::{Model, ModelError, Request, Sampling};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

const WORDS: [&str; 10] =
    ["falcon", "harbor", "velvet", "quartz", "meadow", "copper", "lantern", "willow", "thunder", "saffron"];

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            out.push(path);
        }
    }
}

fn line(i: usize) -> String {
    format!("// Note: the code word of section {} is {}-{}.\n", i + 1, WORDS[i], 100 + i * 37)
}

/// Source text of about `tokens` tokens with the lines at ten depths.
fn text(model: &LocalModel, tokens: usize) -> String {
    let mut paths = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut paths);
    let all: String = paths.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let lines: Vec<&str> = all.split_inclusive('\n').collect();
    let (mut kept, mut count) = (Vec::new(), 0);
    for chunk in lines.chunks(40) {
        let part: String = chunk.concat();
        count += model.count_tokens(&part);
        if count > tokens {
            break;
        }
        kept.extend_from_slice(chunk);
    }
    let step = kept.len() / 10;
    let mut text = String::new();
    for (i, part) in kept.iter().enumerate() {
        text.push_str(part);
        if i % step == step / 2 && i / step < 10 {
            text.push_str(&line(i / step));
        }
    }
    text
}

fn load(path: &str, kv: KvType, context: usize, snapshots: &Path) -> Result<LocalModel, ModelError> {
    let options = LocalOptions {
        backend: BackendKind::Native,
        engine: EngineOptions::default(),
        kv,
        context: Some(context),
        format: None,
        sampling: SamplingParams {
            seed: 0,
            temperature: 0.0,
            top_k: 1,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
        },
        decoding: Default::default(),
        snapshots: Some((snapshots.to_path_buf(), 20_000_000_000)),
    };
    LocalModel::load(Path::new(path), &options, &AtomicBool::new(false), &mut |_, _| {})
}

fn ask(
    model: &mut LocalModel,
    messages: &[Message],
    most: usize,
) -> Result<(String, f64, usize), ModelError> {
    let never = AtomicBool::new(false);
    let request = Request {
        messages,
        tools: &[],
        sampling: Sampling { seed: 0, temperature: Some(0.0), max_tokens: most },
        must_call: None,
        words_only: false,
        values: None,
        aside: most > 1,
        frame: None,
        cancel: &never,
    };
    let started = Instant::now();
    let answer = model.generate(request, &mut |_| {})?;
    Ok((answer.message.content, started.elapsed().as_secs_f64(), answer.usage.prefilled))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, tokens, kv, prompts] = &args[..] else { return Err("MODEL TOKENS KV PROMPTS.json".into()) };
    let (tokens, kv): (usize, _) = (tokens.parse()?, KvType::from_name(kv).ok_or("f16 or q8_0")?);
    let folder = tempfile::tempdir()?;
    let context = (tokens + 1200).min(32_768);
    let mut model = load(path, kv, context, folder.path())?;
    let first = vec![
        Message::new(Role::System, "You answer questions about source text in a few words."),
        Message::new(Role::User, format!("{}\nQuestions about this text follow.", text(&model, tokens))),
    ];
    let mut held = first.clone();
    held.push(Message::new(Role::Assistant, "Ready."));
    let questions: Vec<Vec<Message>> = (1..=WORDS.len())
        .map(|i| {
            let question = format!("What is the code word of section {i}? Answer with the code word only.");
            held.iter().cloned().chain([Message::new(Role::User, question)]).collect()
        })
        .collect();
    let asked: Vec<String> = questions
        .iter()
        .map(|messages| format::text(&ChatFormat::HermesQwen25.render(messages, &[], true)))
        .collect();
    std::fs::write(prompts, serde_json::to_string(&asked)?)?;
    let (_, cold, prefilled) = ask(&mut model, &first, 1)?;
    println!("{} KV: {prefilled} tokens prefilled, first token after {cold:.1} s", kv.name());
    println!("anonymous memory {:.0} MB", memory::resident_beside_files().unwrap_or(0) as f64 / 1e6);
    let mut right = 0;
    for (i, (word, messages)) in WORDS.iter().zip(&questions).enumerate() {
        let (answer, seconds, new) = ask(&mut model, messages, 24)?;
        let word = format!("{word}-{}", 100 + i * 37);
        let found = answer.contains(&word);
        right += usize::from(found);
        println!(
            "section {:2}: {} ({new} prefilled, {seconds:.1} s) {answer:?}",
            i + 1,
            if found { "quoted" } else { "missed" }
        );
    }
    println!("{right} of 10 quoted");
    drop(model);
    let started = Instant::now();
    let mut model = load(path, kv, context, folder.path())?;
    let loaded = started.elapsed().as_secs_f64();
    let (_, warm, new) = ask(&mut model, &first, 1)?;
    println!("resumed: loaded in {loaded:.2} s, first token {warm:.2} s later, {new} tokens prefilled");
    Ok(())
}
