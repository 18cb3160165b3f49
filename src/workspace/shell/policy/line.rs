//! A shell line as commands and words, read the way bash reads it. It never fails: what is not plainly understood is
//! still read as well as it goes (so that what is forbidden is found inside it), and named in [`Line::doubt`], which
//! keeps the line from ever counting as read-only. Nothing is expanded and nothing is judged here.

use std::cell::OnceCell;
use std::rc::Rc;

/// Substitutions inside substitutions that are still looked into.
const MAX_DEPTH: usize = 24;

#[derive(Debug, Default, Clone)]
pub struct Line {
    /// Commands joined by `|`; pipelines by everything else.
    pub pipelines: Vec<Vec<Command>>,
    /// The first thing that is more than plain words joined by `&& || ; |`.
    pub doubt: Option<&'static str>,
}

#[derive(Debug, Default, Clone)]
pub struct Command {
    /// The pipelines of a subshell or of braces, which stand here as one command.
    pub group: Vec<Vec<Command>>,
    pub assignments: Vec<Word>,
    pub words: Vec<Word>,
    pub redirects: Vec<Redirect>,
}

impl Command {
    fn is_empty(&self) -> bool {
        self.group.is_empty()
            && self.assignments.is_empty()
            && self.words.is_empty()
            && self.redirects.is_empty()
    }

    /// `function f`: the body comes next.
    fn names_function(&self) -> bool {
        matches!(self.words.as_slice(), [first, _] if first.text == "function" && !first.quoted)
    }

    /// It, and every command of its group.
    pub fn with_group(&self) -> Vec<&Command> {
        let mut all = vec![self];
        all.extend(self.group.iter().flatten().flat_map(Command::with_group));
        all
    }
}

/// A word after quotes are taken off. A variable stands in `text` as `$NAME`, a substitution as `$()`.
#[derive(Debug, Default, Clone)]
pub struct Word {
    pub text: String,
    pub quoted: bool,
    pub variable: bool,
    pub glob: bool,
    /// It begins with a pattern, so that it may become an option.
    pub glob_first: bool,
    /// It begins with an unquoted `~`.
    pub home: bool,
    pub nested: Vec<Line>,
    /// An unquoted `{`, and a `,` or `..` after it.
    pub brace: bool,
    pub brace_list: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectKind {
    Read,
    Write,
    /// `2>&1`, `>&-`: no file is named.
    Duplicate,
    HereDocument,
    HereString,
}

#[derive(Debug, Clone)]
pub struct Redirect {
    pub kind: RedirectKind,
    pub target: Word,
    /// The text of a here-document.
    pub body: Rc<OnceCell<String>>,
}

pub fn parse(text: &str) -> Line {
    parse_at(text, 0)
}

/// `depth`: how many lines this one was found in.
pub fn parse_at(text: &str, depth: usize) -> Line {
    let mut parser = Parser { text: text.chars().collect(), at: 0, depth, doubt: None, waiting: Vec::new() };
    let pipelines = parser.list(None);
    if !parser.waiting.is_empty() {
        parser.doubt("a here-document without an end");
    }
    Line { pipelines, doubt: parser.doubt }
}

/// How an operator joins what stands before it to what follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joint {
    Pipe,
    And,
    End,
}

struct HereDocument {
    end: String,
    strip_tabs: bool,
    quoted: bool,
    body: Rc<OnceCell<String>>,
}

