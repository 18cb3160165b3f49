//! The search for versions of a text: what it leaves behind (nothing), and what the real model finds.

use crate::oracle::manifest;
use crate::real_model::model_path;
use qwright::agent::{SessionOptions, offered_tools, opening_messages};
use qwright::chat::{Message, Role};
use qwright::engine::backend::Backend;
use qwright::engine::kernels::KernelSet;
use qwright::engine::kv::KvType;
use qwright::engine::{Engine, EngineOptions, Want};
use qwright::model::local::{Decoding, LocalModel, LocalOptions};
use qwright::model::{Model, ModelEvent, Request, Revised, Revision, Sampling};
use qwright::tools::Registry;
use qwright::workspace::Workspace;
use std::sync::atomic::AtomicBool;

fn tiny() -> Engine {
    Engine::open(&manifest().join("fixtures/oracle/tiny-qwen2-q4_k_m.gguf"), EngineOptions::default())
        .unwrap()
}

fn append(engine: &mut Engine, sequence: &mut qwright::engine::Sequence, tokens: &[u32]) -> Vec<u32> {
    let logits = engine.append(sequence, tokens, Want::Last, &AtomicBool::new(false), &mut |_| {}).unwrap();
    logits.iter().map(|logit| logit.to_bits()).collect()
}

#[test]
fn what_was_tried_in_place_of_a_sequences_end_leaves_no_trace() {
    let mut engine = tiny();
    let tokens: Vec<u32> = (0..90).map(|i| (i * 7 + 3) % 280).collect();
    let other: Vec<u32> = (0..20).map(|i| (i * 11 + 5) % 280).collect();
    for kind in KvType::ALL {
        let mut whole = engine.sequence(100, kind);
        append(&mut engine, &mut whole, &tokens);
        let expected = append(&mut engine, &mut whole, &[1, 2, 3]);
        let mut tried = engine.sequence(100, kind);
        append(&mut engine, &mut tried, &tokens);
        // In the midst, near the end, at the very end, from the beginning; and no token.
        for (at, n) in [(40, 20), (40, 7), (85, 14), (90, 10), (0, 20), (50, 0)] {
            let mut fork = tried.fork(at);
            let alone = if n > 0 { append(&mut engine, &mut fork, &other[..n]) } else { Vec::new() };
            assert_eq!(tried.tokens(), tokens);
            if n > 0 {
                let mut fresh = engine.sequence(100, kind);
                if at > 0 {
                    append(&mut engine, &mut fresh, &tokens[..at]);
                }
                assert_eq!(append(&mut engine, &mut fresh, &other[..n]), alone, "{kind:?} {at} {n}");
            }
        }
        assert_eq!(append(&mut engine, &mut tried, &[1, 2, 3]), expected, "{kind:?}");
    }
}

#[test]
fn scores_are_those_of_the_logits() {
    let mut engine = tiny();
    let tokens: Vec<u32> = (0..300).map(|i| (i * 13 + 3) % 280).collect();
    let mut sequence = engine.sequence(300, KvType::F32);
    let never = AtomicBool::new(false);
    let scored = engine.append_scored(&mut sequence, &tokens, 4, &never, &mut |_| {}).unwrap();
    assert_eq!(scored.len(), tokens.len() - 1);
    assert_eq!(sequence.tokens(), tokens);
    let mut again = engine.sequence(300, KvType::F32);
    let logits = engine.append(&mut again, &tokens, Want::All, &never, &mut |_| {}).unwrap();
    for (i, row) in logits.chunks_exact(engine.config.vocab).take(tokens.len() - 1).enumerate() {
        let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
        let logprob = |id: u32| f64::from(row[id as usize]) - sum.ln();
        assert!((f64::from(scored[i].logprob) - logprob(tokens[i + 1])).abs() < 1e-3, "place {i}");
        assert_eq!(scored[i].others.len(), 4);
        for pair in scored[i].others.windows(2) {
            assert!(pair[0].1 >= pair[1].1 && pair[0].0 != tokens[i + 1]);
        }
        let best = scored[i].others[0];
        assert!((f64::from(best.1) - logprob(best.0)).abs() < 1e-3, "place {i}");
    }
}

fn options(threads: usize) -> LocalOptions {
    LocalOptions {
        engine: EngineOptions { threads, kernels: KernelSet::best(), ..Default::default() },
        kv: KvType::F16,
        context: Some(4096),
        ..LocalOptions::default()
    }
}

fn real(threads: usize) -> LocalModel {
    LocalModel::load(&model_path(), &options(threads), &AtomicBool::new(false), &mut |_, _| {}).unwrap()
}

/// A file with a fault, and what shows it.
struct Faulty {
    path: &'static str,
    language: &'static str,
    text: &'static str,
    shown: &'static str,
}

const AREA: Faulty = Faulty {
    path: "src/area.rs",
    language: "rust",
    text: "/// Area of a rectangle.\npub fn area(width: u32, height: u32) -> u32 {\n    width + height\n}\n",
    shown: "area(2, 4) gives 6.",
};

fn history(file: &Faulty) -> [Message; 2] {
    [
        Message::new(Role::System, "You are a programmer."),
        Message::new(Role::User, format!("{}:\n```\n{}```\n{}", file.path, file.text, file.shown)),
    ]
}

fn next(model: &mut LocalModel, file: &Faulty) -> Revised {
    told(model, file, &mut |_| {})
}

