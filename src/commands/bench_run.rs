//! The tests of `qwright bench`, on any backend: prefill of given lengths, decoding at given depths, each repeated. What
//! a test needs before its clock starts is not measured, and is had from what the test before left: a depth is filled
//! once (beyond 512 tokens with copies of their keys and values), and every run at it begins by cutting the sequence back.

use super::bench_progress::Progress;
use super::bench_report::Row;
use crate::engine::backend::Backend;
use crate::engine::kv::{KvType, blocks};
use crate::engine::{EngineError, Sequence, TokenId, Want};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// What to measure.
#[derive(Debug)]
pub struct Tests<'a> {
    /// Prompt lengths.
    pub prefill: &'a [usize],
    /// Tokens to decode.
    pub decode: usize,
    /// Tokens of context already there when decoding starts.
    pub depths: &'a [usize],
    /// Sequences that decode at once.
    pub batches: &'a [usize],
    pub repeats: Repeats,
}

/// How often a test runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Repeats {
    pub most: usize,
    /// After a run of more seconds, what it had to prepare included, the test is not repeated.
    pub unless_longer: f64,
}

impl Repeats {
    /// Where nobody asked for a number.
    const USUAL: Self = Self { most: 5, unless_longer: 60.0 };

    /// `asked` holds however long it takes.
    pub fn of(asked: Option<usize>) -> Self {
        asked.map_or(Self::USUAL, |n| Self { most: n.max(1), unless_longer: f64::INFINITY })
    }

    fn again(&self, runs: usize, last: f64) -> bool {
        runs < self.most && last <= self.unless_longer
    }
}

/// The model, its one sequence and who is told.
struct Bench<'a> {
    engine: &'a mut dyn Backend,
    sequence: Sequence,
    progress: &'a mut Progress,
    repeats: Repeats,
}

impl Tests<'_> {
    /// Tokens of context that the longest test takes.
    pub fn room(&self) -> usize {
        let depths = self.depths.iter().filter(|_| self.decode > 0).map(|depth| start(*depth) + self.decode);
        let longest = self.prefill.iter().copied().chain(depths).max().unwrap_or(0).max(1);
        // Forks each take blocks of their own for what they decode.
        let forks = self.batches.iter().copied().max().filter(|most| *most > 1).unwrap_or(0);
        longest + forks * (self.decode + 2 * blocks::BLOCK)
    }

    pub fn run(
        &self,
        engine: &mut dyn Backend,
        kv: KvType,
        progress: &mut Progress,
    ) -> Result<Vec<Row>, EngineError> {
        let (weights, vocab) = (engine.setup().bytes_per_token, engine.config().vocab);
        let kv_bytes = engine.config().kv_shape(kv).bytes_per_token() as u64;
        let tokens = |n: usize| -> Vec<TokenId> {
            (0..n).map(|i| ((i * 7919 + 13) % vocab.min(100_000)) as u32).collect()
        };
        let sequence = engine.sequence(self.room(), kv);
        let mut bench = Bench { engine, sequence, progress, repeats: self.repeats };
        // One token through everything: buffers are there before the first test.
        bench.append(&tokens(1), Want::Last)?;
        let mut rows = Vec::new();
        for &n in self.prefill.iter().filter(|&&n| n > 0) {
            let test = format!("pp{n}");
            let rates = bench.test(&test, &[], n, &mut |bench| bench.append(&tokens(n), Want::Last))?;
            rows.push(Row::new(test, rates, None));
        }
        let at = self.depths.iter().flat_map(|depth| self.batches.iter().map(move |batch| (*depth, *batch)));
        for (depth, batch) in at.filter(|_| self.decode > 0) {
            let together = if batch > 1 { format!("x{batch}") } else { String::new() };
            let deep = if depth > 0 { format!("@d{depth}") } else { String::new() };
            let test = format!("tg{}{together}{deep}", self.decode);
            if batch > 1 {
                // What several come to has no one figure to be a fraction of.
                let rates = bench.test(&test, &tokens(start(depth)), self.decode * batch, &mut |bench| {
                    bench.together(batch, &tokens(self.decode + batch))
                })?;
                rows.push(Row::new(test, rates, None));
                continue;
            }
            let rates = bench.test(&test, &tokens(start(depth)), self.decode, &mut |bench| {
                for (done, token) in tokens(self.decode).into_iter().enumerate() {
                    bench.append(&[token], Want::Last)?;
                    bench.progress.at(done + 1);
                }
                Ok(())
            })?;
            // The keys and values before the middle one of the tokens.
            let context = start(depth) + self.decode.div_ceil(2);
            rows.push(Row::new(test, rates, weights.map(|weights| weights + kv_bytes * context as u64)));
        }
        Ok(rows)
    }
}

