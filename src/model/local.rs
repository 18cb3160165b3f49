//! The engine and the chat format as one `Model`. Holds the token sequence of the conversation: what is already in the
//! KV cache is never rendered or prefilled again, and what the model wrote enters the history as its own tokens. A
//! history that is not a continuation of the last one (undo, another conversation) keeps the longest common prefix of
//! tokens; what must be prefilled again is counted.

mod ahead;
mod aside;
mod decode;
mod drafts;
mod load;
mod speech;

pub use decode::{DecodeStats, Decoding, Difference, Replayed};
pub use load::read_once;

use super::grammar::{Grammar, Vocabulary};
use super::revise::{Means, SLACK, Search, Shared, lock};
use super::{
    Generated, Model, ModelError, ModelEvent, ModelInfo, ModelSetup, Request, Revised, Revision, StopReason,
    Usage,
};
use crate::chat::{ChatFormat, Message, ParseEvent, Role, Template, ToolSpec, Written};
use crate::engine::backend::{Backend, BackendKind};
use crate::engine::kv::KvType;
use crate::engine::sampler::{SamplingParams, TokenMask};
use crate::engine::tokenizer::Tokenizer;
use crate::engine::{EngineError, EngineOptions, Sequence, TokenId, Want};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// How to load a model file.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    pub backend: BackendKind,
    pub engine: EngineOptions,
    pub kv: KvType,
    /// Tokens of context; `None` takes the model's own, at most 32,768.
    pub context: Option<usize>,
    /// `None` reads it from the file's template and name.
    pub format: Option<ChatFormat>,
    /// The model's recommended settings; a request's own come first.
    pub sampling: SamplingParams,
    pub decoding: Decoding,
    /// Where keys and values are kept between sessions, and how many bytes of them.
    pub snapshots: Option<(PathBuf, u64)>,
}

/// Qwen's own settings for models of which nothing else is known.
pub const SAMPLING: SamplingParams =
    SamplingParams { seed: 0, temperature: 0.7, top_k: 20, top_p: 0.8, min_p: 0.0, repetition_penalty: 1.05 };

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            backend: BackendKind::default(),
            engine: EngineOptions::default(),
            kv: KvType::Q8_0,
            context: None,
            format: None,
            sampling: SAMPLING,
            decoding: Decoding::default(),
            snapshots: None,
        }
    }
}

/// Context of a model when nothing is asked for: enough for a long session, at a stated size in memory.
pub const DEFAULT_CONTEXT: usize = 32_768;
/// As far as YaRN is used.
pub const FARTHEST: usize = 1 << 20;
/// Tokens before an answer that the repetition penalty looks at too.
const PENALTY_BEFORE: usize = 64;
/// Tokens between two progress reports of a prefill.
const PROGRESS: usize = 128;

pub struct LocalModel {
    engine: Box<dyn Backend>,
    /// Tokens of a prefill batch.
    batch: usize,
    tokenizer: Tokenizer,
    info: ModelInfo,
    /// The file's own, where it speaks none of our formats.
    template: Option<Template>,
    sampling: SamplingParams,
    allowed: TokenMask,
    sequence: Sequence,
    kv: KvType,
    /// The messages and tools whose tokens `sequence` holds, and how many they are: a revision may stand behind them.
    history: Vec<Message>,
    held: usize,
    search: Option<(u64, Arc<Mutex<Search>>)>,
    /// Those of models that share the engine and work at the same task.
    searches: Option<Arc<Shared>>,
    tools: Vec<ToolSpec>,
    /// Names the vocabulary: tokens of another are not ours.
    vocabulary: String,
    /// What the user should know of the loading.
    notes: Vec<String>,
    decoding: Decoding,
    /// The grammar of the tools last asked with, and whether values were held to the workspace; the vocabulary as it
    /// needs it.
    grammar: Option<Grammar>,
    grammar_of: (Vec<ToolSpec>, bool),
    trie: Option<Arc<Vocabulary>>,
    /// What batches and drafts came to so far, and the last answer.
    record: drafts::Record,
    stats: DecodeStats,
}

/// A request that was prefilled.
struct Begun {
    /// What is given of an answer that must make a call, and how many tokens that is.
    opening: String,
    opened: usize,
    usage: Usage,
    /// Of the last token; `None` where it was cancelled.
    logits: Option<Vec<f32>>,
}

/// Where a history stands in what the model holds.
enum Plan {
    /// It goes on where the sequence is cut at this many tokens, with these.
    Continues(usize, Vec<TokenId>),
    /// It is these tokens, from the first, of which so many are of messages that the sequence held.
    Whole(Vec<TokenId>, usize),
}

