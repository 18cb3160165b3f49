//! How a history becomes a shorter one, in two stages. First the oldest outputs of tools go, each for one line that
//! says how to read it again. Where that is not enough, everything between the opening and the step in hand becomes one
//! message: the user's own words, the model's notes, the files being edited. What went is listed. Pure: counts are
//! handed in, the notes are asked for by the session.

use super::fit::fit;
use super::prompts::{COMPACTION, fill, note};
use crate::chat::{Message, Role, ToolCall};

/// Letters of a call in a list.
const LABEL: usize = 80;
/// The least that is kept of a text that must be cut.
const LEAST: usize = 64;
/// What the wording around a part takes.
const WORDING: usize = 16;

/// A shorter history, and what went, in words for the user.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shortened {
    pub history: Vec<Message>,
    pub dropped: Vec<String>,
}

/// Tokens of a text, and of messages as they would be sent.
pub struct Counts<'a> {
    pub text: &'a dyn Fn(&str) -> usize,
    pub history: &'a dyn Fn(&[Message]) -> usize,
}

/// What asks the model for its notes, of about `tokens` at most.
pub fn question(keep: Option<&str>, tokens: usize) -> Message {
    let keep = keep.map_or(String::new(), |keep| format!("{}\n", note("compaction_keep", &[("keep", keep)])));
    let words = (tokens / 2).to_string();
    Message::new(Role::User, fill(COMPACTION, &[("words", &words), ("keep", &keep)]).trim_end())
}

/// The call that each result belongs to, by the place of the result.
fn call_of(history: &[Message], result: usize) -> Option<&ToolCall> {
    let call = history[..result].iter().rposition(|message| message.role != Role::Tool)?;
    history[call].tool_calls.get(result - call - 1)
}

/// A call in a few words: its tool and what it was about.
fn label(call: Option<&ToolCall>) -> String {
    let Some(call) = call else { return "a tool".into() };
    let about = call.arguments.values().find_map(|value| value.as_str()).unwrap_or_default();
    let about = about.lines().next().unwrap_or_default();
    let text = format!("{} {about}", call.name);
    text.trim_end().chars().take(LABEL).collect()
}

/// The first stage: drops outputs before `from`, the oldest first, until `spare` tokens are free.
pub fn drop_outputs(history: &[Message], from: usize, spare: usize, counts: &Counts<'_>) -> Shortened {
    let mut shortened = Shortened { history: history.to_vec(), dropped: Vec::new() };
    let mut freed = 0;
    for at in (0..from.min(history.len())).filter(|at| history[*at].role == Role::Tool) {
        if freed >= spare {
            break;
        }
        let call = label(call_of(history, at));
        let line = note("output_dropped", &[("call", &call)]);
        let (had, has) = ((counts.text)(&history[at].content), (counts.text)(&line));
        if had <= has * 2 {
            continue;
        }
        freed += had - has;
        shortened.dropped.push(format!("the output of {call} ({had} tokens)"));
        shortened.history[at].content = line;
    }
    shortened
}

/// What the second stage keeps.
#[derive(Debug, Default)]
pub struct Kept<'a> {
    pub history: &'a [Message],
    /// Messages of the opening: system prompt, surroundings and first request. They stay as they are.
    pub opening: usize,
    /// Where the messages begin that the step in hand cannot do without.
    pub from: usize,
    /// The user's own words that stand between the two.
    pub words: Vec<String>,
    /// The model's notes.
    pub summary: Option<String>,
    /// Path and text of files being edited, the latest first.
    pub files: Vec<(String, String)>,
    /// A request is being worked on.
    pub at_work: bool,
}

