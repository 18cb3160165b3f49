//! One engine for several models that each think it theirs: attempts at one task, say. What they append is done in the
//! order it comes, but steps of few tokens that wait at the same time are made in one batch, for which the weights are
//! read once. Logits do not depend on the batch, so nobody's words do.

use super::backend::{Backend, Setup};
use super::gguf::Gguf;
use super::kv::{KvType, blocks};
use super::recall::Snapshots;
use super::weights::ModelConfig;
use super::{EngineError, Sequence, TokenId, Want};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tokens of a step: more of them make a batch by themselves.
const STEP: usize = 8;
/// How long a batch waits for those that were in the last one: about what choosing a token takes.
const GATHER: Duration = Duration::from_millis(10);

/// A backend whose engine others have too.
pub struct SharedEngine {
    inner: Arc<Inner>,
    gguf: Gguf,
    config: ModelConfig,
    setup: Setup,
}

struct Inner {
    engine: Mutex<Box<dyn Backend>>,
    line: Mutex<Line>,
    /// Something in the line is otherwise now.
    moved: Condvar,
}

/// Steps that wait, and those that were made and not yet taken.
#[derive(Default)]
struct Line {
    /// Of the next step.
    number: u64,
    waiting: Vec<Step>,
    made: Vec<(u64, Sequence, Result<Vec<f32>, EngineError>)>,
    /// Somebody gathers or makes a batch.
    busy: bool,
    /// Steps of the last batch.
    last: usize,
    sequences: usize,
}

struct Step {
    number: u64,
    sequence: Sequence,
    tokens: Vec<TokenId>,
}

impl SharedEngine {
    /// `n` backends with the engine of a file.
    pub fn several(engine: Box<dyn Backend>, path: &Path, n: usize) -> Result<Vec<Self>, EngineError> {
        let (config, setup) = (engine.config().clone(), engine.setup());
        let inner = Arc::new(Inner {
            engine: Mutex::new(engine),
            line: Mutex::new(Line::default()),
            moved: Condvar::new(),
        });
        let one = |_| {
            let gguf = Gguf::open(path)?;
            Ok(Self { inner: inner.clone(), gguf, config: config.clone(), setup })
        };
        (0..n).map(one).collect()
    }
}