impl Plan {
    /// Tokens of the history.
    fn len(&self) -> usize {
        match self {
            Self::Continues(kept, new) => kept + new.len(),
            Self::Whole(tokens, _) => tokens.len(),
        }
    }
}

fn broken(error: EngineError) -> ModelError {
    match error {
        EngineError::ContextFull { needed, limit } => ModelError::ContextFull { needed, limit },
        other => ModelError::Unavailable {
            message: other.to_string(),
            hint: "qwright models list shows the models that are known to work".into(),
        },
    }
}

impl LocalModel {
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What stands in the sequence from token `from` on, as the answer that it is.
    fn written(&self, from: usize) -> Written {
        let tokens = self.sequence.tokens().get(from..).unwrap_or_default().to_vec();
        Written { vocabulary: self.vocabulary.clone(), tokens }
    }

    /// Brings the sequence to a beginning of what `plan` asks for: how many tokens are held, those that are not, and how
    /// many of these it held before.
    fn hold(&mut self, plan: Plan) -> (usize, Vec<TokenId>, usize) {
        match plan {
            Plan::Continues(kept, mut new) => {
                // Behind what is held may stand what was prefilled ahead; the last token is run for its logits.
                let ahead = self.sequence.tokens()[kept..].iter().zip(&new[..new.len().saturating_sub(1)]);
                let right = ahead.take_while(|(a, b)| a == b).count();
                new.drain(..right);
                self.sequence.truncate(kept + right);
                (kept + right, new, 0)
            }
            Plan::Whole(mut tokens, known) => {
                // What is left may be asked for again.
                self.engine.remember(&self.sequence);
                // The last token is always run again: its logits are needed.
                let most = tokens.len().saturating_sub(1);
                let kept = self.engine.recall(&mut self.sequence, &tokens[..most]);
                tokens.drain(..kept);
                // The one that is run for its logits is no repetition.
                (kept, tokens, known.min(most).saturating_sub(kept))
            }
        }
    }

