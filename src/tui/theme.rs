//! Colours: dark, light, or none (then weight and reverse say it all). Named colours are the terminal's own, so that a
//! user's palette holds; only the grounds of diffs are fixed. Code stands on those too, so it takes the bright names on
//! a dark screen, and fixed, deep colours on a light one.

use crate::syntax::Class;
use ratatui::style::{Color, Modifier, Style};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThemeName {
    Dark,
    Light,
    Plain,
}

impl ThemeName {
    pub const ALL: [Self; 3] = [Self::Dark, Self::Light, Self::Plain];

    pub fn name(self) -> &'static str {
        match self {
            Self::Dark => "dark",
            Self::Light => "light",
            Self::Plain => "none",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|theme| theme.name() == name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Theme {
    pub name: ThemeName,
    pub text: Style,
    pub dim: Style,
    pub bold: Style,
    pub accent: Style,
    pub user: Style,
    pub good: Style,
    pub bad: Style,
    pub warn: Style,
    pub code: Style,
    pub heading: Style,
    pub selected: Style,
    pub added: Style,
    pub removed: Style,
    /// What changed within a line.
    pub added_part: Style,
    pub removed_part: Style,
    /// Code: keywords, strings, comments, numbers, names of functions, of types.
    pub keyword: Style,
    pub string: Style,
    pub comment: Style,
    pub number: Style,
    pub function: Style,
    pub kind: Style,
}

impl Theme {
    /// Of a part of code.
    pub fn class(&self, class: Class) -> Style {
        match class {
            Class::Keyword => self.keyword,
            Class::String => self.string,
            Class::Comment => self.comment,
            Class::Number => self.number,
            Class::Function => self.function,
            Class::Type => self.kind,
        }
    }

    pub fn new(name: ThemeName) -> Self {
        let plain = Style::new();
        let bold = plain.add_modifier(Modifier::BOLD);
        let dim = plain.add_modifier(Modifier::DIM);
        let none = Self {
            name,
            text: plain,
            dim,
            bold,
            accent: bold,
            user: bold,
            good: plain,
            bad: bold,
            warn: bold,
            code: plain,
            heading: bold.add_modifier(Modifier::UNDERLINED),
            selected: plain.add_modifier(Modifier::REVERSED),
            added: plain,
            removed: plain,
            added_part: plain.add_modifier(Modifier::REVERSED),
            removed_part: plain.add_modifier(Modifier::REVERSED),
            keyword: plain,
            string: plain,
            comment: dim,
            number: plain,
            function: plain,
            kind: plain,
        };
        let fg = |colour| plain.fg(colour);
        let coloured = Self {
            accent: fg(Color::Cyan),
            user: bold.fg(Color::Cyan),
            good: fg(Color::Green),
            bad: fg(Color::Red),
            warn: fg(Color::Yellow),
            code: fg(Color::Cyan),
            heading: bold.fg(Color::Magenta),
            keyword: fg(Color::LightMagenta),
            string: fg(Color::LightGreen),
            number: fg(Color::LightYellow),
            function: fg(Color::LightBlue),
            kind: fg(Color::LightCyan),
            ..none
        };
        let grounds = |added, added_part, removed, removed_part| Self {
            added: plain.bg(Color::Indexed(added)),
            added_part: plain.bg(Color::Indexed(added_part)),
            removed: plain.bg(Color::Indexed(removed)),
            removed_part: plain.bg(Color::Indexed(removed_part)),
            ..coloured
        };
        match name {
            ThemeName::Plain => none,
            ThemeName::Dark => grounds(22, 28, 52, 88),
            ThemeName::Light => Self {
                dim: fg(Color::Indexed(243)),
                comment: fg(Color::Indexed(243)),
                accent: fg(Color::Blue),
                user: bold.fg(Color::Blue),
                warn: fg(Color::Indexed(130)),
                keyword: fg(Color::Indexed(90)),
                string: fg(Color::Indexed(22)),
                number: fg(Color::Indexed(94)),
                function: fg(Color::Indexed(25)),
                kind: fg(Color::Indexed(24)),
                ..grounds(194, 157, 224, 217)
            },
        }
    }
}
