//! The languages with a grammar, by the names that paths and code blocks give them. The one table of what is supported.

use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Rust,
    Python,
    JavaScript,
    TypeScript,
    Tsx,
    Go,
    C,
    Cpp,
    Java,
    Shell,
    Json,
    Toml,
}

/// Language, endings of its files, and other words for it after a fence.
type Names = (Language, &'static [&'static str], &'static [&'static str]);

const NAMES: [Names; 12] = [
    (Language::Rust, &["rs"], &["rust"]),
    (Language::Python, &["py", "pyi", "pyw"], &["python", "python3"]),
    (Language::JavaScript, &["js", "mjs", "cjs", "jsx"], &["javascript", "node"]),
    (Language::TypeScript, &["ts", "mts", "cts"], &["typescript"]),
    (Language::Tsx, &["tsx"], &[]),
    (Language::Go, &["go"], &["golang"]),
    (Language::C, &["c"], &[]),
    // A header may be either's: this grammar reads almost all of C, that of C nothing of C++.
    (Language::Cpp, &["cpp", "cc", "cxx", "c++", "hpp", "hh", "hxx", "h"], &[]),
    (Language::Java, &["java"], &[]),
    (Language::Shell, &["sh", "bash"], &["shell", "zsh"]),
    (Language::Json, &["json"], &["jsonc"]),
    (Language::Toml, &["toml"], &[]),
];

impl Language {
    pub const ALL: [Self; 12] = {
        let mut all = [Self::Rust; 12];
        let mut at = 0;
        while at < all.len() {
            all[at] = NAMES[at].0;
            at += 1;
        }
        all
    };

    pub fn of_path(path: &str) -> Option<Self> {
        let path = Path::new(path);
        if path.file_name()? == "Cargo.lock" {
            return Some(Self::Toml);
        }
        let ending = path.extension()?.to_str()?;
        NAMES.iter().find(|(_, endings, _)| endings.contains(&ending)).map(|(language, ..)| *language)
    }

    /// What stands after the fence of a code block: the language, or the ending of its files.
    pub fn of_word(word: &str) -> Option<Self> {
        let word = word.to_lowercase();
        let known = |(_, endings, words): &&Names| endings.contains(&&*word) || words.contains(&&*word);
        NAMES.iter().find(known).map(|(language, ..)| *language)
    }

    /// Endings of all files that can be parsed, to name them.
    pub fn endings() -> impl Iterator<Item = &'static str> {
        NAMES.iter().flat_map(|(_, endings, _)| endings.iter().copied())
    }

    #[cfg(test)]
    pub(super) fn endings_of(self) -> &'static [&'static str] {
        NAMES[self as usize].1
    }

    pub(super) fn grammar(self) -> tree_sitter::Language {
        match self {
            Self::Rust => tree_sitter_rust::LANGUAGE,
            Self::Python => tree_sitter_python::LANGUAGE,
            Self::JavaScript => tree_sitter_javascript::LANGUAGE,
            Self::TypeScript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT,
            Self::Tsx => tree_sitter_typescript::LANGUAGE_TSX,
            Self::Go => tree_sitter_go::LANGUAGE,
            Self::C => tree_sitter_c::LANGUAGE,
            Self::Cpp => tree_sitter_cpp::LANGUAGE,
            Self::Java => tree_sitter_java::LANGUAGE,
            Self::Shell => tree_sitter_bash::LANGUAGE,
            Self::Json => tree_sitter_json::LANGUAGE,
            Self::Toml => tree_sitter_toml_ng::LANGUAGE,
        }
        .into()
    }

    /// The grammar's own query for colours. Where two patterns meet one node the later one counts, so the language that
    /// another builds on comes first.
    pub(super) fn highlights(self) -> String {
        use tree_sitter_javascript as js;
        let parts: &[&str] = match self {
            Self::Rust => &[tree_sitter_rust::HIGHLIGHTS_QUERY],
            Self::Python => &[tree_sitter_python::HIGHLIGHTS_QUERY],
            Self::JavaScript => &[js::HIGHLIGHT_QUERY, js::JSX_HIGHLIGHT_QUERY],
            Self::TypeScript => &[js::HIGHLIGHT_QUERY, tree_sitter_typescript::HIGHLIGHTS_QUERY],
            Self::Tsx => {
                &[js::HIGHLIGHT_QUERY, js::JSX_HIGHLIGHT_QUERY, tree_sitter_typescript::HIGHLIGHTS_QUERY]
            }
            Self::Go => &[tree_sitter_go::HIGHLIGHTS_QUERY],
            Self::C => &[tree_sitter_c::HIGHLIGHT_QUERY],
            Self::Cpp => &[tree_sitter_c::HIGHLIGHT_QUERY, tree_sitter_cpp::HIGHLIGHT_QUERY],
            Self::Java => &[tree_sitter_java::HIGHLIGHTS_QUERY],
            Self::Shell => &[tree_sitter_bash::HIGHLIGHT_QUERY],
            Self::Json => &[tree_sitter_json::HIGHLIGHTS_QUERY, "(pair key: (string) @string.special.key)"],
            Self::Toml => &[tree_sitter_toml_ng::HIGHLIGHTS_QUERY],
        };
        parts.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_by_path_and_by_word() {
        assert_eq!(Language::of_path("src/a.b/main.rs"), Some(Language::Rust));
        assert_eq!(Language::of_path("a.tsx"), Some(Language::Tsx));
        assert_eq!(Language::of_path("a.h"), Some(Language::Cpp));
        assert_eq!(Language::of_path("x/Cargo.lock"), Some(Language::Toml));
        for path in ["", "rs", ".rs", "a.zsh", "README.md", "..", "a/"] {
            assert_eq!(Language::of_path(path), None, "{path}");
        }
        assert_eq!(Language::of_word("Rust"), Some(Language::Rust));
        assert_eq!(Language::of_word("py"), Some(Language::Python));
        assert_eq!(Language::of_word(""), None);
    }

    #[test]
    fn the_table_is_in_the_order_of_the_languages() {
        for (at, language) in Language::ALL.into_iter().enumerate() {
            assert_eq!(language as usize, at);
        }
    }
}