fn told(model: &mut LocalModel, file: &Faulty, on_event: &mut dyn FnMut(ModelEvent)) -> Revised {
    let ask =
        Message::new(Role::User, "Find the bug and fix it. Answer with the whole file in one code block.");
    let revision = Revision {
        messages: &history(file),
        tools: &[],
        ask: &ask,
        text: file.text,
        language: file.language,
        until: file.text.len(),
        sampling: Sampling { seed: 5, ..Sampling::default() },
        cancel: &AtomicBool::new(false),
    };
    model.revise(revision, on_event).unwrap()
}

#[test]
fn the_real_model_finds_a_wrong_operator_and_the_history_is_not_disturbed() {
    let never = AtomicBool::new(false);
    let mut found: Vec<Vec<String>> = Vec::new();
    for (threads, drafts) in [(2, true), (1, true), (2, false)] {
        let mut model = real(threads);
        model.set_decoding(Decoding { masks: true, drafts });
        let (mut versions, mut guessed) = (Vec::new(), 0);
        for _ in 0..4 {
            let revised = next(&mut model, &AREA);
            guessed += revised.usage.drafted + revised.usage.rejected;
            versions.extend(revised.text);
        }
        assert_eq!(guessed > 0, drafts);
        assert!(versions.iter().any(|version| version.contains("width * height")), "{versions:#?}");
        let distinct: std::collections::HashSet<&String> = versions.iter().collect();
        assert_eq!(distinct.len(), versions.len(), "no version comes twice");
        assert!(versions.iter().all(|version| version != AREA.text));
        found.push(versions);
        let answer = |model: &mut LocalModel, messages: &[Message]| {
            let request = Request {
                messages,
                tools: &[],
                sampling: Sampling { seed: 1, temperature: None, max_tokens: 12 },
                must_call: None,
                words_only: false,
                values: None,
                aside: false,
                frame: None,
                cancel: &never,
            };
            model.generate(request, &mut |_| {}).unwrap()
        };
        let mut longer = history(&AREA).to_vec();
        longer.push(Message::new(Role::Assistant, "It is mended."));
        longer.push(Message::new(Role::User, "What was it?"));
        let after = answer(&mut model, &longer);
        assert_eq!(after.usage.repeated, 0);
        assert!(after.usage.cached > 40, "the history was still there: {:?}", after.usage);
        assert_eq!(after.message, answer(&mut real(threads), &longer).message, "and undisturbed");
    }
    assert_eq!(found[0], found[1], "the same versions with any number of threads");
    assert_eq!(found[0], found[2], "the same versions without drafts");
}

/// Attempts at one task go through the versions together: none twice, the likeliest first, the scores worked out once.
#[test]
fn searches_of_models_that_share_an_engine_share_the_versions() {
    let never = AtomicBool::new(false);
    let mut several =
        LocalModel::load_several(&model_path(), &options(2), 3, &never, &mut |_, _| {}).unwrap();
    let mut versions = Vec::new();
    let mut scoring = Vec::new();
    for _ in 0..3 {
        for (number, model) in several.iter_mut().enumerate() {
            let mut on_event = |event| {
                if let ModelEvent::Progress { phase: "read", .. } = event {
                    scoring.push(number);
                }
            };
            let revised = told(model, &AREA, &mut on_event);
            versions.push(revised.text.expect("there are more versions"));
        }
    }
    scoring.dedup();
    assert_eq!(scoring, [0], "the first scores the text for all");
    let distinct: std::collections::HashSet<&String> = versions.iter().collect();
    assert_eq!(distinct.len(), versions.len(), "no version comes twice: {versions:#?}");
    assert!(versions[..4].iter().any(|version| version.contains("width * height")), "{versions:#?}");
}

#[test]
fn the_real_model_finds_statements_in_the_wrong_order() {
    const DIGIT: Faulty = Faulty {
        path: "digit.py",
        language: "python",
        text: "def digit(n):\n    if n >= 5:\n        return 'V' + 'I' * (n - 5)\n    if n == 9:\n        return 'IX'\n    return 'I' * n\n",
        shown: "digit(9) gives VIIII.",
    };
    const SWAPPED: &str = "def digit(n):\n    if n == 9:\n        return 'IX'\n    if n >= 5:\n        return 'V' + 'I' * (n - 5)\n    return 'I' * n\n";
    let mut model = real(2);
    let mut next = || next(&mut model, &DIGIT).text;
    let versions: Vec<String> = (0..16).map_while(|_| next()).collect();
    assert!(versions.iter().any(|version| version == SWAPPED), "{versions:#?}");
}

/// The promise of the README and of `design.md`: prompt and tools together, exactly counted.
#[test]
fn prompt_and_all_tools_are_under_two_thousand_tokens() {
    let model = real(2);
    let folder = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(folder.path(), &[]).unwrap();
    let mut large = model.info().clone();
    large.billions = 30.0;
    let specs = offered_tools(&Registry::standard(), &large).specs();
    assert_eq!(specs.len(), Registry::standard().specs().len());
    let options = SessionOptions::default();
    let opening =
        opening_messages(&workspace, &large, &options, "Hello", &|text: &str| model.count_tokens(text));
    let tokens = model.count_history(&opening, &specs);
    println!("system prompt, {} tools and a first message: {tokens} tokens", specs.len());
    assert!(tokens < 2000, "{tokens}");
}
