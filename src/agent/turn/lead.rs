//! Where the turn leads a small model's work instead of following it: the named command runs first, the file at fault is
//! read, its versions are tried and checked (`repair` says which file and how); a question is answered from the files
//! it names or the lines that a search finds; one file that is to change is written anew, and the turn makes the edit of
//! it. Every step is judged, run and told like a call of the model's own. `fixtures/asks` shows what it comes to.

use super::{EDIT, Effect, LIST, Must, Repair, SEARCH, SHELL, State, Turn, WRITE};
use crate::agent::nudge::{Kind, Nudge};
use crate::agent::prompts::note;
use crate::agent::protocol::{Ending, Usage};
use crate::agent::repair::{self, Survey, survey};
use crate::chat::{Message, Role, ToolCall};

/// Lines of a change that the closing words show.
const MOST_SHOWN: usize = 30;

impl Turn {
    /// A small model asked to mend what a named command shows, or to run it, does best with that command's output before
    /// it.
    pub(in crate::agent) fn first_check(&self) -> Option<String> {
        self.command().filter(|_| self.rules.small && (self.wish.leads() || self.wish.runs))
    }

    /// A small model that has the files the request names before it answers a question from them, and begins a change
    /// with one of them: left to itself it calls whatever comes to mind.
    pub(super) fn first_answer(&self) -> Must {
        match self.wish.kind {
            Kind::Change if self.new.is_some() && self.offers(WRITE) => Must::Call(WRITE),
            _ if self.named.is_empty() => Must::Nothing,
            Kind::Question => Must::Answer,
            Kind::Change if self.offers(EDIT) => Must::Call(EDIT),
            Kind::Change | Kind::Unclear => Must::Nothing,
        }
    }

    /// A small model that is to change one file writes the file better than the call that changes it: it is asked for
    /// the file as a block of code, beside the conversation, and the turn makes the call of it.
    pub(super) fn first_rewrite(&self) -> Option<String> {
        let one = self.named.first().filter(|_| self.named.len() == 1 && self.new.is_none());
        let fits = self.rules.small && self.wish.kind == Kind::Change && self.offers(EDIT);
        one.filter(|_| fits).cloned()
    }

    /// The one file that was to change has changed, and nothing is named that would check it: a small model would go on
    /// and do it again.
    fn is_done(&self) -> bool {
        let wrote = self.last.as_ref().is_some_and(|(call, _)| call.name == WRITE);
        let one = if self.new.is_some() { wrote } else { self.named.len() == 1 };
        let small = self.rules.small && self.wish.kind == Kind::Change;
        small && one && self.changed && self.wish.check.is_none()
    }

    /// What a model that is to answer in words is asked last; this small, it needs to hear from what.
    pub(super) fn asked_for_words(&self) -> String {
        match () {
            () if self.changed => note("answer_what_changed", &[]),
            () if self.wish.runs || self.wish.lists && self.named.is_empty() => {
                note("answer_from_output", &[])
            }
            () if !self.named.is_empty() => {
                note("answer_from_files", &[("files", &self.named.join(" and "))])
            }
            () if self.last.as_ref().is_some_and(|(call, _)| call.name == SEARCH) => {
                note(if self.found() { "answer_from_lines" } else { "answer_from_nothing" }, &[])
            }
            () => note("answer_now", &[]),
        }
    }

    pub(super) fn rewrite(&mut self, file: String, refused: Option<String>, effects: &mut Vec<Effect>) {
        let begun = matches!(self.repair, Repair::Trying { .. });
        self.repair = Repair::Rewriting;
        if let Some(max_tokens) = self.tokens_left(effects) {
            self.state = State::Revising;
            effects.push(Effect::Rewrite { file, refused, begun, max_tokens });
        }
    }

    /// A small model whose change was refused gives up, unless it has to make the change as the user wants it.
    fn again_as_wanted(&mut self, effects: &mut Vec<Effect>) -> bool {
        let Some((tool, reason)) = self.refused.take() else { return false };
        match self.first_rewrite().filter(|_| matches!(self.repair, Repair::Rewriting)) {
            Some(file) => {
                self.rewrite(file, Some(reason), effects);
                true
            }
            None => {
                self.must = Must::Call(tool);
                false
            }
        }
    }

    /// A small model asked about the whole repository answers at once, out of nothing, or reads what comes to mind:
    /// it gets the lines where the words of the question meet.
    pub(super) fn first_search(&self) -> Option<ToolCall> {
        let asked = self.rules.small && self.wish.kind == Kind::Question && self.named.is_empty();
        if asked && self.wish.lists && self.offers(LIST) {
            let path = self.directory.iter().map(|path| ("path".to_string(), path.clone().into()));
            return Some(ToolCall { name: LIST.into(), arguments: path.collect() });
        }
        let pattern = self.wish.subject.as_ref().or(self.wish.words.as_ref());
        let pattern = pattern.filter(|_| asked && self.offers(SEARCH))?;
        Some(search(pattern))
    }

