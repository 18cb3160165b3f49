//! The model of a session that runs again: it says what was recorded, after it was looked whether it would say so now, from
//! what was recorded before. Where a result of a tool or a token is another, that is told and the session is stopped.

use super::plan::{Plan, Step, differing};
use super::{Told, locked};
use crate::agent::asked::{RunSettings, Seen};
use crate::chat::{Message, Role, ToolCallParser, ToolSpec};
use crate::commands::sessions::replay::against::{Found, Held};
use crate::model::local::LocalModel;
use crate::model::{
    Generated, Model, ModelError, ModelEvent, ModelInfo, Request, Revised, Revision, Sampling, StopReason,
    Usage,
};
use crate::workspace::{ReadContent, Workspace};
use std::collections::VecDeque;

pub(super) struct Recorded {
    held: Held,
    run: RunSettings,
    steps: VecDeque<Step>,
    /// Of each turn: it came to its own end.
    whole: Vec<bool>,
    /// What the log says of the files that answers so far rest on.
    seen: Seen,
    /// To read what a change was made to.
    workspace: Workspace,
    /// Where it runs now, and where it ran.
    places: (String, String),
    told: Told,
}

impl Recorded {
    pub fn new(
        model: LocalModel,
        plan: &mut Plan,
        workspace: Workspace,
        places: (String, String),
        told: Told,
    ) -> Self {
        let steps = std::mem::take(&mut plan.steps).into();
        let whole = plan.turns.iter().map(|turn| turn.whole).collect();
        let held = Held::new(&plan.setup, model);
        Self { held, run: plan.run.clone(), steps, whole, seen: Seen::default(), workspace, places, told }
    }

    /// The next answer of the model's own: steps of the program's the turn makes itself.
    fn next_answer(&mut self) -> Option<Step> {
        self.drop_earlier();
        while self.next_of_turn()?.asked.is_none() {
            self.steps.pop_front();
        }
        self.steps.pop_front()
    }

    /// What earlier turns ended with: words of the program's own, for which nobody is asked.
    fn drop_earlier(&mut self) {
        let turn = self.turn();
        while self.steps.front().is_some_and(|step| step.turn < turn) {
            self.steps.pop_front();
        }
    }

    /// The turn that runs, from 1.
    fn turn(&self) -> usize {
        locked(&self.told).turns + 1
    }

    fn next_of_turn(&self) -> Option<&Step> {
        let turn = self.turn();
        self.steps.front().filter(|step| step.turn == turn)
    }

    /// The next edit that the program made of what the model wrote beside the conversation.
    fn next_edit(&mut self) -> Option<(String, String, String)> {
        self.drop_earlier();
        while self.next_of_turn()?.asked.is_none() {
            let calls = self.steps.pop_front().map(|step| step.message.tool_calls).unwrap_or_default();
            if let Some(call) = calls.iter().find(|call| call.name == "edit") {
                let text = |key: &str| call.arguments.get(key)?.as_str().map(str::to_string);
                return Some((text("file_path")?, text("old_string")?, text("new_string")?));
            }
        }
        None
    }

    /// The session went another way: it ends.
    fn part(&self, why: &str) -> ModelError {
        locked(&self.told).parted.get_or_insert_with(|| why.to_string());
        stopped()
    }

    /// A file that was written anew, as the answer that says so.
    fn rewritten(&mut self) -> Result<Generated, ModelError> {
        let written = match self.next_edit() {
            Some((path, old, new)) => {
                let text = match self.workspace.read(&path).map(|file| file.content) {
                    Ok(ReadContent::Text(text)) if text.text.contains(&old) => text.text,
                    _ => return Err(self.another(&path)),
                };
                Some(format!("```\n{}\n```", text.replacen(&old, &new, 1).trim_end_matches('\n')))
            }
            None => None,
        };
        let stop = if written.is_some() { StopReason::End } else { StopReason::Length };
        Ok(generated(Message::new(Role::Assistant, written.unwrap_or_default()), stop))
    }

    fn another(&self, path: &str) -> ModelError {
        self.part(&format!("in turn {} {path} is another file than it was", self.turn()))
    }
}

