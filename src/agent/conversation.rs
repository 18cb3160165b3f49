//! What the records of a session add up to: the history, the turns that can be taken back, the mode. A session changes
//! its conversation by records alone and logs each of them, so a log that is read back gives the very conversation
//! that wrote it. Pure.

use super::prompts::note;
use super::protocol::ApprovalMode;
use super::transcript::Record;
use crate::chat::{Message, Role, ToolCall};
use crate::workspace::Mark;
use std::sync::Arc;

/// The tools whose calls name a file they write.
const WRITERS: &[&str] = &["edit", "write_file"];

#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    pub history: Vec<Message>,
    pub turns: Vec<PastTurn>,
    pub mode: ApprovalMode,
    /// The mode the model was last told of.
    pub told_mode: ApprovalMode,
    /// Files that the model wrote or edited, the latest last.
    pub written: Vec<String>,
    /// Calls numbered so far.
    pub calls: u64,
    /// The last turn has not finished.
    pub running: bool,
}

/// A turn, to take it back.
#[derive(Debug, Clone, PartialEq)]
pub struct PastTurn {
    /// The user's own words.
    pub request: String,
    /// Messages of the history before it.
    start: usize,
    /// The history that `start` counts in, where it was shortened since.
    before: Option<Arc<[Message]>>,
    /// Tools changed files in it, or may have.
    pub changed: bool,
    /// Files that tools changed in it, by the diff of its outcome.
    pub files: Vec<String>,
    /// The files before it; a turn of an earlier process has none.
    pub mark: Option<Mark>,
}

impl PastTurn {
    /// The history was shortened since.
    pub fn is_shortened(&self) -> bool {
        self.before.is_some()
    }

    /// Messages before it, of a history that was not shortened since.
    pub fn start(&self) -> usize {
        self.start
    }
}

impl Conversation {
    pub fn new(mode: ApprovalMode) -> Self {
        Self {
            history: Vec::new(),
            turns: Vec::new(),
            mode,
            told_mode: mode,
            written: Vec::new(),
            calls: 0,
            running: false,
        }
    }

    pub fn of(records: impl IntoIterator<Item = Record>) -> Self {
        let mut conversation = Self::new(ApprovalMode::Default);
        records.into_iter().for_each(|record| conversation.apply(record));
        conversation
    }

    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Started { mode, .. } => {
                self.mode = mode;
                if self.history.is_empty() {
                    self.told_mode = mode;
                }
            }
            Record::Mode { mode } => self.mode = mode,
            Record::Request { text } => {
                self.turns.push(PastTurn {
                    request: text,
                    start: self.history.len(),
                    before: None,
                    changed: true,
                    files: Vec::new(),
                    mark: None,
                });
                self.told_mode = self.mode;
                self.running = true;
            }
            Record::Message { message, .. } => {
                for path in message.tool_calls.iter().filter_map(written_file) {
                    self.written.retain(|known| known != path);
                    self.written.push(path.to_string());
                }
                self.history.push(message);
            }
            Record::Finished { outcome } => {
                self.running = false;
                self.calls += outcome.tool_calls as u64;
                if let Some(turn) = self.turns.last_mut() {
                    // A turn that its process did not finish has calls and no count of them: who knows what they did.
                    let counted = outcome.model_calls + outcome.tool_calls > 0;
                    let own = self.history.get(turn.start..).filter(|_| turn.before.is_none());
                    let called =
                        own.is_none_or(|own| own.iter().any(|message| !message.tool_calls.is_empty()));
                    turn.changed = !outcome.diff.is_empty() || !counted && called;
                    turn.files = changed_files(&outcome.diff);
                }
            }
            Record::Cut { messages } => {
                self.history.truncate(messages);
                // Of a history that was shortened only its end is cut, or all of it.
                self.turns.retain(|turn| messages > 0 && (turn.before.is_some() || turn.start < messages));
                if messages == 0 {
                    self.written.clear();
                }
            }
            Record::Compacted { history, .. } => {
                let old: Arc<[Message]> = std::mem::replace(&mut self.history, history).into();
                for turn in self.turns.iter_mut().filter(|turn| turn.before.is_none()) {
                    turn.before = Some(old.clone());
                }
            }
            Record::Restored { messages, turns } => {
                self.history = messages;
                self.turns.truncate(turns);
            }
            Record::Forked { .. } | Record::Aside { .. } => {}
        }
    }

    /// The record that takes back the last turn.
    pub fn without_last_turn(&self) -> Option<Record> {
        let turn = self.turns.last()?;
        Some(match &turn.before {
            Some(history) => Record::Restored {
                messages: history[..turn.start.min(history.len())].to_vec(),
                turns: self.turns.len() - 1,
            },
            None => Record::Cut { messages: turn.start },
        })
    }

    /// Where the messages begin that the turn in hand cannot do without: its last answer and what that called for, or
    /// its request where it has no answer yet. The end, where no turn runs.
    pub fn needed_from(&self) -> usize {
        let Some(turn) = self.turns.last().filter(|_| self.running) else { return self.history.len() };
        // A history that was shortened in this turn begins with what stays of the session.
        let start = if turn.before.is_some() { 0 } else { turn.start };
        let answer = self.history.iter().rposition(|message| message.role == Role::Assistant);
        answer.unwrap_or(0).max(start)
    }

    /// The requests that no message holds any longer as the user wrote them once the history is cut to its opening and
    /// the messages from `from` on: all but the first, and but the one whose message is among those.
    pub fn words(&self, from: usize) -> Vec<String> {
        let last = self.turns.len().saturating_sub(1);
        let stays = |index: usize, turn: &PastTurn| {
            index == 0 || index == last && self.running && turn.before.is_none() && turn.start >= from
        };
        let gone = self.turns.iter().enumerate().filter(|(index, turn)| !stays(*index, turn));
        gone.map(|(_, turn)| turn.request.clone()).collect()
    }
}