struct Parser {
    text: Vec<char>,
    at: usize,
    depth: usize,
    doubt: Option<&'static str>,
    waiting: Vec<HereDocument>,
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// `NAME=`, `NAME+=`, `NAME[...]=`.
fn is_assignment(word: &Word) -> bool {
    let Some((name, _)) = word.text.split_once('=') else { return false };
    let name = name.strip_suffix('+').unwrap_or(name);
    let name = name.split_once('[').map_or(name, |(name, _)| name);
    name.starts_with(is_name_start) && name.chars().all(is_name)
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn ahead(&self, by: usize) -> Option<char> {
        self.text.get(self.at + by).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn take(&mut self, wanted: &str) -> bool {
        let found = wanted.chars().enumerate().all(|(by, c)| self.ahead(by) == Some(c));
        if found {
            self.at += wanted.chars().count();
        }
        found
    }

    fn doubt(&mut self, what: &'static str) {
        self.doubt.get_or_insert(what);
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t'))
            || (self.peek() == Some('\\') && self.ahead(1) == Some('\n'))
        {
            self.at += if self.peek() == Some('\\') { 2 } else { 1 };
        }
    }

    /// Commands up to the end, or up to an unquoted `until`, which is taken.
    fn list(&mut self, until: Option<char>) -> Vec<Vec<Command>> {
        let mut pipelines = Vec::new();
        let mut pipeline = Vec::new();
        let mut command = Command::default();
        // `&&`, `||` or `|` came last, so a command must follow.
        let mut open = false;
        let end_command = |pipeline: &mut Vec<Command>, command: &mut Command| {
            if !command.is_empty() {
                pipeline.push(std::mem::take(command));
            }
        };
        loop {
            self.skip_blanks();
            let Some(c) = self.peek() else { break };
            match c {
                '#' => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                ')' if until == Some(')') => {
                    self.at += 1;
                    break;
                }
                '}' if until == Some('}') && command.is_empty() => {
                    self.at += 1;
                    break;
                }
                // Left to the list that waits for it.
                ')' if until == Some('}') => break,
                '(' => {
                    self.at += 1;
                    self.doubt("a subshell or function");
                    if !command.is_empty() {
                        // `f()`: what comes next stands for itself.
                        end_command(&mut pipeline, &mut command);
                        pipelines.push(std::mem::take(&mut pipeline));
                    }
                    command.group = self.nested_list(')');
                }
                '{' if command.is_empty() && self.ahead(1).is_none_or(char::is_whitespace) => {
                    self.at += 1;
                    self.doubt("a compound command");
                    command.group = self.nested_list('}');
                }
                '\n' | ';' | '&' | '|' | ')' if !(c == '&' && self.ahead(1) == Some('>')) => {
                    let empty = command.is_empty();
                    let joint = self.operator(c, empty);
                    if c == '\n' && empty && open {
                        // What was begun goes on in the next line.
                        continue;
                    }
                    end_command(&mut pipeline, &mut command);
                    open = joint != Joint::End;
                    if joint != Joint::Pipe && !pipeline.is_empty() {
                        pipelines.push(std::mem::take(&mut pipeline));
                    }
                }
                '<' | '>' | '&' if c == '&' || self.ahead(1) != Some('(') => {
                    let redirect = self.redirect();
                    command.redirects.push(redirect);
                }
                _ => {
                    self.word_of(&mut command);
                    if command.names_function() {
                        end_command(&mut pipeline, &mut command);
                        pipelines.push(std::mem::take(&mut pipeline));
                    }
                }
            }
        }
        if open && command.is_empty() {
            self.doubt("an operator without a command");
        }
        end_command(&mut pipeline, &mut command);
        if !pipeline.is_empty() {
            pipelines.push(pipeline);
        }
        pipelines
    }

    /// Takes an operator; `empty`: no command stands before it.
    fn operator(&mut self, c: char, empty: bool) -> Joint {
        let joint = if self.take("&&") || self.take("||") {
            Joint::And
        } else if self.take("|&") {
            self.doubt("a pipe of both streams");
            Joint::Pipe
        } else {
            self.at += 1;
            match c {
                '|' => Joint::Pipe,
                '\n' => {
                    self.here_documents();
                    return Joint::End;
                }
                '&' => {
                    self.doubt("a command in the background");
                    Joint::End
                }
                ')' => {
                    self.doubt("a bracket that closes nothing");
                    Joint::End
                }
                _ => Joint::End,
            }
        };
        if empty {
            self.doubt("an operator without a command");
        }
        joint
    }

    fn nested_list(&mut self, end: char) -> Vec<Vec<Command>> {
        if self.depth >= MAX_DEPTH {
            self.doubt("brackets nested too deeply");
            return Vec::new();
        }
        self.depth += 1;
        let inner = self.list(Some(end));
        self.depth -= 1;
        inner
    }

    fn word_of(&mut self, command: &mut Command) {
        let start = self.at;
        let word = self.word();
        if self.at == start {
            // A character no rule takes; going on matters more than what it is.
            self.at += 1;
            return self.doubt("an operator that is not understood");
        }
        let digits = !word.text.is_empty() && !word.quoted && word.text.bytes().all(|b| b.is_ascii_digit());
        if digits && matches!(self.peek(), Some('<' | '>')) && self.ahead(1) != Some('(') {
            let redirect = self.redirect();
            command.redirects.push(redirect);
            return;
        }
        if command.words.is_empty() {
            const BOUNDARIES: &[&str] = &[
                "if", "then", "else", "elif", "fi", "while", "until", "do", "done", "esac", "{", "}", "!",
                "time", "coproc",
            ];
            const OTHERS: &[&str] = &["for", "case", "select", "function", "[["];
            let reserved = |names: &[&str]| !word.quoted && names.contains(&word.text.as_str());
            // `time -p`: no command is called so.
            if reserved(BOUNDARIES) || !word.quoted && word.text.starts_with('-') {
                return self.doubt("a compound command");
            }
            if reserved(OTHERS) {
                self.doubt("a compound command");
            }
            if is_assignment(&word) {
                self.doubt("an assignment");
                command.assignments.push(word);
                return;
            }
        }
        if word.text == "{" || word.text == "}" {
            self.doubt("a compound command");
        }
        command.words.push(word);
    }

    fn redirect(&mut self) -> Redirect {
        let body = Rc::new(OnceCell::new());
        if self.take("<<<") {
            self.doubt("a here-string");
            self.skip_blanks();
            return Redirect { kind: RedirectKind::HereString, target: self.word(), body };
        }
        if self.take("<<") {
            let strip_tabs = self.take("-");
            self.skip_blanks();
            let target = self.word();
            if !target.quoted {
                self.doubt("a here-document that is expanded");
            }
            if target.variable || !target.nested.is_empty() {
                self.doubt("a here-document whose end is not plain");
            }
            self.waiting.push(HereDocument {
                end: target.text.clone(),
                strip_tabs,
                quoted: target.quoted,
                body: body.clone(),
            });
            return Redirect { kind: RedirectKind::HereDocument, target, body };
        }
        let both = self.take("&>>") || self.take("&>");
        let kind = if both || self.take(">>") || self.take(">|") || self.take("<>") {
            RedirectKind::Write
        } else if self.take(">&") || self.take("<&") {
            RedirectKind::Duplicate
        } else if self.take(">") {
            RedirectKind::Write
        } else {
            self.at += 1;
            RedirectKind::Read
        };
        self.skip_blanks();
        let target = self.word();
        if target.text.is_empty() {
            self.doubt("a redirection without a target");
        }
        let number = target.text.strip_suffix('-').unwrap_or(&target.text);
        let names_no_file = number.bytes().all(|b| b.is_ascii_digit());
        let kind = if kind == RedirectKind::Duplicate && !names_no_file { RedirectKind::Write } else { kind };
        Redirect { kind, target, body }
    }

    /// After a line end: the bodies of the here-documents that the line opened.
    fn here_documents(&mut self) {
        for document in std::mem::take(&mut self.waiting) {
            let mut body = String::new();
            let mut ended = false;
            while self.peek().is_some() && !ended {
                let mut line = String::new();
                while let Some(c) = self.next() {
                    line.push(c);
                    if c == '\n' {
                        break;
                    }
                }
                let shown = if document.strip_tabs { line.trim_start_matches('\t') } else { &line };
                ended = shown.trim_end_matches('\n') == document.end;
                if !ended {
                    body.push_str(shown);
                }
            }
            if !ended {
                self.doubt("a here-document without an end");
            }
            if !document.quoted && body.contains(['$', '`']) {
                self.doubt("a here-document that is expanded");
            }
            let _ = document.body.set(body);
        }
    }

    /// One word; empty (and nothing taken) where an operator stands.
    fn word(&mut self) -> Word {
        let mut word = Word::default();
        let start = self.at;
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\n' | ';' | '&' | '|' | ')' => break,
                '(' => break,
                '<' | '>' if self.ahead(1) == Some('(') => {
                    self.at += 2;
                    self.doubt("a process substitution");
                    let pipelines = self.nested_list(')');
                    word.nested.push(Line { pipelines, doubt: None });
                    word.text.push_str("$()");
                }
                '<' | '>' => break,
                '\\' => {
                    self.at += 1;
                    word.quoted = true;
                    match self.next() {
                        Some('\n') => {}
                        Some(c) => word.text.push(c),
                        None => self.doubt("a backslash at the end"),
                    }
                }
                '\'' => {
                    self.at += 1;
                    self.single_quoted(&mut word);
                }
                '"' => {
                    self.at += 1;
                    self.double_quoted(&mut word);
                }
                '$' => self.dollar(&mut word, false),
                '`' => self.backticks(&mut word),
                _ => {
                    self.plain(c, &mut word, start);
                    self.at += 1;
                }
            }
        }
        if word.brace && word.brace_list {
            self.doubt("a brace expansion");
        }
        word
    }

    fn plain(&mut self, c: char, word: &mut Word, start: usize) {
        match c {
            '*' | '?' => word.glob = true,
            // The command `[` is no pattern.
            '[' if !(word.text.is_empty() && self.ahead(1).is_none_or(|c| c.is_ascii_whitespace())) => {
                word.glob = true;
            }
            '~' if self.at == start => word.home = true,
            '~' if word.text.ends_with(['=', ':']) => self.doubt("a home directory"),
            '{' => word.brace = true,
            ',' => word.brace_list |= word.brace,
            '.' if word.text.ends_with('.') => word.brace_list |= word.brace,
            c if c.is_control() || c.is_whitespace() => self.doubt("a control character"),
            _ => {}
        }
        word.glob_first |= word.glob && self.at == start;
        word.text.push(c);
    }

    fn single_quoted(&mut self, word: &mut Word) {
        word.quoted = true;
        loop {
            match self.next() {
                Some('\'') => return,
                Some(c) => word.text.push(c),
                None => return self.doubt("a quote without an end"),
            }
        }
    }

    fn double_quoted(&mut self, word: &mut Word) {
        word.quoted = true;
        loop {
            match self.peek() {
                None => return self.doubt("a quote without an end"),
                Some('"') => {
                    self.at += 1;
                    return;
                }
                Some('$') => self.dollar(word, true),
                Some('`') => self.backticks(word),
                Some('\\') => {
                    self.at += 1;
                    match self.next() {
                        Some('\n') => {}
                        Some(c @ ('$' | '`' | '"' | '\\')) => word.text.push(c),
                        Some(c) => word.text.extend(['\\', c]),
                        None => self.doubt("a quote without an end"),
                    }
                }
                Some(c) => {
                    word.text.push(c);
                    self.at += 1;
                }
            }
        }
    }

    fn dollar(&mut self, word: &mut Word, in_quotes: bool) {
        self.at += 1;
        match self.peek() {
            Some('(') => {
                self.at += 1;
                self.doubt("a command substitution");
                let pipelines = self.nested_list(')');
                word.nested.push(Line { pipelines, doubt: None });
                word.text.push_str("$()");
            }
            Some('{') => self.braced(word),
            Some('[') => {
                self.doubt("arithmetic");
                word.text.push('$');
            }
            Some('\'') if !in_quotes => {
                self.at += 1;
                self.doubt("a quote with escapes");
                self.ansi_quoted(word);
            }
            Some('"') if !in_quotes => {
                self.doubt("a translated string");
            }
            // `bash -c` is given no arguments: these are nothing.
            Some('@' | '*' | '1'..='9') => {
                self.at += 1;
                word.variable = true;
            }
            Some(c @ ('?' | '#' | '$' | '!' | '-' | '0')) => {
                self.at += 1;
                word.variable = true;
                word.text.extend(['$', c]);
            }
            Some(c) if is_name_start(c) => {
                word.variable = true;
                word.text.push('$');
                while let Some(c) = self.peek().filter(|c| is_name(*c)) {
                    word.text.push(c);
                    self.at += 1;
                }
            }
            _ => word.text.push('$'),
        }
    }

    /// `${...}`: a plain name is a variable, all else is doubted; what is substituted inside is still seen.
    fn braced(&mut self, word: &mut Word) {
        self.at += 1;
        word.variable = true;
        let name: String = self.text[self.at..].iter().take_while(|c| is_name(**c)).collect();
        if !name.is_empty() && self.ahead(name.chars().count()) == Some('}') {
            self.at += name.chars().count() + 1;
            word.text.push('$');
            word.text.push_str(&name);
            return;
        }
        self.doubt("an expansion");
        let mut inner = Word::default();
        let mut open = 1;
        while let Some(c) = self.peek() {
            match c {
                '\\' => self.at += 2,
                '\'' => {
                    self.at += 1;
                    self.single_quoted(&mut inner);
                }
                '"' => {
                    self.at += 1;
                    self.double_quoted(&mut inner);
                }
                '$' if self.ahead(1) == Some('{') => {
                    open += 1;
                    self.at += 2;
                }
                '$' => self.dollar(&mut inner, true),
                '`' => self.backticks(&mut inner),
                '}' => {
                    self.at += 1;
                    open -= 1;
                    if open == 0 {
                        break;
                    }
                }
                _ => {
                    inner.text.push(c);
                    self.at += 1;
                }
            }
        }
        word.nested.append(&mut inner.nested);
        word.text.push('$');
        word.text.push_str(&name);
    }

    fn backticks(&mut self, word: &mut Word) {
        self.at += 1;
        self.doubt("a command substitution");
        let mut inner = String::new();
        loop {
            match self.next() {
                Some('`') => break,
                Some('\\') => match self.next() {
                    Some(c @ ('`' | '\\' | '$')) => inner.push(c),
                    Some(c) => inner.extend(['\\', c]),
                    None => break,
                },
                Some(c) => inner.push(c),
                None => break,
            }
        }
        if self.depth < MAX_DEPTH {
            word.nested.push(parse_at(&inner, self.depth + 1));
        }
        word.text.push_str("$()");
    }

    /// `$'...'`, decoded as far as a command could hide in it.
    fn ansi_quoted(&mut self, word: &mut Word) {
        word.quoted = true;
        loop {
            match self.next() {
                None | Some('\'') => return,
                Some('\\') => match self.next() {
                    Some('x') => self.coded(word, 16, 2),
                    Some('u') => self.coded(word, 16, 4),
                    Some('U') => self.coded(word, 16, 8),
                    Some('0'..='7') => {
                        self.at -= 1;
                        self.coded(word, 8, 3);
                    }
                    Some('n') => word.text.push('\n'),
                    Some('t') => word.text.push('\t'),
                    Some(c) => word.text.push(c),
                    None => return,
                },
                Some(c) => word.text.push(c),
            }
        }
    }

    fn coded(&mut self, word: &mut Word, radix: u32, most: usize) {
        let mut code = 0;
        for _ in 0..most {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) else { break };
            code = code * radix + digit;
            self.at += 1;
        }
        word.text.extend(char::from_u32(code));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pipelines by `/`, commands by `|`, words in brackets, a group in round ones; a doubt behind `?`.
    fn shown(text: &str) -> String {
        let line = parse(text);
        format!("{}{}", shown_list(&line.pipelines), if line.doubt.is_some() { "?" } else { "" })
    }

    fn shown_list(pipelines: &[Vec<Command>]) -> String {
        let command = |command: &Command| {
            let group = shown_list(&command.group);
            let group = if group.is_empty() { group } else { format!("({group})") };
            let words = command.words.iter().map(|word| format!("[{}]", word.text));
            group + &words.collect::<String>()
        };
        let pipeline = |pipeline: &Vec<Command>| pipeline.iter().map(command).collect::<Vec<_>>().join("|");
        pipelines.iter().map(pipeline).collect::<Vec<_>>().join("/")
    }

    #[test]
    fn plain_lines_are_read_as_bash_reads_them() {
        for (text, expected) in [
            ("ls -la", "[ls][-la]"),
            (r#"grep -n 'a b' "c d" e\ f"#, "[grep][-n][a b][c d][e f]"),
            ("a && b || c; d | e", "[a]/[b]/[c]/[d]|[e]"),
            ("ls # no ; rm x", "[ls]"),
            ("echo a#b '#'", "[echo][a#b][#]"),
            ("ls \\\n -l", "[ls][-l]"),
            ("ls 2>/dev/null >&2 2>&1", "[ls]"),
            ("cat <<'E'\nrm $(x)\nE\nls", "[cat]/[ls]"),
            ("echo \"a\\\"b\\c\"", "[echo][a\"b\\c]"),
            ("l''s", "[ls]"),
            ("echo ${HOME} $x", "[echo][$HOME][$x]"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_more_than_plain_is_doubted_and_still_looked_into() {
        for text in [
            "echo $(ls)",
            "echo `ls`",
            "cat <(ls)",
            "(ls)",
            "{ ls; }",
            "ls &",
            "a=1 ls",
            "if ls; then ls; fi",
            "echo 'x",
            "echo \"x",
            "echo {a,b}",
            "echo $'x'",
            "cat <<E\n$x\nE",
            "cat <<'E'\nx",
            "ls |& cat",
            "f() { ls; }",
            "echo ${x:-y}",
            "echo a\u{a0}b",
            "ls ;; ls",
            "echo $((1))",
            "echo $[1]",
            "cat <<< x",
            "&& ls",
            "! ls",
            "time -p ls",
            "{ ls; } | cat",
            "function f { ls; }",
            "echo a=~/b",
            "echo {1..3}",
        ] {
            assert!(parse(text).doubt.is_some(), "{text}");
        }
        let line = parse("echo \"${x:-$(one `two`)}\" <(three)");
        let words = &line.pipelines[0][0].words;
        assert_eq!(words[1].nested.len() + words[2].nested.len(), 2);
        assert_eq!(shown("if x; then y; fi"), "[x]/[y]?");
        assert_eq!(shown("time -p x"), "[x]?");
        assert_eq!(shown("function f { x; }; y"), "[function][f]/([x])/[y]?");
    }

    #[test]
    fn groups_stand_in_their_pipelines() {
        for (text, expected) in [
            ("(a; b) | c", "([a]/[b])|[c]"),
            ("a | (b | c) > d && e", "[a]|([b]|[c])/[e]"),
            ("{ a; { b; }; } | c", "([a]/([b]))|[c]"),
            ("f() { a; }; f", "[f]/([a])/[f]"),
            ("echo { a }; (b", "[echo][{][a][}]/([b])"),
            ("x $({ a) b", "[x][$()][b]"),
        ] {
            assert_eq!(shown(text).trim_end_matches('?'), expected, "{text}");
        }
    }

    #[test]
    fn here_documents_belong_to_their_command() {
        let line = parse("bash <<-'E' -s\n\tone\n\tE\ntwo");
        assert_eq!(line.pipelines[0][0].redirects[0].body.get().map(String::as_str), Some("one\n"));
        assert_eq!(line.pipelines[1][0].words[0].text, "two");
    }
}