/// The second stage: a history of about `room` tokens at most. Where that cannot be had it is as short as it gets.
pub fn rewrite(kept: &Kept<'_>, room: usize, counts: &Counts<'_>) -> Shortened {
    let count = counts.text;
    let (opening, needed) = (&kept.history[..kept.opening], &kept.history[kept.from..]);
    let mut dropped = lost(kept, counts);
    let summary = kept.summary.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let newest = kept.words.last();
    let fixed = (counts.history)(opening)
        + [summary, newest.map(String::as_str)].into_iter().flatten().map(count).sum::<usize>()
        + 4 * WORDING;
    let needed = fit_outputs(needed, room.saturating_sub(fixed), counts, &mut dropped);
    let mut left = room.saturating_sub(fixed + (counts.history)(&needed));

    let mut words: Vec<String> = newest.cloned().into_iter().collect();
    for (index, text) in kept.words.iter().enumerate().rev().skip(1) {
        let cost = count(text) + WORDING;
        if cost <= left {
            left -= cost;
            words.push(text.clone());
        } else if left >= LEAST + WORDING {
            words.push(fit(text, left - WORDING, &count));
            dropped.push(format!("a part of your request {} ({} of {cost} tokens stay)", index + 2, left));
            left = 0;
        } else {
            dropped.push(format!("your request {} ({cost} tokens)", index + 2));
        }
    }
    words.reverse();
    let mut files = Vec::new();
    for (path, text) in &kept.files {
        let shown = note("compacted_file", &[("path", path), ("text", text.trim_end_matches('\n'))]);
        let cost = count(&shown) + WORDING;
        if cost <= left {
            left -= cost;
            files.push(shown);
        }
    }

    let mut history = opening.to_vec();
    let block = |text: String| format!("\n{text}\n");
    let words = words.iter().map(|text| format!("- {text}")).collect::<Vec<_>>().join("\n");
    let parts = [
        (
            "words",
            if words.is_empty() { words } else { block(note("compacted_words", &[("words", &words)])) },
        ),
        (
            "summary",
            summary.map_or(String::new(), |text| block(note("compacted_summary", &[("summary", text)]))),
        ),
        ("files", files.into_iter().map(block).collect()),
        ("last", if kept.at_work { block(note("compacted_last", &[])) } else { String::new() }),
    ];
    if kept.from > kept.opening {
        let parts: Vec<(&str, &str)> = parts.iter().map(|(name, text)| (*name, text.as_str())).collect();
        history.push(Message::new(Role::User, note("compacted", &parts).trim_end()));
    }
    history.extend(needed);
    Shortened { history, dropped }
}

/// What goes with the messages between the opening and the step in hand.
fn lost(kept: &Kept<'_>, counts: &Counts<'_>) -> Vec<String> {
    let mut lost = Vec::new();
    let (mut answers, mut notes) = (0, 0);
    for at in kept.opening..kept.from {
        let message = &kept.history[at];
        match message.role {
            Role::Tool => {
                let tokens = (counts.text)(&message.content);
                lost.push(format!("the output of {} ({tokens} tokens)", label(call_of(kept.history, at))));
            }
            Role::Assistant => answers += 1,
            Role::System | Role::User => notes += 1,
        }
    }
    // Requests among them stay as the user's words.
    let notes = usize::saturating_sub(notes, kept.words.len());
    if answers + notes > 0 {
        lost.push(format!("{answers} answers and calls of the model, {notes} notes to it"));
    }
    lost
}