/// Tokens of a depth that are prefilled; further ones get copies of their keys and values where the backend can do that.
/// Filling 32,768 tokens takes two cores most of an hour, and the clock of no test runs meanwhile.
const REAL: usize = 2 * blocks::BLOCK;

/// Decoding goes on from some token, at no depth too.
fn start(depth: usize) -> usize {
    depth.max(1)
}

impl Bench<'_> {
    fn append(&mut self, tokens: &[TokenId], want: Want) -> Result<(), EngineError> {
        let never = AtomicBool::new(false);
        // Single tokens are counted by those who append them.
        let (progress, told) = (&mut *self.progress, tokens.len() > 1);
        let mut at = |done: usize| {
            if told {
                progress.at(done);
            }
        };
        self.engine.append(&mut self.sequence, tokens, want, &never, &mut at)?;
        Ok(())
    }

    /// Forks the sequence and decodes all forks token by token, each other tokens.
    fn together(&mut self, batch: usize, tokens: &[TokenId]) -> Result<(), EngineError> {
        let never = AtomicBool::new(false);
        let mut forks: Vec<Sequence> = (0..batch).map(|_| self.sequence.fork(self.sequence.len())).collect();
        for step in 0..tokens.len() - batch {
            let mut parts: Vec<(&mut Sequence, &[TokenId])> =
                forks.iter_mut().enumerate().map(|(i, fork)| (fork, &tokens[step + i..=step + i])).collect();
            self.engine.append_many(&mut parts, &never)?;
            self.progress.at((step + 1) * batch);
        }
        Ok(())
    }

    /// Brings the sequence to `tokens`, going on from what is already there.
    fn reach(&mut self, tokens: &[TokenId]) -> Result<(), EngineError> {
        let held = self.sequence.tokens().iter().zip(tokens).take_while(|(a, b)| a == b).count();
        self.sequence.truncate(held);
        let real = tokens.len().min(REAL);
        if real > held {
            self.append(&tokens[held..real], Want::Nothing)?;
        }
        if tokens.len() > self.sequence.len() {
            self.engine.pretend(&mut self.sequence, tokens)?;
        }
        // Nothing more: a backend whose cache cannot be cut computes the rest again now, not while it is timed.
        self.append(&[], Want::Nothing)
    }

    /// Tokens per second of every run of a test of `n` tokens after `context`.
    fn test(
        &mut self,
        name: &str,
        context: &[TokenId],
        n: usize,
        run: &mut dyn FnMut(&mut Self) -> Result<(), EngineError>,
    ) -> Result<Vec<f64>, EngineError> {
        let mut rates = Vec::new();
        loop {
            let whole = Instant::now();
            self.progress.begin(format!("{name}: filling its context"), context.len());
            self.reach(context)?;
            let of = self.repeats.most;
            self.progress.begin(format!("{name}, run {} of {of}", rates.len() + 1), n);
            let start = Instant::now();
            run(self)?;
            rates.push(n as f64 / start.elapsed().as_secs_f64().max(1e-9));
            if !self.repeats.again(rates.len(), whole.elapsed().as_secs_f64()) {
                return Ok(rates);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::backend::Setup;
    use crate::engine::gguf::Gguf;
    use crate::engine::weights::ModelConfig;
    use crate::engine::{Engine, EngineOptions};
    use std::path::{Path, PathBuf};

    fn tiny() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/oracle/tiny-qwen2-f32.gguf")
    }

    /// Our engine, and where every append began and how long it was.
    struct Watched(Engine, Vec<(usize, usize)>);

    impl Backend for Watched {
        fn gguf(&self) -> &Gguf {
            self.0.gguf()
        }
        fn config(&self) -> &ModelConfig {
            &self.0.config
        }
        fn setup(&self) -> Setup {
            Backend::setup(&self.0)
        }
        fn sequence(&mut self, context: usize, kind: KvType) -> Sequence {
            self.0.sequence(context, kind)
        }
        fn pretend(&mut self, sequence: &mut Sequence, tokens: &[TokenId]) -> Result<(), EngineError> {
            self.0.pretend(sequence, tokens)
        }
        fn append(
            &mut self,
            sequence: &mut Sequence,
            tokens: &[TokenId],
            want: Want,
            cancel: &AtomicBool,
            progress: &mut dyn FnMut(usize),
        ) -> Result<Vec<f32>, EngineError> {
            if !tokens.is_empty() {
                self.1.push((sequence.tokens().len(), tokens.len()));
            }
            self.0.append(sequence, tokens, want, cancel, progress)
        }
    }

    #[test]
    fn a_depth_is_filled_once_and_every_run_begins_at_it() {
        let mut watched = Watched(Engine::open(&tiny(), EngineOptions::default()).unwrap(), Vec::new());
        let tests = Tests {
            prefill: &[8, 20],
            decode: 2,
            depths: &[0, 16, 40],
            batches: &[1],
            repeats: Repeats::of(Some(3)),
        };
        assert_eq!(tests.room(), 42);
        let rows = tests.run(&mut watched, KvType::F16, &mut Progress::none()).unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.test.as_str()).collect();
        assert_eq!(names, ["pp8", "pp20", "tg2", "tg2@d16", "tg2@d40"]);
        assert!(rows.iter().all(|row| row.runs == 3 && row.tps_min <= row.tps && row.tps <= row.tps_max));
        let decoding = |depth| [(depth, 1), (depth + 1, 1)].repeat(3);
        let expected = [
            vec![(0, 1)],
            vec![(0, 8); 3],
            vec![(0, 20); 3],
            // The prompts begin as the depths do.
            decoding(1),
            vec![(1, 15)],
            decoding(16),
            vec![(16, 24)],
            decoding(40),
        ];
        assert_eq!(watched.1, expected.concat());
        let shape = watched.0.kv_shape(KvType::F16).bytes_per_token() as u64;
        let (at_none, at_40) = (rows[2].bytes_per_token.unwrap(), rows[4].bytes_per_token.unwrap());
        assert_eq!(at_none - watched.0.bytes_per_token(), 2 * shape);
        assert_eq!(at_40 - at_none, 39 * shape);
    }

    #[test]
    fn a_great_depth_is_filled_without_prefilling_it() {
        let mut watched = Watched(Engine::open(&tiny(), EngineOptions::default()).unwrap(), Vec::new());
        let tests = Tests {
            prefill: &[],
            decode: 1,
            depths: &[1300, 2000],
            batches: &[1],
            repeats: Repeats::of(Some(1)),
        };
        tests.run(&mut watched, KvType::Q8_0, &mut Progress::none()).unwrap();
        assert_eq!(watched.1, [(0, 1), (1, REAL - 1), (1300, 1), (2000, 1)]);
    }

    #[test]
    fn a_number_that_was_asked_for_holds_and_the_usual_one_spares_long_tests() {
        let usual = Repeats::of(None);
        assert!(usual.again(4, 59.0) && !usual.again(5, 1.0) && !usual.again(1, 61.0));
        let asked = Repeats::of(Some(3));
        assert!(asked.again(2, 1e6) && !asked.again(3, 0.0));
        assert_eq!(Repeats::of(Some(0)).most, 1);
    }

    #[test]
    #[cfg(feature = "candle")]
    fn candle_runs_the_same_tests_and_its_bytes_are_not_made_up() {
        let kind = crate::engine::backend::BackendKind::Candle;
        let mut engine = kind.open(&tiny(), EngineOptions::default()).unwrap();
        let tests = Tests {
            prefill: &[8],
            decode: 2,
            depths: &[0, 16],
            batches: &[1, 3],
            repeats: Repeats::of(Some(2)),
        };
        let rows = tests.run(engine.as_mut(), KvType::F32, &mut Progress::none()).unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.test.as_str()).collect();
        assert_eq!(names, ["pp8", "tg2", "tg2x3", "tg2@d16", "tg2x3@d16"]);
        assert!(rows.iter().all(|row| row.runs == 2 && row.tps > 0.0 && row.bytes_per_token.is_none()));
    }
}
