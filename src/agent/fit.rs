//! Fits a tool's output to the context that is left: head and tail stay, the middle goes, and what went is named.
//! Pure; the count of tokens is handed in.

use super::prompts::note;

/// `text` cut to at most `max_tokens` by `count`. The head gets two thirds: it holds what was asked for; the tail
/// holds what a failing command said last. Cuts fall on line breaks where there are any.
pub fn fit(text: &str, max_tokens: usize, count: &dyn Fn(&str) -> usize) -> String {
    if count(text) <= max_tokens {
        return text.to_string();
    }
    // The largest number of characters whose cut version fits, by bisection (a count costs a pass over the text).
    let total = text.chars().count();
    let (mut low, mut high) = (0, total);
    while high - low > (total / 64).max(8) {
        let middle = low + (high - low) / 2;
        if count(&cut(text, total, middle)) <= max_tokens {
            low = middle;
        } else {
            high = middle;
        }
    }
    cut(text, total, low)
}

fn cut(text: &str, total: usize, keep: usize) -> String {
    let byte = |chars: usize| text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at);
    let head = &text[..byte(keep * 2 / 3)];
    let tail = &text[byte(total - keep / 3)..];
    // Prefer whole lines, if that costs no more than half of the piece.
    let head = match head.rfind('\n') {
        Some(end) if end * 2 >= head.len() => &head[..end],
        _ => head,
    };
    let tail = match tail.find('\n') {
        Some(start) if start * 2 <= tail.len() => &tail[start + 1..],
        _ => tail,
    };
    let gone = &text[head.len()..text.len() - tail.len()];
    let chars = gone.chars().count().to_string();
    let lines = gone.lines().filter(|line| !line.is_empty()).count().to_string();
    let marker = note("output_cut", &[("lines", &lines), ("chars", &chars)]);
    format!("{head}\n{marker}\n{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> usize {
        text.len() / 4
    }

    #[test]
    fn what_fits_is_untouched() {
        assert_eq!(fit("short", 100, &count), "short");
    }

    #[test]
    fn head_and_tail_stay_and_the_cut_is_named() {
        let text: String = (1..=1000).map(|n| format!("line {n}\n")).collect();
        let fitted = fit(&text, 200, &count);
        assert!(count(&fitted) <= 200);
        assert!(count(&fitted) > 150, "wastes room: {}", count(&fitted));
        assert!(fitted.starts_with("line 1\nline 2\n"));
        assert!(fitted.ends_with("line 999\nline 1000\n"));
        assert!(fitted.contains("characters) cut here"));
        let named: usize = fitted.split("[... ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert_eq!(named + fitted.lines().filter(|line| line.starts_with("line ")).count(), 1000);
    }

    proptest::proptest! {
        #[test]
        fn any_text_fits(text in "(\\PC|\n){0,400}", room in 30usize..60) {
            let fitted = fit(&text, room, &count);
            proptest::prop_assert!(count(&fitted) <= room);
            proptest::prop_assert!(count(&text) > room || fitted == text);
        }
    }
}
