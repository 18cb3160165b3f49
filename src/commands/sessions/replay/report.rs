//! What a replay came to, in words and as JSON. Texts of the model are escaped here.

use super::against::{Found, Walk};
use super::live::{Live, ResultDiffers};
use crate::agent::store::Stored;
use crate::chat::escape::{escape_json, escape_line};
use serde_json::{Value, json};

pub(super) fn report(walk: &Walk, stored: &Stored, as_json: bool) -> String {
    let skipped = walk.skipped.lines().into_iter().map(|line| format!("not compared: {line}"));
    let left_out: Vec<String> = skipped.chain(stored.losses()).collect();
    if as_json {
        return format!("{}\n", escape_json(&object(walk, stored, &left_out).to_string()));
    }
    let (tokens, turns) = (walk.tokens, walk.turns.len());
    let s = |count: usize| if count == 1 { "" } else { "s" };
    let mut text = match &walk.difference {
        None => format!("identical, {tokens} token{} in {turns} turn{}\n", s(tokens), s(turns)),
        Some(found) => different(found, tokens),
    };
    left_out.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    text
}

fn different(found: &Found, same: usize) -> String {
    let Found { turn, answer, difference, differs } = found;
    let mut text = match difference {
        Some(difference) => {
            let quoted = |text: &Option<String>| match text {
                Some(text) => format!("\"{}\"", escape_line(text)),
                None => "the end of the answer".into(),
            };
            format!(
                "different: turn {turn}, answer {answer}, token {}\n  after:    \"{}\"\n  recorded: {}\n  here:     {}\n",
                difference.at + 1,
                escape_line(&difference.before),
                quoted(&difference.recorded),
                quoted(&difference.here),
            )
        }
        None => format!("different: turn {turn}, answer {answer}, before its first token\n"),
    };
    text.push_str(&format!("  {same} tokens before it are the same\n"));
    if differs.is_empty() {
        text.push_str("  model file, settings, seed and version are the recorded ones: this should not be\n");
    }
    differs.iter().for_each(|line| text.push_str(&format!("  {}\n", escape_line(line))));
    text
}

/// The same of a session that was run again with its tools.
pub(super) fn live(live: &Live, stored: &Stored, as_json: bool) -> String {
    let not_run = live.left_out.iter().map(|what| format!("not run again: {what}"));
    let left_out: Vec<String> = not_run.chain(stored.losses()).collect();
    if as_json {
        let result = live.result.as_ref().map(|result| {
            let ResultDiffers { turn, call, line, recorded, here } = result;
            json!({"turn": turn, "call": call, "line": line, "recorded": recorded, "here": here})
        });
        let object = json!({
            "id": stored.id, "identical": live.is_identical(), "turns": live.turns, "answers": live.answers,
            "tokens": live.tokens, "results": live.results, "taken_back": live.taken_back,
            "different_result": result, "difference": live.token.as_ref().map(found), "parted": live.parted,
            "left_out": left_out,
        });
        return format!("{}\n", escape_json(&object.to_string()));
    }
    let s = |count: usize| if count == 1 { "" } else { "s" };
    let Live { turns, tokens, results, .. } = *live;
    let mut text = match (&live.result, &live.token, &live.parted) {
        (Some(result), ..) => {
            let quoted = |text: &Option<String>| match text {
                Some(text) => format!("\"{}\"", escape_line(text)),
                None => "no such line".into(),
            };
            format!(
                "different: turn {}, the result of {}, line {}\n  recorded: {}\n  here:     {}\n",
                result.turn,
                escape_line(&result.call),
                result.line,
                quoted(&result.recorded),
                quoted(&result.here),
            )
        }
        (_, Some(found), _) => different(found, tokens),
        (_, _, Some(why)) => format!("different: {}\n", escape_line(why)),
        _ => format!(
            "identical, {tokens} token{} and {results} result{} of tools in {turns} turn{}\n",
            s(tokens),
            s(results),
            s(turns)
        ),
    };
    if live.taken_back {
        text.push_str("what the session had changed was taken back in the copy first\n");
    }
    left_out.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    text
}

fn found(found: &Found) -> Value {
    let place = found.difference.as_ref();
    json!({
        "turn": found.turn, "answer": found.answer,
        "token": place.map(|place| place.at + 1),
        "before": place.map(|place| &place.before),
        "recorded": place.and_then(|place| place.recorded.as_ref()),
        "here": place.and_then(|place| place.here.as_ref()),
        "differs": found.differs,
    })
}

fn object(walk: &Walk, stored: &Stored, left_out: &[String]) -> Value {
    let difference = walk.difference.as_ref().map(found);
    json!({
        "id": stored.id, "identical": walk.difference.is_none(), "tokens": walk.tokens,
        "turns": walk.turns.len(), "answers": walk.answers, "difference": difference, "left_out": left_out,
    })
}