    /// Appends `new` with progress; the logits of its last token, or `None` if it was cancelled, and how many were done.
    fn prefill(
        &mut self,
        new: &[TokenId],
        cancel: &AtomicBool,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<(usize, Option<Vec<f32>>), ModelError> {
        let total = new.len() as u64;
        let mut logits = Vec::new();
        let mut done = 0;
        on_event(ModelEvent::Progress { phase: "prefill", done: 0, total });
        let mut pieces = new.chunks(PROGRESS.max(self.batch)).peekable();
        while let Some(piece) = pieces.next() {
            let want = if pieces.peek().is_some() { Want::Nothing } else { Want::Last };
            // A piece may take a minute: what the engine tells of it goes on.
            let mut inside = |part: usize| {
                on_event(ModelEvent::Progress { phase: "prefill", done: (done + part) as u64, total });
            };
            match self.engine.append(&mut self.sequence, piece, want, cancel, &mut inside) {
                Ok(last) => logits = last,
                Err(EngineError::Cancelled) => return Ok((done, None)),
                Err(error) => return Err(broken(error)),
            }
            done += piece.len();
        }
        Ok((done, Some(logits)))
    }

    /// Brings the sequence to where the answer to `request` begins.
    fn begin(
        &mut self,
        request: &Request<'_>,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Begun, ModelError> {
        let plan = self.plan(request.messages, request.tools, true)?;
        let required = request.must_call.filter(|_| !self.info.format.opens_think());
        let opening = required
            .map_or_else(Vec::new, |call| self.info.format.call_opening(&call.tool, &call.given, &call.next));
        let opened = self.encode(&opening);
        let prompt = plan.len() + opened.len();
        if prompt + 1 > self.sequence.capacity() {
            return Err(ModelError::ContextFull { needed: prompt + 1, limit: self.sequence.capacity() });
        }
        let (kept, mut new, repeated) = self.hold(plan);
        new.extend(&opened);
        self.end_search();
        let notes = self.notes.drain(..).chain(self.engine.complaints());
        notes.for_each(|note| on_event(ModelEvent::Note(note)));
        // Until the answer is whole the sequence belongs to no history that can be continued.
        self.history.clear();
        self.held = kept;
        let (done, logits) = self.prefill(&new, request.cancel, on_event)?;
        let repeated = if logits.is_some() { repeated } else { 0 };
        Ok(Begun {
            opening: crate::chat::format::text(&opening),
            opened: opened.len(),
            usage: Usage { prompt, cached: kept, prefilled: done, repeated, ..Usage::default() },
            logits,
        })
    }

    /// Closes the turn of `message`, which stands at the sequence's end and answers `request`: what is held can be
    /// continued. True where there was room for it.
    fn close(&mut self, request: &Request<'_>, message: Message) -> bool {
        let close = self.closing();
        let never = AtomicBool::new(false);
        let closed = match close.is_empty() {
            true => Ok(Vec::new()),
            false => self.engine.append(&mut self.sequence, &close, Want::Nothing, &never, &mut |_| {}),
        };
        if closed.is_ok() {
            self.history = request.messages.to_vec();
            self.history.push(message);
            self.held = self.sequence.tokens().len();
            self.tools = request.tools.to_vec();
        }
        closed.is_ok()
    }

    /// What the answer that was just decoded took.
    fn wrote(&self, usage: &mut Usage, completion: usize) {
        usage.completion = completion;
        (usage.drafted, usage.rejected) = (self.stats.drafted, self.stats.rejected);
    }

    /// Nobody goes on with the search, unless others do.
    fn end_search(&mut self) {
        // One is ours and one the table's.
        if let Some((_, search)) = self.search.take().filter(|(_, search)| Arc::strong_count(search) <= 2) {
            lock(&search).let_go();
        }
    }

    /// Brings the sequence to `revision`'s text, scored, and starts the search; false if it was cancelled or the text
    /// is none to search in.
    fn start_search(
        &mut self,
        revision: &Revision<'_>,
        key: u64,
        usage: &mut Usage,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<bool, ModelError> {
        let plan = self.plan(revision.messages, revision.tools, false)?;
        let ask = std::slice::from_ref(revision.ask);
        let mut asked = self.more(revision.messages, ask, revision.tools)?;
        asked.extend(self.tokenizer.encode(&format!("```{}\n", revision.language), false));
        let text = self.tokenizer.encode(revision.text, false).len() + SLACK;
        let needed = plan.len() + asked.len() + text;
        if needed > self.sequence.capacity() {
            return Err(ModelError::ContextFull { needed, limit: self.sequence.capacity() });
        }
        let (kept, new, repeated) = self.hold(plan);
        usage.prompt = needed - SLACK;
        usage.cached = kept;
        usage.prefilled = usage.prompt - kept;
        usage.repeated = repeated;
        self.end_search();
        self.history.clear();
        self.held = kept;
        if self.prefill(&new, revision.cancel, on_event)?.1.is_none() {
            return Ok(false);
        }
        self.history = revision.messages.to_vec();
        self.tools = revision.tools.to_vec();
        self.held = self.sequence.tokens().len();
        if self.prefill(&asked, revision.cancel, on_event)?.1.is_none() {
            return Ok(false);
        }
        // Who shares one has no need of luck to try something else than the others.
        let temperature = match &self.searches {
            Some(_) => 0.0,
            None => revision.sampling.temperature.unwrap_or(self.sampling.temperature),
        };
        let mut means = Means {
            engine: self.engine.as_mut(),
            sequence: &mut self.sequence,
            tokenizer: &self.tokenizer,
            drafts: self.decoding.drafts,
            cancel: revision.cancel,
        };
        let mut progress = |done: usize, total: usize| {
            on_event(ModelEvent::Progress { phase: "read", done: done as u64, total: total as u64 });
        };
        let drawn = (revision.sampling.seed, temperature);
        let mut start = |means: &mut Means<'_>| {
            Search::start(revision.text, "```", revision.until, drawn, means, &mut progress)
        };
        let search = match &self.searches {
            Some(searches) => searches.search(revision.text, &mut means, start),
            None => start(&mut means).map(|search| search.map(|search| Arc::new(Mutex::new(search)))),
        };
        match search {
            Ok(search) => self.search = search.map(|search| (key, search)),
            Err(EngineError::Cancelled) => {}
            Err(error) => return Err(broken(error)),
        }
        Ok(self.search.is_some())
    }

    /// No call can be written: neither its tag nor the object that small models write without one.
    fn deny_calls(&self, mask: &mut TokenMask) {
        if let Some(opens) = self.tokenizer.added("<tool_call>") {
            mask.deny(opens);
        }
        self.deny_text(mask, b"{\"");
    }

    fn deny_text(&self, mask: &mut TokenMask, start: &[u8]) {
        for id in 0..mask.len().min(self.tokenizer.vocab_size()) as TokenId {
            if self.tokenizer.bytes(id).trim_ascii_start().starts_with(start) {
                mask.deny(id);
            }
        }
    }
}

fn emit(event: ParseEvent, on_event: &mut dyn FnMut(ModelEvent)) {
    on_event(match event {
        ParseEvent::Text(text) => ModelEvent::Text(text),
        ParseEvent::Thinking(text) => ModelEvent::Thinking(text),
        ParseEvent::CallStarted(name) => ModelEvent::ToolCallStarted(name),
        ParseEvent::Call(call) => ModelEvent::ToolCall(call),
    });
}

impl Model for LocalModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn setup(&self) -> Option<ModelSetup> {
        let (gguf, setup) = (self.engine.gguf(), self.engine.setup());
        let path = gguf.path();
        Some(ModelSetup {
            file: path.canonicalize().as_deref().unwrap_or(path).display().to_string(),
            bytes: gguf.file_bytes(),
            checksum: gguf.checksum(),
            vocabulary: self.vocabulary.clone(),
            backend: setup.backend.name().into(),
            kernels: setup.kernels.map(|set| set.name().into()),
            threads: setup.threads,
            kv: setup.backend.kv(self.kv).name().into(),
            format: self.info.format.name().into(),
            context: self.info.context,
            masks: self.decoding.masks,
            sampling: self.sampling.clone(),
        })
    }

