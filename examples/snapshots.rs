//! Snapshots under kill -9: a child writes them as fast as it can and is killed at a random moment, again and again; after
//! each kill what is found must give the bits of a plain pass, and nothing half-written may stay.
//!
//!     cargo run --release --example snapshots -- 100

use qwright::engine::kv::KvType;
use qwright::engine::recall::Snapshots;
use qwright::engine::synthetic::Synthetic;
use qwright::engine::weights::{Arch, ModelConfig};
use qwright::engine::{Engine, EngineError, EngineOptions, Sequence, Want};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const CONTEXT: usize = 2048;
const BUDGET: u64 = 30 << 20;

fn engine(folder: Option<&Path>) -> Result<Engine, EngineError> {
    let config = ModelConfig {
        arch: Arch::Qwen2,
        layers: 4,
        hidden: 128,
        heads: 4,
        kv_heads: 4,
        head_dim: 64,
        ff: 128,
        vocab: 100,
        context: CONTEXT,
        eps: 1e-6,
        rope_theta: 1e6,
        yarn: None,
        experts: 0,
        experts_used: 0,
        expert_ff: 0,
    };
    let mut engine =
        Synthetic::plan(config, 0)?.engine("made up", EngineOptions { threads: 1, ..Default::default() })?;
    if let Some(folder) = folder {
        engine.keep_snapshots(KvType::Q8_0, Snapshots { folder, budget: BUDGET })?;
    }
    Ok(engine)
}

/// The conversation of a round: rounds begin alike.
fn tokens(round: u32) -> Vec<u32> {
    (0..1500u32)
        .map(|i| if i < 700 { i * 7 % 100 } else { (i * (round % 5 + 1) + round % 3) % 100 })
        .collect()
}

fn append(engine: &mut Engine, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<u32>, EngineError> {
    let logits = engine.append(sequence, tokens, Want::Last, &AtomicBool::new(false), &mut |_| {})?;
    Ok(logits.iter().map(|x| x.to_bits()).collect())
}

fn write(folder: &Path, round: u32) -> Result<(), EngineError> {
    for again in 0.. {
        let mut engine = engine(Some(folder))?;
        let mut sequence = engine.sequence(CONTEXT, KvType::Q8_0);
        let tokens = tokens(round + again);
        let mut held = engine.recall(&mut sequence, &tokens[..1400]);
        while held < tokens.len() {
            let next = (held + 37).min(tokens.len());
            append(&mut engine, &mut sequence, &tokens[held..next])?;
            engine.remember(&sequence);
            held = next;
        }
    }
    Ok(())
}

fn files(folder: &Path) -> (usize, usize, u64) {
    let (mut whole, mut begun, mut bytes) = (0, 0, 0);
    for inner in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        for file in std::fs::read_dir(inner.path()).into_iter().flatten().flatten() {
            bytes += file.metadata().map_or(0, |data| data.len());
            let half = file.file_name().to_string_lossy().starts_with('.');
            *if half { &mut begun } else { &mut whole } += 1;
        }
    }
    (whole, begun, bytes)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, folder, round] = &args[..]
        && mode == "write"
    {
        return Ok(write(Path::new(folder), round.parse()?)?);
    }
    let rounds: u32 = args.first().map_or(Ok(100), |n| n.parse())?;
    let folder = tempfile::tempdir()?;
    let (mut state, mut found, mut litter, mut wrong, mut said) = (1u64, 0, 0, 0, 0);
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["write".as_ref(), folder.path().as_os_str(), round.to_string().as_ref()])
            .stderr(Stdio::null())
            .spawn()?;
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(20 + (state >> 33) % 400));
        child.kill()?;
        child.wait()?;
        litter += files(folder.path()).1;
        let mut warm = engine(Some(folder.path()))?;
        let mut sequence = warm.sequence(CONTEXT, KvType::Q8_0);
        let tokens = tokens(round);
        let held = warm.recall(&mut sequence, &tokens);
        found += held;
        said += warm.complaints().len();
        let (mut cold, more) = (engine(None)?, [3]);
        let mut plain = cold.sequence(CONTEXT, KvType::Q8_0);
        append(&mut cold, &mut plain, &tokens[..held])?;
        if append(&mut warm, &mut sequence, &more)? != append(&mut cold, &mut plain, &more)? {
            wrong += 1;
        }
        if files(folder.path()).1 > 0 {
            return Err("what was begun stayed".into());
        }
    }
    let (whole, _, bytes) = files(folder.path());
    println!(
        "{rounds} kills: {wrong} wrong restores, {} tokens found on average, {litter} half-written files after kills and \
         all removed by the next start, {said} refused; at the end {whole} files, {:.1} MB of a budget of {:.1}",
        found / rounds as usize,
        bytes as f64 / 1e6,
        BUDGET as f64 / 1e6
    );
    if wrong > 0 { Err("a restore was wrong".into()) } else { Ok(()) }
}
