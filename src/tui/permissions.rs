//! `/permissions`: the mode and the rules, shown and changed. What a rule means, and which there are, is the session's
//! to say.

use super::app::{App, Overlay};
use super::input::Choice;
use super::picker::{About, Picker};
use crate::agent::protocol::{ApprovalMode, HeldRule, Op, Query, Rule, RuleEffect, RuleScope};

const FORMS: &str = "/permissions MODE | [always] allow RULE | [always] deny RULE | remove N; a rule is a tool, with the \
                     first words of a command or a path where only those are meant: run_shell_command(cargo test), \
                     edit(src/**)";

pub fn lasts(scope: RuleScope) -> &'static str {
    match scope {
        RuleScope::Settings => "by flag or config.toml",
        RuleScope::Everywhere => "always, everywhere",
        RuleScope::Always => "always, in this directory",
        RuleScope::Session => "for this session",
    }
}

impl App {
    pub(super) fn permissions(&mut self, words: &str) {
        let split = |words: &str| -> (String, String) {
            let (first, rest) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
            (first.to_string(), rest.trim().to_string())
        };
        let (first, rest) = split(words);
        match first.as_str() {
            "" => {
                self.note_modes();
                if self.session.is_some() {
                    self.ask(Query::Rules);
                }
            }
            "always" => {
                let (effect, rule) = split(&rest);
                self.new_rule(&effect, &rule, RuleScope::Always);
            }
            "allow" | "deny" => self.new_rule(&first, &rest, RuleScope::Session),
            "remove" => match rest.parse::<usize>() {
                Ok(number) => {
                    self.removing = Some(number);
                    self.ask(Query::Rules);
                }
                Err(_) => self.error(
                    "/permissions remove N takes the number of a rule",
                    Some("/permissions lists them"),
                ),
            },
            mode => match mode.parse::<ApprovalMode>() {
                Ok(mode) => {
                    self.set_mode(mode);
                    self.note_modes();
                }
                Err(problem) => self.error(&problem, Some(FORMS)),
            },
        }
    }

    fn new_rule(&mut self, effect: &str, text: &str, scope: RuleScope) {
        let effect = match effect {
            "allow" => RuleEffect::Allow,
            "deny" => RuleEffect::Deny,
            _ => return self.error("a rule allows or denies", Some(FORMS)),
        };
        match Rule::parse(effect, text) {
            Err(problem) => self.error(&problem, Some(FORMS)),
            Ok(_) if self.session.is_none() => self.note("No session is open yet."),
            Ok(rule) => {
                self.note(&format!("{rule}, {}", lasts(scope)));
                self.send(Op::AddRule { rule, scope });
            }
        }
    }

    fn note_modes(&mut self) {
        let lines = [
            format!("Mode: {} (Shift+Tab, or /permissions MODE)", self.mode.name()),
            "  plan       reads only".into(),
            "  default    asks for each change and each command".into(),
            "  auto-edit  changes files unasked; commands too where the sandbox is full".into(),
            "  yolo       asks for network, and for files that steer later runs".into(),
        ];
        self.note(&lines.join("\n"));
    }

    /// What the session says of its rules: to be looked at, or because one is to go.
    pub(super) fn told_rules(&mut self, rules: Vec<HeldRule>, file: Option<&str>) {
        self.rules = rules;
        if let Some(number) = self.removing.take() {
            match number.checked_sub(1).filter(|index| *index < self.rules.len()) {
                Some(index) => self.remove_rule(index),
                None => self.error(&format!("there is no rule {number}"), Some("/permissions lists them")),
            }
            return;
        }
        if self.rules.is_empty() {
            return self.note(&format!("No rules hold beyond the mode. {FORMS}"));
        }
        let choice = |(index, held): (usize, &HeldRule)| Choice {
            value: index.to_string(),
            label: format!("{}  {}", index + 1, held.rule),
            detail: lasts(held.scope).into(),
            preferred: false,
        };
        let choices: Vec<Choice> = self.rules.iter().enumerate().map(choice).collect();
        // A question that came up meanwhile keeps its place.
        if self.overlay.is_some() {
            let lines: Vec<String> =
                choices.iter().map(|choice| format!("{}, {}", choice.label, choice.detail)).collect();
            return self.note(&lines.join("\n"));
        }
        let kept = file.map_or(String::new(), |file| format!("\nKept in {file}"));
        let title = format!("These rules hold; what denies wins.{kept}");
        self.overlay = Some(Overlay::Picker(Picker::new(About::Rules, &title, choices)));
    }

    pub(super) fn remove_rule(&mut self, index: usize) {
        let Some(HeldRule { rule, scope }) = self.rules.get(index).cloned() else { return };
        if scope != RuleScope::Settings {
            self.note(&format!("removed: {rule}, {}", lasts(scope)));
        }
        self.send(Op::RemoveRule { rule, scope });
    }
}