fn stopped() -> ModelError {
    ModelError::Unavailable {
        message: "the session runs another way than it was recorded".into(),
        hint: String::new(),
    }
}

fn generated(message: Message, stop: StopReason) -> Generated {
    Generated { message, stop, usage: Usage::default(), truncated: false, problems: Vec::new() }
}

impl Model for Recorded {
    fn info(&self) -> &ModelInfo {
        self.held.model.info()
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.held.model.count_tokens(text)
    }

    fn count_history(&self, messages: &[Message], tools: &[ToolSpec]) -> usize {
        self.held.model.count_history(messages, tools)
    }

    fn generate(
        &mut self,
        request: Request<'_>,
        _on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Generated, ModelError> {
        if request.aside {
            return match request.frame {
                Some(_) => self.rewritten(),
                None => Err(self.part("the conversation would be shortened here")),
            };
        }
        let Some(step) = self.next_answer() else {
            // Where a limit cut it short, that is in no log.
            return Err(match self.whole.get(self.turn() - 1) {
                Some(false) => stopped(),
                _ => {
                    let why =
                        format!("in turn {} the model is asked once more than was recorded", self.turn());
                    self.part(&why)
                }
            });
        };
        let Some(asked) = &step.asked else { return Err(stopped()) };
        if let Some(result) = differing(request.messages, &step.history, &self.places) {
            locked(&self.told).result = Some(super::ResultDiffers { turn: step.turn, ..result });
            return Err(stopped());
        }
        self.seen.take_in(asked.seen.clone());
        let sampling = Sampling {
            seed: self.run.seed,
            temperature: asked.temperature.or(self.run.temperature),
            max_tokens: asked.most,
        };
        let request = Request {
            messages: &step.history,
            tools: &self.run.tools,
            sampling: sampling.clone(),
            must_call: asked.must_call.as_ref(),
            words_only: asked.words_only,
            ..request
        };
        let (same, differs) = match self.held.compare(request, &step.message, asked) {
            Ok(compared) => compared,
            Err(failure) => {
                locked(&self.told).failure = Some(failure);
                return Err(stopped());
            }
        };
        let mut live = locked(&self.told);
        live.tokens += same;
        if let Some(found) = differs {
            let read = |path: &str| match self.workspace.read(path).ok()?.content {
                ReadContent::Text(text) => Some(text.shown().into_owned()),
                _ => None,
            };
            // What a call may quote is a text of its file.
            let files = self.seen.changed(&read).into_iter();
            let mut differs: Vec<String> =
                files.map(|path| format!("{path} is another file than it was")).collect();
            differs.extend(self.held.differs(&self.run, asked, &sampling, &found));
            let (turn, answer, difference) = (step.turn, step.answer, found.in_answer);
            live.token = Some(Found { turn, answer, difference, differs });
            return Err(stopped());
        }
        live.answers += 1;
        drop(live);
        // What was wrong with a call is in no log: it is read again.
        let tokens = step.message.written.as_ref().map_or(&[][..], |written| &written.tokens);
        let format = self.info().format;
        let mut parser = ToolCallParser::new(format, &self.run.tools, format.opens_think());
        parser.push(&self.held.model.tokenizer().decode(tokens));
        let (_, parsed) = parser.finish();
        let usage = Usage { prompt: asked.prompt, completion: tokens.len(), ..Usage::default() };
        let (truncated, problems) = (parsed.truncated, parsed.problems);
        Ok(Generated { usage, truncated, problems, ..generated(step.message.clone(), asked.stop) })
    }

    fn revise(
        &mut self,
        revision: Revision<'_>,
        _on_event: &mut dyn FnMut(ModelEvent),
    ) -> Result<Revised, ModelError> {
        let Some((path, old, new)) = self.next_edit() else { return Ok(Revised::default()) };
        if !revision.text.contains(&old) {
            return Err(self.another(&path));
        }
        Ok(Revised { text: Some(revision.text.replacen(&old, &new, 1)), ..Revised::default() })
    }
}