    fn prompt(&self, messages: &[Message], tools: &[ToolSpec]) -> Result<String, ModelError> {
        self.text_of(messages, tools)
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.tokenizer.encode(text, false).len()
    }

    fn count_history(&self, messages: &[Message], tools: &[ToolSpec]) -> usize {
        // What cannot be printed is told when it is asked; until then its texts are counted.
        let texts = || messages.iter().map(|message| self.count_tokens(&message.content)).sum();
        self.plan(messages, tools, true).map_or_else(|_| texts(), |plan| plan.len())
    }

    fn generate(
        &mut self,
        request: Request<'_>,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Generated, ModelError> {
        if request.aside {
            return self.answer_aside(&request, on_event);
        }
        let Begun { opening, opened, mut usage, logits } = self.begin(&request, on_event)?;
        let Some(logits) = logits else {
            return Ok(Generated {
                message: Message::new(Role::Assistant, ""),
                stop: StopReason::Cancelled,
                usage,
                truncated: false,
                problems: Vec::new(),
            });
        };
        let (parser, stop, completion) = self.decode(&request, &opening, logits, on_event, None)?;
        let (events, parsed) = parser.finish();
        events.into_iter().for_each(|event| emit(event, on_event));
        self.wrote(&mut usage, completion);
        on_event(ModelEvent::Usage(usage));
        let message = Message {
            role: Role::Assistant,
            content: parsed.content,
            reasoning: parsed.reasoning,
            tool_calls: parsed.calls,
            written: Some(self.written(usage.prompt - opened)),
        };
        // The turn is always closed, also after Esc or a length cut, so that the next message can follow.
        if self.close(&request, message.clone()) {
            self.engine.remember(&self.sequence);
        }
        Ok(Generated { message, stop, usage, truncated: parsed.truncated, problems: parsed.problems })
    }

    fn look_ahead(
        &mut self,
        messages: &[Message],
        tools: &[ToolSpec],
        cancel: &AtomicBool,
    ) -> Result<usize, ModelError> {
        LocalModel::look_ahead(self, messages, tools, cancel)
    }

    fn revise(
        &mut self,
        revision: Revision<'_>,
        on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Revised, ModelError> {
        let mut revised = Revised::default();
        let mut hasher = DefaultHasher::new();
        (revision.text, &revision.ask.content, revision.until, revision.sampling.seed).hash(&mut hasher);
        let key = hasher.finish();
        let goes_on = self.history == revision.messages
            && self
                .search
                .as_ref()
                .is_some_and(|(of, search)| *of == key && lock(search).len() == self.sequence.tokens().len());
        if goes_on {
            revised.usage.prompt = self.sequence.tokens().len();
            revised.usage.cached = revised.usage.prompt;
        } else if !self.start_search(&revision, key, &mut revised.usage, on_event)? {
            revised.cancelled = revision.cancel.load(Ordering::Relaxed);
            return Ok(revised);
        }
        let Some((_, search)) = &mut self.search else { return Ok(revised) };
        let mut means = Means {
            engine: self.engine.as_mut(),
            sequence: &mut self.sequence,
            tokenizer: &self.tokenizer,
            drafts: self.decoding.drafts,
            cancel: revision.cancel,
        };
        match lock(search).next(&mut means, &mut revised.usage) {
            Ok(text) => revised.text = text,
            Err(EngineError::Cancelled) => revised.cancelled = true,
            Err(error) => return Err(broken(error)),
        }
        Ok(revised)
    }
}