/// `messages` with their outputs cut to `room` tokens together; nothing else of them can be cut.
fn fit_outputs(
    messages: &[Message],
    room: usize,
    counts: &Counts<'_>,
    dropped: &mut Vec<String>,
) -> Vec<Message> {
    let mut fitted = messages.to_vec();
    let is_output = |message: &&Message| message.role == Role::Tool;
    let outputs = messages.iter().filter(is_output).count();
    let total = (counts.history)(messages);
    if outputs == 0 || total <= room {
        return fitted;
    }
    let tokens: usize =
        messages.iter().filter(is_output).map(|message| (counts.text)(&message.content)).sum();
    let share = (room.saturating_sub(total.saturating_sub(tokens)) / outputs).max(LEAST);
    for at in 0..messages.len() {
        let had = (counts.text)(&messages[at].content);
        if messages[at].role == Role::Tool && had > share {
            fitted[at].content = fit(&messages[at].content, share, &counts.text);
            dropped.push(format!(
                "a part of the output of {} ({share} of {had} tokens stay)",
                label(call_of(messages, at))
            ));
        }
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn all(history: &[Message]) -> usize {
        history.iter().map(|message| words(&message.content)).sum()
    }

    fn counts() -> Counts<'static> {
        Counts { text: &words, history: &all }
    }

    fn said(role: Role, text: &str) -> Message {
        Message::new(role, text)
    }

    fn reads(paths: &[&str]) -> Message {
        let mut message = said(Role::Assistant, "");
        message.tool_calls = paths
            .iter()
            .map(|path| ToolCall {
                name: "read_file".into(),
                arguments: json!({ "limit": 3, "file_path": path }).as_object().unwrap().clone(),
            })
            .collect();
        message
    }

    /// System, first request, a step that read two files, and one that read a third.
    fn history() -> Vec<Message> {
        let output = |word: &str, count: usize| said(Role::Tool, &format!("{word} ").repeat(count));
        vec![
            said(Role::System, "s"),
            said(Role::User, "Request: one"),
            reads(&["a.rs", "b.rs"]),
            output("a", 100),
            output("b", 200),
            said(Role::Assistant, "Found it."),
            said(Role::User, "two"),
            reads(&["c.rs"]),
            output("c", 300),
        ]
    }

    #[test]
    fn old_outputs_go_the_oldest_first_and_say_how_to_read_them_again() {
        let history = history();
        let one = drop_outputs(&history, 7, 50, &counts());
        assert_eq!(one.dropped, ["the output of read_file a.rs (100 tokens)"]);
        assert!(one.history[3].content.starts_with("[The output of read_file a.rs stood here."));
        assert_eq!(one.history[4..], history[4..]);
        let both = drop_outputs(&history, 7, 1000, &counts());
        assert_eq!(both.dropped.len(), 2, "the step in hand keeps what it read");
        assert_eq!(both.history[8], history[8]);
        // What was dropped is not dropped again.
        assert!(drop_outputs(&both.history, 7, 1000, &counts()).dropped.is_empty());
    }

    fn kept(history: &[Message]) -> Kept<'_> {
        Kept {
            history,
            opening: 2,
            from: 7,
            words: vec!["two".into()],
            summary: Some(" The sign is wrong. ".into()),
            files: vec![("c.rs".into(), "fn c() {}\n".into()), ("long.rs".into(), "x ".repeat(5000))],
            at_work: true,
        }
    }

    #[test]
    fn words_notes_files_and_the_step_in_hand_stay() {
        let history = history();
        let short = rewrite(&kept(&history), 1000, &counts());
        assert_eq!(short.history[..2], history[..2]);
        assert_eq!(short.history[3..], history[7..]);
        assert_eq!(short.history[2].role, Role::User);
        let text = &short.history[2].content;
        let order = [
            "user's own words:\n- two\n",
            "notes on what was done and found:\nThe sign is wrong.\n",
            "c.rs as it is now:\n```\nfn c() {}\n```",
            "The last request is not done yet",
        ];
        let places: Vec<usize> = order.iter().map(|part| text.find(part).expect(part)).collect();
        assert!(places.is_sorted(), "{text}");
        assert!(!text.contains("long.rs"));
        assert_eq!(
            short.dropped,
            [
                "the output of read_file a.rs (100 tokens)",
                "the output of read_file b.rs (200 tokens)",
                "2 answers and calls of the model, 0 notes to it"
            ]
        );
    }

    #[test]
    fn the_newest_words_stay_whole_and_the_oldest_are_cut() {
        let history = history();
        let long = |word: &str| format!("{word} ").repeat(150);
        let mut kept = kept(&history);
        kept.words = vec![long("old"), long("middle"), long("new")];
        let short = rewrite(&kept, 800, &counts());
        let text = &short.history[2].content;
        let count = |word: &str| text.split_whitespace().filter(|found| *found == word).count();
        assert_eq!((count("new"), count("middle")), (150, 150));
        assert!(count("old") > 20 && count("old") < 150, "{}", count("old"));
        assert!(
            short.dropped.last().unwrap().starts_with("a part of your request 2 "),
            "{:?}",
            short.dropped
        );
        assert!(all(&short.history) <= 820, "{}", all(&short.history));
    }

    #[test]
    fn outputs_of_the_step_in_hand_are_cut_where_nothing_else_is_left() {
        let history = history();
        let short = rewrite(&kept(&history), 250, &counts());
        assert_eq!(short.history.last().unwrap().role, Role::Tool);
        assert!(all(&short.history) < 330, "{}", all(&short.history));
        assert!(short.history.last().unwrap().content.contains("cut here to fit"));
        assert!(short.dropped.iter().any(|line| line.starts_with("a part of the output of read_file c.rs")));
    }

    proptest::proptest! {
        #[test]
        fn any_history_keeps_its_calls_with_their_results(
            steps in proptest::collection::vec((0usize..3, 0usize..300), 1..12),
            room in 50usize..2000,
        ) {
            let mut history = vec![said(Role::System, "s"), said(Role::User, "r")];
            let mut last = 2;
            for (calls, size) in &steps {
                last = history.len();
                history.push(reads(&["x", "y", "z"][..*calls]));
                history.extend((0..*calls).map(|_| said(Role::Tool, &"w ".repeat(*size))));
            }
            let kept = Kept { history: &history, opening: 2, from: last, summary: Some("s".into()), ..Kept::default() };
            for short in [rewrite(&kept, room, &counts()), drop_outputs(&history, last, room, &counts())] {
                let whole = crate::agent::conversation::well_formed(&short.history, "");
                proptest::prop_assert_eq!(&whole, &short.history);
                proptest::prop_assert_eq!(&short.history[..2], &history[..2]);
            }
        }
    }
}