/// The files of a diff as this program writes it; a name that it quotes stays quoted.
pub fn changed_files(diff: &str) -> Vec<String> {
    let name = |line: &str| {
        // `a/NAME b/NAME`, or both in quotes: the halves are as long.
        let names = line.strip_prefix("diff --git ")?;
        let half = names.get(..names.len().checked_sub(1)? / 2)?;
        match half.strip_prefix("a/") {
            Some(name) => Some(name.to_string()),
            None => half.strip_prefix("\"a/").map(|name| format!("\"{name}")),
        }
    };
    // Every line of a file's text begins with another character.
    diff.lines().filter_map(name).collect()
}

fn written_file(call: &ToolCall) -> Option<&str> {
    let path = call.arguments.get("file_path")?.as_str()?;
    WRITERS.contains(&call.name.as_str()).then_some(path)
}

/// `history` with a result for every call and a call for every result: a process that was killed, or a damaged line of
/// the log, leaves either without the other. `reason`: why a call has no result.
pub fn well_formed(history: &[Message], reason: &str) -> Vec<Message> {
    let mut whole = Vec::with_capacity(history.len());
    let mut open = 0;
    let not_run = || Message::new(Role::Tool, note("not_run", &[("reason", reason)]));
    for message in history {
        if message.role == Role::Tool {
            if open > 0 {
                open -= 1;
                whole.push(message.clone());
            }
            continue;
        }
        whole.extend((0..std::mem::take(&mut open)).map(|_| not_run()));
        open = message.tool_calls.len();
        whole.push(message.clone());
    }
    whole.extend((0..open).map(|_| not_run()));
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::protocol::{Ending, TurnOutcome};

    fn said(role: Role, text: &str) -> Record {
        Record::Message { message: Message::new(role, text), asked: None }
    }

    fn request(text: &str) -> [Record; 2] {
        [Record::Request { text: text.into() }, said(Role::User, text)]
    }

    fn finished(diff: &str) -> Record {
        Record::Finished {
            outcome: TurnOutcome { tool_calls: 2, diff: diff.into(), ..TurnOutcome::ended(Ending::Done) },
        }
    }

    fn compacted(history: &[&str]) -> Record {
        Record::Compacted {
            history: history.iter().map(|text| Message::new(Role::User, *text)).collect(),
            dropped: Vec::new(),
            before: 9,
            after: 1,
            usage: Default::default(),
        }
    }

    fn texts(conversation: &Conversation) -> Vec<&str> {
        conversation.history.iter().map(|message| message.content.as_str()).collect()
    }

    fn edits(path: &str) -> Message {
        let mut message = Message::new(Role::Assistant, "");
        let arguments = serde_json::Map::from_iter([("file_path".to_string(), path.into())]);
        message.tool_calls = vec![ToolCall { name: "edit".into(), arguments }];
        message
    }

    #[test]
    fn a_turn_is_taken_back_by_one_record() {
        let mut all = Conversation::new(ApprovalMode::Default);
        [said(Role::System, "s")].into_iter().chain(request("one")).for_each(|record| all.apply(record));
        all.apply(finished(""));
        request("two").into_iter().for_each(|record| all.apply(record));
        assert!(all.running && all.turns[1].changed && !all.turns[0].changed);
        all.apply(finished("+"));
        assert_eq!((all.calls, all.running), (4, false));
        all.apply(all.without_last_turn().unwrap());
        assert_eq!((texts(&all), all.turns.len()), (vec!["s", "one"], 1));
        all.apply(all.without_last_turn().unwrap());
        // The system message came before the first request of this log.
        assert_eq!((texts(&all), all.without_last_turn()), (vec!["s"], None));
    }

    #[test]
    fn the_files_of_a_turn_are_those_of_its_diff() {
        let diff = "diff --git a/src/a b/c b/src/a b/c\n--- a/src/a b/c\t\n+++ b/src/a b/c\t\n@@ -1 +1 @@\n-x\n+diff --git a/y b/y\n\
                    diff --git \"a/\\303\" \"b/\\303\"\nnew file mode 100644\n";
        assert_eq!(changed_files(diff), ["src/a b/c", "\"\\303\""]);
        assert!(changed_files("").is_empty() && changed_files("diff --git ").is_empty());
    }

    #[test]
    fn a_turn_that_nobody_counted_may_have_changed_files() {
        let mut all = Conversation::new(ApprovalMode::Default);
        request("one").into_iter().for_each(|record| all.apply(record));
        let stopped = || Record::Finished { outcome: TurnOutcome::ended(Ending::Interrupted) };
        all.apply(stopped());
        assert!(!all.turns[0].changed, "it called nothing");
        request("two").into_iter().for_each(|record| all.apply(record));
        all.apply(Record::Message { message: edits("a"), asked: None });
        all.apply(stopped());
        assert!(all.turns[1].changed);
    }

    #[test]
    fn a_turn_from_before_a_compaction_gives_back_the_history_it_began_with() {
        let mut all = Conversation::new(ApprovalMode::Default);
        for text in ["one", "two"] {
            request(text).into_iter().for_each(|record| all.apply(record));
            all.apply(said(Role::Assistant, "done"));
            all.apply(finished(""));
        }
        all.apply(compacted(&["one", "in short"]));
        request("three").into_iter().for_each(|record| all.apply(record));
        all.apply(finished(""));
        all.apply(compacted(&["shorter"]));
        all.apply(all.without_last_turn().unwrap());
        assert_eq!(texts(&all), ["one", "in short"]);
        all.apply(all.without_last_turn().unwrap());
        assert_eq!(texts(&all), ["one", "done"]);
        all.apply(all.without_last_turn().unwrap());
        assert!(all.history.is_empty() && all.turns.is_empty());
    }

    #[test]
    fn what_a_running_turn_needs_is_its_last_step_or_its_request() {
        let mut all = Conversation::new(ApprovalMode::Default);
        request("one").into_iter().for_each(|record| all.apply(record));
        all.apply(said(Role::Assistant, "done"));
        all.apply(finished(""));
        assert_eq!(all.needed_from(), 2);
        assert_eq!(all.words(2), Vec::<String>::new(), "the first request stands in the opening");
        request("two").into_iter().for_each(|record| all.apply(record));
        assert_eq!(all.needed_from(), 2);
        assert!(all.words(2).is_empty(), "the request in hand stays as it is");
        all.apply(Record::Message { message: edits("a"), asked: None });
        all.apply(said(Role::Tool, "edited"));
        all.apply(said(Role::User, "a note"));
        assert_eq!((all.needed_from(), all.words(3)), (3, vec!["two".to_string()]));
        all.apply(compacted(&["one", "in short"]));
        all.apply(Record::Message { message: edits("b"), asked: None });
        assert_eq!((all.needed_from(), all.words(2)), (2, vec!["two".to_string()]));
        assert_eq!(all.written, ["a", "b"]);
    }

    #[test]
    fn every_call_gets_a_result_and_every_result_has_a_call() {
        let result = || Message::new(Role::Tool, "r");
        let user = || Message::new(Role::User, "u");
        let mut two = edits("a");
        two.tool_calls.push(two.tool_calls[0].clone());
        let lost = Message::new(Role::Tool, "Not run: gone");
        let check = |history: Vec<Message>, expected: Vec<Message>| {
            assert_eq!(well_formed(&history, "gone"), expected);
            assert_eq!(well_formed(&expected, "gone"), expected);
        };
        check(vec![user(), two.clone(), result()], vec![user(), two.clone(), result(), lost.clone()]);
        check(vec![two.clone(), user()], vec![two, lost.clone(), lost.clone(), user()]);
        check(vec![user(), result(), user()], vec![user(), user()]);
        check(vec![edits("a"), result(), result()], vec![edits("a"), result()]);
    }
}
