//! The slash commands: one table for the help, the completion and the doing. Own commands (`NAME.md` in the `commands`
//! folder of the user's settings, or of a trusted repository's `.qwright`) are requests: `$ARGUMENTS` in them becomes
//! what follows the name.

use super::app::{App, Overlay, Phase};
use super::input::{Ask, Choice, Effect, Which};
use super::meter::{Meter, thousands};
use super::picker::{About, Picker};
use super::theme::ThemeName;
use super::vim::Vim;
use crate::agent::protocol::{ApprovalMode, Op, Query};

/// What `/init` asks for.
const INIT: &str = include_str!("../../prompts/init.md");

pub struct Command {
    pub name: &'static str,
    pub help: &'static str,
    /// It takes words after its name.
    words: bool,
    run: fn(&mut App, &str),
}

pub const COMMANDS: &[Command] = &[
    Command {
        name: "help",
        help: "keys and commands",
        words: false,
        run: |app, _| app.overlay = Some(Overlay::Help { top: 0 }),
    },
    Command { name: "model", help: "go on with another model", words: true, run: App::model },
    Command {
        name: "compact",
        help: "shorten the conversation; words say what must stay",
        words: true,
        run: App::compact,
    },
    Command {
        name: "undo",
        help: "take back the last turn: files and conversation",
        words: false,
        run: |app, _| app.when_idle(Op::Undo),
    },
    Command {
        name: "rewind",
        help: "go back to before an earlier request",
        words: false,
        run: |app, _| app.rewind(),
    },
    Command {
        name: "diff",
        help: "look through what this session changed",
        words: false,
        run: |app, _| app.ask(Query::Changes),
    },
    Command { name: "resume", help: "go on with another session", words: true, run: App::resume },
    Command {
        name: "sessions",
        help: "the sessions of this directory",
        words: false,
        run: |app, _| app.resume(""),
    },
    Command {
        name: "context",
        help: "what takes up the context",
        words: false,
        run: |app, _| app.ask(Query::Context),
    },
    Command {
        name: "stats",
        help: "tokens, calls and speed so far",
        words: false,
        run: |app, _| app.stats(),
    },
    Command {
        name: "init",
        help: "let the model write AGENTS.md",
        words: false,
        run: |app, _| app.submit(INIT.trim().to_string()),
    },
    Command {
        name: "memory",
        help: "write AGENTS.md in $EDITOR",
        words: false,
        run: |app, _| app.effects.push(Effect::Ask(Ask::Memory)),
    },
    Command {
        name: "plan",
        help: "plan mode: read and plan, change nothing; words are a request",
        words: true,
        run: App::plan,
    },
    Command {
        name: "permissions",
        help: "what may happen unasked: MODE; [always] allow|deny RULE; remove N",
        words: true,
        run: App::permissions,
    },
    Command {
        name: "btw",
        help: "a question beside the work, answered and forgotten",
        words: true,
        run: App::beside,
    },
    Command { name: "theme", help: "dark, light or none", words: true, run: App::choose_theme },
    Command {
        name: "vim",
        help: "vi keys in the composer, or no longer",
        words: false,
        run: |app, _| app.vim_keys(),
    },
    Command {
        name: "clear",
        help: "begin a new conversation; files stay, /resume goes back",
        words: false,
        run: |app, _| app.clear(),
    },
    Command {
        name: "copy",
        help: "the last answer into the clipboard",
        words: false,
        run: |app, _| app.copy(),
    },
    Command {
        name: "quit",
        help: "leave; --continue comes back",
        words: false,
        run: |app, _| app.effects.push(Effect::Quit),
    },
];

fn parts(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches('/');
    text.split_once(char::is_whitespace).map_or((text, ""), |(name, rest)| (name, rest.trim()))
}

/// Whether this is meant as a command: a path is not.
pub fn is_command(text: &str, own: &[(String, String)]) -> bool {
    let (name, _) = parts(text);
    let known = COMMANDS.iter().any(|command| command.name == name) || own.iter().any(|(own, _)| own == name);
    known || !name.contains('/') && !name.is_empty()
}

pub fn takes_words(name: &str) -> bool {
    let name = name.trim_start_matches('/');
    COMMANDS.iter().find(|command| command.name == name).is_none_or(|command| command.words)
}

impl App {
    pub(super) fn slash(&mut self, text: &str) {
        let (name, rest) = parts(text);
        if let Some(command) = COMMANDS.iter().find(|command| command.name == name) {
            return (command.run)(self, rest);
        }
        match self.start.commands.iter().find(|(own, _)| own == name) {
            Some((_, body)) => {
                let request = match body.contains("$ARGUMENTS") {
                    true => body.replace("$ARGUMENTS", rest),
                    false => format!("{}\n{rest}", body.trim_end()),
                };
                self.submit(request.trim().to_string());
            }
            None => self.error(
                &format!("there is no command /{name}"),
                Some("/help lists them; a request may begin with a blank"),
            ),
        }
    }