// What a thread that panicked left is whole: every change is one step.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// Appends a few tokens, with those of others that wait; the logits of all of them.
    fn step(&self, sequence: &mut Sequence, tokens: &[TokenId]) -> Result<Vec<f32>, EngineError> {
        let empty = sequence.fork(0);
        let own = std::mem::replace(sequence, empty);
        let mut line = lock(&self.line);
        let number = line.number;
        line.number += 1;
        line.waiting.push(Step { number, sequence: own, tokens: tokens.to_vec() });
        self.moved.notify_all();
        loop {
            if let Some(at) = line.made.iter().position(|(made, ..)| *made == number) {
                let (_, own, logits) = line.made.swap_remove(at);
                *sequence = own;
                return logits;
            }
            line = match line.busy {
                true => self.moved.wait(line).unwrap_or_else(PoisonError::into_inner),
                false => self.lead(line),
            };
        }
    }

    /// Makes a batch of what waits.
    fn lead<'l>(&'l self, mut line: MutexGuard<'l, Line>) -> MutexGuard<'l, Line> {
        line.busy = true;
        let end = Instant::now() + GATHER;
        while line.waiting.len() < line.last {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            line = self.moved.wait_timeout(line, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let steps = std::mem::take(&mut line.waiting);
        line.last = steps.len();
        drop(line);
        let made = self.make(steps);
        let mut line = lock(&self.line);
        line.busy = false;
        line.made.extend(made);
        self.moved.notify_all();
        line
    }

    fn make(&self, mut steps: Vec<Step>) -> Vec<(u64, Sequence, Result<Vec<f32>, EngineError>)> {
        let never = AtomicBool::new(false);
        let mut engine = lock(&self.engine);
        let vocab = engine.config().vocab;
        let mut parts: Vec<(&mut Sequence, &[TokenId])> =
            steps.iter_mut().map(|step| (&mut step.sequence, step.tokens.as_slice())).collect();
        match engine.append_many(&mut parts, &never) {
            Ok(logits) => {
                let mut rest = logits.as_slice();
                let made = steps.into_iter().map(|step| {
                    let (own, others) = rest.split_at(rest.len().min(step.tokens.len() * vocab));
                    rest = others;
                    (step.number, step.sequence, Ok(own.to_vec()))
                });
                made.collect()
            }
            // One of them cannot be made: each by itself, so that it fails alone.
            Err(_) => {
                let made = steps.into_iter().map(|mut step| {
                    let logits =
                        engine.append(&mut step.sequence, &step.tokens, Want::All, &never, &mut |_| {});
                    (step.number, step.sequence, logits)
                });
                made.collect()
            }
        }
    }
}

impl Backend for SharedEngine {
    fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn setup(&self) -> Setup {
        self.setup
    }

    /// There is room for every one's whole context.
    fn sequence(&mut self, context: usize, kind: KvType) -> Sequence {
        let sequence = lock(&self.inner.engine).sequence(context, kind);
        let mut line = lock(&self.inner.line);
        line.sequences += 1;
        sequence.cache.pool().at_least(line.sequences * blocks::blocks_of(context) + blocks::SPARE);
        sequence
    }

    fn append(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[TokenId],
        want: Want,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<f32>, EngineError> {
        if tokens.is_empty() || tokens.len() > STEP {
            let mut engine = lock(&self.inner.engine);
            if want == Want::All || tokens.is_empty() {
                return engine.append(sequence, tokens, want, cancel, progress);
            }
            // What another has prefilled meanwhile (the same request, say) is there; the last token is run for its logits.
            let (start, mut all) = (sequence.len(), sequence.tokens().to_vec());
            all.extend_from_slice(tokens);
            let known = engine.recall(sequence, &all[..all.len() - 1]);
            let found = known - start;
            let logits =
                engine.append(sequence, &all[known..], want, cancel, &mut |done| progress(found + done))?;
            engine.remember(sequence);
            return Ok(logits);
        }
        let mut logits = self.inner.step(sequence, tokens)?;
        progress(tokens.len());
        Ok(match want {
            Want::All => logits,
            Want::Last => logits.split_off(logits.len() - self.config.vocab),
            Want::Nothing => Vec::new(),
        })
    }

    /// A batch by itself: it waits for nobody.
    fn append_many(
        &mut self,
        parts: &mut [(&mut Sequence, &[TokenId])],
        cancel: &AtomicBool,
    ) -> Result<Vec<f32>, EngineError> {
        lock(&self.inner.engine).append_many(parts, cancel)
    }

    fn remember(&mut self, sequence: &Sequence) {
        lock(&self.inner.engine).remember(sequence);
    }

    fn recall(&mut self, sequence: &mut Sequence, tokens: &[TokenId]) -> usize {
        lock(&self.inner.engine).recall(sequence, tokens)
    }

    fn keep_snapshots(&mut self, kind: KvType, snapshots: Snapshots<'_>) -> Result<(), EngineError> {
        lock(&self.inner.engine).keep_snapshots(kind, snapshots)
    }

    fn complaints(&mut self) -> Vec<String> {
        lock(&self.inner.engine).complaints()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, EngineOptions};

    /// Tokens that each step made likeliest, after a prompt of its own; and the bits of the logits, summed up.
    fn written(engine: &mut dyn Backend, seed: u32, n: usize) -> (Vec<TokenId>, u64) {
        let never = AtomicBool::new(false);
        let mut sequence = engine.sequence(512, KvType::Q8_0);
        let prompt: Vec<TokenId> = (0..40).map(|i| (i * 13 + seed * 7) % 90).collect();
        let mut logits = engine.append(&mut sequence, &prompt, Want::Last, &never, &mut |_| {}).unwrap();
        let (mut tokens, mut bits) = (Vec::new(), 0u64);
        for _ in 0..n {
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            tokens.push(best as TokenId);
            let sum = |bits: u64, x: &f32| bits.rotate_left(5) ^ u64::from(x.to_bits());
            bits = logits.iter().fold(bits, sum);
            logits =
                engine.append(&mut sequence, &[best as TokenId], Want::Last, &never, &mut |_| {}).unwrap();
        }
        assert_eq!(sequence.len(), prompt.len() + n);
        (tokens, bits)
    }

    #[test]
    fn each_writes_what_it_would_alone() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/oracle/tiny-qwen3moe-q4_k_m.gguf");
        let engine =
            || Engine::open(&path, EngineOptions { threads: 2, ..EngineOptions::default() }).unwrap();
        let alone: Vec<_> = (0..5).map(|seed| written(&mut engine(), seed, 10 + 5 * seed as usize)).collect();
        let shared = SharedEngine::several(Box::new(engine()), &path, 5).unwrap();
        let together: Vec<_> = std::thread::scope(|scope| {
            let run = |(seed, mut one): (u32, SharedEngine)| {
                scope.spawn(move || written(&mut one, seed, 10 + 5 * seed as usize))
            };
            let threads: Vec<_> = (0..).zip(shared).map(run).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(together, alone);
    }

    #[test]
    fn what_one_has_prefilled_the_others_have() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/oracle/tiny-qwen2-f32.gguf");
        let never = AtomicBool::new(false);
        let engine = || Engine::open(&path, EngineOptions::default()).unwrap();
        let mut alone = engine();
        let mut shared = SharedEngine::several(Box::new(engine()), &path, 2).unwrap();
        let prompt: Vec<TokenId> = (0..600).map(|i| i * 7 % 90).collect();
        let mut sequence = alone.sequence(700, KvType::Q8_0);
        let expected = alone.append(&mut sequence, &prompt, Want::Last, &never, &mut |_| {}).unwrap();
        let mut told = Vec::new();
        for one in &mut shared {
            let mut sequence = one.sequence(700, KvType::Q8_0);
            let mut at = |done: usize| told.push(done);
            assert_eq!(one.append(&mut sequence, &prompt, Want::Last, &never, &mut at).unwrap(), expected);
            assert_eq!(sequence.tokens(), prompt);
        }
        let first = told.iter().position(|done| *done == 600).unwrap();
        assert!(told.len() > first + 1, "{told:?}");
        assert!(told[first + 1..].iter().all(|done| *done >= 599), "the second pass was one token: {told:?}");
    }

    #[test]
    fn a_step_that_cannot_be_fails_alone() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/oracle/tiny-qwen2-f32.gguf");
        let engine = Engine::open(&path, EngineOptions::default()).unwrap();
        let mut shared = SharedEngine::several(Box::new(engine), &path, 2).unwrap();
        let never = AtomicBool::new(false);
        let mut full = shared[0].sequence(3, KvType::F16);
        let mut other = shared[1].sequence(64, KvType::F16);
        let vocab = shared[0].config().vocab;
        std::thread::scope(|scope| {
            let (one, two) = shared.split_at_mut(1);
            let (full, other, never) = (&mut full, &mut other, &never);
            scope.spawn(move || {
                let mut append =
                    |tokens: &[TokenId]| one[0].append(full, tokens, Want::Last, never, &mut |_| {});
                assert!(append(&[1, 2]).is_ok());
                assert!(matches!(append(&[3, 4]), Err(EngineError::ContextFull { .. })));
                assert_eq!(append(&[5]).unwrap().len(), vocab, "what was there is still there");
            });
            scope.spawn(move || {
                for token in 0..20 {
                    let logits = two[0].append(other, &[token], Want::Last, never, &mut |_| {});
                    assert_eq!(logits.unwrap().len(), vocab);
                }
            });
        });
    }
}
