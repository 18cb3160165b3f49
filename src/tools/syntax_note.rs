//! One line for the model where a change left its file unable to parse and it parsed before. Nothing is refused for it:
//! a change may be the first of several, and a grammar may be behind its language.

use crate::syntax::{SyntaxError, introduced};
use crate::workspace::Plan;

/// The syntax error that a change brought into its file.
pub fn syntax_error(plan: &Plan) -> Option<SyntaxError> {
    let (before, after) = plan.sides();
    let before = std::str::from_utf8(before.unwrap_or_default()).ok()?;
    introduced(before, std::str::from_utf8(after?).ok()?, &plan.path)
}

/// To be put behind what a tool says of its change; empty where there is nothing to tell.
pub(super) fn syntax_note(plan: &Plan) -> String {
    syntax_error(plan).map_or(String::new(), |error| format!("\nNote: {error}"))
}