    /// Whether the last search of the turn's own found anything.
    fn found(&self) -> bool {
        self.last.as_ref().is_some_and(|(_, text)| text.contains(": "))
    }

    /// Where the turn leads the work: a check of its own that failed is followed by versions of the file at fault, each
    /// checked and taken back if it does not help. True where that is the next step.
    pub(super) fn step_of_ours(&mut self, effects: &mut Vec<Effect>) -> bool {
        if self.refused.is_some() {
            return self.again_as_wanted(effects);
        }
        let led = std::mem::take(&mut self.led);
        if std::mem::take(&mut self.searched) {
            if !self.found()
                && let Some(words) = self.wish.words.take().filter(|_| self.wish.subject.is_some())
            {
                self.searched = true;
                self.own_calls(vec![search(&words)], effects);
                return true;
            }
            self.must = Must::Answer;
        }
        if self.is_done() {
            if let Some(words) = self.what_was_done() {
                self.say(words, effects);
                return true;
            }
            self.must = Must::Answer;
        }
        if led && self.wish.runs {
            self.must = Must::Answer;
            return false;
        }
        let Some(command) = self.command().filter(|_| led && self.denials.is_empty()) else { return false };
        match (self.repair.clone(), self.changed, self.last_run) {
            (_, true, None) => self.own_call(command, effects),
            (Repair::Trying { file, tries }, _, Some(true)) => self.mended(&file, tries, effects),
            (_, _, Some(true)) => return false,
            (Repair::Untried, false, _) => {
                let output = self.last.as_ref().map(|(_, text)| text.clone()).unwrap_or_default();
                let files = &self.rules.files;
                let tools = self.offers("read_file") && self.offers(EDIT);
                if let Some(survey) = survey(&self.named, files, &command, &output).filter(|_| tools) {
                    self.repair = Repair::Reading { file: survey.file };
                    self.own_calls(survey.reads, effects);
                } else if let Some((test, look)) =
                    repair::teller(&self.named, files, &command, &output).filter(|_| tools)
                {
                    self.repair = Repair::Looking { test, output };
                    self.own_calls(vec![look], effects);
                } else {
                    self.require_edit();
                    return false;
                }
            }
            (Repair::Looking { test, output }, false, _) => {
                let head = self.last.as_ref().map(|(_, text)| text.as_str()).unwrap_or_default();
                let Some(file) = repair::blamed(&self.rules.files, &test, head) else {
                    self.repair = Repair::Over;
                    self.require_edit();
                    return false;
                };
                let survey = Survey::of(file, &self.rules.files, &output).after_head(&test);
                self.repair = Repair::Reading { file: survey.file };
                self.own_calls(survey.reads, effects);
            }
            (Repair::Reading { file }, ..) => self.revise(file, 0, effects),
            (Repair::Trying { file, tries }, ..) => {
                effects.push(Effect::TakeBack { forget: true });
                self.changed = false;
                self.last = None;
                self.again.clear();
                self.revise(file, tries, effects);
            }
            (Repair::Over | Repair::Rewriting, false, _) => {
                self.require_edit();
                return false;
            }
            (
                Repair::Over | Repair::Rewriting | Repair::Untried | Repair::Looking { .. },
                true,
                Some(false),
            ) => {
                let tries = self.nudged.iter().filter(|nudge| **nudge == Nudge::CheckFailed).count();
                if tries < Nudge::CheckFailed.most() {
                    self.take_back(effects);
                }
                return false;
            }
        }
        true
    }

    /// Asks for the next version of `file`, if there may be another one.
    pub(super) fn revise(&mut self, file: String, tries: usize, effects: &mut Vec<Effect>) {
        let most = if self.asked { repair::MOST_ASKED } else { repair::MOST_TRIES };
        self.repair = Repair::Trying { file: file.clone(), tries };
        if tries >= most {
            return self.out_of_versions(effects);
        }
        if self.tokens_left(effects).is_some() {
            self.state = State::Revising;
            effects.push(Effect::Revise { file });
        }
    }

    pub(super) fn revised(&mut self, call: Option<ToolCall>, usage: Usage, effects: &mut Vec<Effect>) {
        self.model_calls += 1;
        self.usage += usage;
        if let Some(call) = &call {
            self.version = (text_of(call, "old_string"), text_of(call, "new_string"));
        }
        match (call, &mut self.repair) {
            (Some(call), Repair::Trying { tries, .. }) => {
                *tries += 1;
                self.last_run = None;
                self.own_calls(vec![call], effects);
            }
            (Some(call), Repair::Rewriting) => self.own_calls(vec![call], effects),
            (_, Repair::Trying { tries: 1.., .. }) => self.out_of_versions(effects),
            // Versions are for whoever has the weights at hand: a server may write the file anew.
            (None, Repair::Trying { file, .. }) => {
                let file = file.clone();
                self.rewrite(file, None, effects);
            }
            _ => {
                self.repair = Repair::Over;
                self.require_edit();
                self.call_model(effects);
            }
        }
    }