    /// What changes the conversation waits for no turn: it is said.
    fn when_idle(&mut self, op: Op) {
        match (&self.phase, &self.session) {
            (Phase::Running, _) => self.note("A turn runs: Esc interrupts it, then try again."),
            (_, None) => self.note("No session is open yet."),
            _ => self.send(op),
        }
    }

    fn model(&mut self, name: &str) {
        match name {
            _ if self.phase == Phase::Running => self.note("A turn runs: Esc interrupts it, then try again."),
            _ if matches!(self.phase, Phase::Pulling(_)) => {
                self.note("A model comes: Esc stops the download.")
            }
            "" if self.phase == Phase::NoModel => self.effects.push(Effect::Ask(Ask::Plan)),
            "" => self.effects.push(Effect::Ask(Ask::Models)),
            name => self.change_model(name.to_string()),
        }
    }

    fn compact(&mut self, keep: &str) {
        let keep = Some(keep.to_string()).filter(|keep| !keep.is_empty());
        if self.session.is_some() && self.phase == Phase::Ready {
            self.note("shortening the conversation");
        }
        self.when_idle(Op::Compact { keep });
    }

    fn resume(&mut self, id: &str) {
        match id {
            _ if self.phase == Phase::Running => self.note("A turn runs: Esc interrupts it, then try again."),
            "" => self.effects.push(Effect::Ask(Ask::Sessions)),
            id => {
                self.transcript.clear();
                self.meter = Default::default();
                self.open(None, Which::Id(id.to_string()));
            }
        }
    }

    fn stats(&mut self) {
        let meter = &self.meter;
        let total = meter.total;
        let share = (total.cached * 100).checked_div(total.prompt).unwrap_or(0);
        let speed = meter.tokens_per_second.map_or("-".to_string(), |speed| format!("{speed:.1}"));
        let mut lines = vec![
            format!(
                "Requests {}, model calls {}, tool calls {}",
                meter.turns, meter.model_calls, meter.tool_calls
            ),
            format!(
                "Tokens read {}: {} from the cache ({share} %), {} read anew, {} of them again",
                thousands(total.prompt),
                thousands(total.cached),
                thousands(total.prefilled),
                total.repeated
            ),
            format!(
                "Tokens written {}, {} of them drafted; the last answer at {speed} a second",
                thousands(total.completion),
                thousands(total.drafted)
            ),
            format!("Context {} of {}", thousands(meter.used), thousands(meter.limit)),
        ];
        if let Some(session) = &self.session {
            lines.push(format!("Session {} · {} · sandbox {}", session.id, session.model, session.sandbox));
        }
        self.note(&lines.join("\n"));
    }

    fn plan(&mut self, request: &str) {
        self.set_mode(ApprovalMode::Plan);
        match request {
            "" => {
                self.note("Plan mode: the model reads and plans, and changes nothing. Shift+Tab leaves it.")
            }
            request => self.submit(request.to_string()),
        }
    }

    fn beside(&mut self, question: &str) {
        match (question, &self.session) {
            ("", _) => self.note("/btw takes a question."),
            (_, None) => self.note("No session is open yet."),
            (question, _) => self.send(Op::Ask { text: question.to_string() }),
        }
    }

    fn choose_theme(&mut self, name: &str) {
        if !name.is_empty() {
            return self.set_theme(name);
        }
        let choices = ThemeName::ALL.map(|theme| Choice {
            value: theme.name().into(),
            label: theme.name().into(),
            detail: if theme == self.theme.name { "now".into() } else { String::new() },
            preferred: theme == self.theme.name,
        });
        self.overlay = Some(Overlay::Picker(Picker::new(
            About::Theme,
            "Which theme? theme = \"NAME\" in config.toml keeps it.",
            choices.into(),
        )));
    }

    fn vim_keys(&mut self) {
        self.vim = if self.vim.is_some() { None } else { Some(Vim::default()) };
        let state = if self.vim.is_some() { "on; vim = \"on\" in config.toml keeps them" } else { "off" };
        self.note(&format!("vi keys are {state}"));
    }

    fn clear(&mut self) {
        if self.phase == Phase::Running {
            return self.note("A turn runs: Esc interrupts it, then try again.");
        }
        let before = match self.at_hand() {
            Which::Id(id) => format!(" /resume {id} goes back to it."),
            _ => String::new(),
        };
        if self.session.is_some() {
            self.send(Op::Clear);
        }
        self.left = None;
        self.transcript.clear();
        let limit = self.meter.limit;
        self.meter = Meter::default();
        self.meter.limit = limit;
        self.note(&format!("A new conversation; files are as they are.{before}"));
    }

    fn copy(&mut self) {
        match self.transcript.last_answer() {
            Some(text) => {
                self.effects.push(Effect::Copy(text));
                self.hint = Some("the last answer is in the clipboard".into());
            }
            None => self.note("There is no answer to copy yet."),
        }
    }
}