    /// The check passes: what was done is said as it was. (Asked to explain, a model this small makes things up.)
    pub(super) fn mended(&mut self, file: &str, tries: usize, effects: &mut Vec<Effect>) {
        let (old, new) = &self.version;
        let earlier = match tries - 1 {
            0 => String::new(),
            count => note("mended_after", &[("count", &count.to_string())]),
        };
        let check = self.wish.check.as_deref().unwrap_or_default();
        let values = [("path", file), ("check", check), ("old", old), ("new", new), ("earlier", &earlier)];
        self.say(note("mended", &values), effects);
    }

    /// What a turn that made one change or one file did, as it was.
    fn what_was_done(&self) -> Option<String> {
        let (call, result) = self.last.as_ref()?;
        // What the tool saw wrong with it is not kept back.
        let (result, warning) = match result.split_once("\nNote: ") {
            Some((result, warning)) => (result, Some(warning)),
            None => (result.as_str(), None),
        };
        let path = text_of(call, "file_path");
        let (old, new) = &self.version;
        let long = old.lines().count().max(new.lines().count()) > MOST_SHOWN;
        let words = match self.repair {
            // What was rejected a model this small tells as if it were there.
            _ if self.settled => {
                let (_, diff) =
                    result.split_once("\n@@").filter(|(_, diff)| diff.lines().count() <= MOST_SHOWN)?;
                note("changed_in_part", &[("path", &path), ("diff", &format!("@@{}", diff.trim_end()))])
            }
            _ if call.name == WRITE => {
                let lines = text_of(call, "content").lines().count().to_string();
                note("written", &[("path", &path), ("lines", &lines)])
            }
            Repair::Rewriting if call.name == EDIT && old != new && !long => {
                note("changed", &[("path", &path), ("old", old), ("new", new)])
            }
            _ => return None,
        };
        Some(match warning {
            Some(warning) => format!("{}\n\n{warning}", words.trim_end()),
            None => words,
        })
    }

    /// Ends the turn with words of its own.
    fn say(&mut self, words: String, effects: &mut Vec<Effect>) {
        self.answer = words.trim_end().to_string();
        effects.push(Effect::Append(Message::new(Role::Assistant, self.answer.clone())));
        self.end(Ending::Done, effects);
    }

    pub(super) fn out_of_versions(&mut self, effects: &mut Vec<Effect>) {
        let Repair::Trying { file, tries } = &self.repair else { return };
        let check = self.wish.check.as_deref().unwrap_or_default();
        let message = format!(
            "{check} still fails: {tries} versions of {file} were tried, and taken back. The files are as they were."
        );
        self.finish(Ending::Stuck { message }, effects);
    }

    pub(super) fn require_edit(&mut self) {
        self.led = self.offers(EDIT);
        self.must = if self.led { Must::Call(EDIT) } else { Must::Nothing };
    }

    /// A guess that did not help would only mislead the next one.
    pub(super) fn take_back(&mut self, effects: &mut Vec<Effect>) {
        effects.push(Effect::TakeBack { forget: false });
        self.changed = false;
        self.last_run = None;
        self.nudged.push(Nudge::CheckFailed);
        self.notes.push(note(Nudge::CheckFailed.note(), &[]));
        self.require_edit();
    }

    /// A command that the turn itself calls for, as the model would: it is judged, run and told like any call. A
    /// version of a file may well run for ever: it gets several times what the check took before.
    pub(super) fn own_call(&mut self, command: String, effects: &mut Vec<Effect>) {
        let mut arguments = serde_json::Map::from_iter([("command".to_string(), command.into())]);
        if let Repair::Trying { .. } = self.repair {
            arguments.insert("timeout".into(), (self.check_seconds * 4 + 5).into());
        }
        self.own_calls(vec![ToolCall { name: SHELL.into(), arguments }], effects);
    }

    pub(super) fn own_calls(&mut self, calls: Vec<ToolCall>, effects: &mut Vec<Effect>) {
        let mut message = Message::new(Role::Assistant, "");
        message.tool_calls = calls.clone();
        effects.push(Effect::Append(message));
        self.queue.extend(calls);
        self.called = true;
        self.led = true;
        self.own = true;
        self.next(effects);
    }
}

/// An argument of a call, without the line break at its end.
fn text_of(call: &ToolCall, key: &str) -> String {
    let text = call.arguments.get(key).and_then(|text| text.as_str());
    text.unwrap_or_default().trim_end_matches('\n').to_string()
}

fn search(pattern: &str) -> ToolCall {
    let arguments = serde_json::Map::from_iter([("pattern".to_string(), pattern.into())]);
    ToolCall { name: SEARCH.into(), arguments }
}
