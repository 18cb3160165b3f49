//! The lines of a file that are most like a text that is not in it, for an error message a model can copy from.
//! Nothing is ever changed by likeness; this only shows.

use super::Nearest;
use std::collections::HashMap;

/// Below this two texts have nothing to do with each other: half of the letter pairs in common, cubed.
const ALIKE: f64 = 0.125;
/// Lines of the answer; more only costs context.
const MAX_LINES: usize = 20;
/// Comparing costs lines times lines: the most telling lines of a long `old_string` are enough.
const MAX_COMPARED: usize = 12;
const MAX_LINE_CHARS: usize = 400;

pub(super) fn find(text: &str, old: &str) -> Option<Nearest> {
    let lines: Vec<&str> = text.lines().collect();
    let wanted: Vec<&str> = old.lines().skip_while(|line| line.trim().is_empty()).collect();
    let mut compared: Vec<(usize, Pairs)> = wanted
        .iter()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| (at, Pairs::of(line)))
        .collect();
    // The longest lines tell places apart best; `}` tells nothing.
    compared.sort_by_key(|(at, pairs)| (std::cmp::Reverse(pairs.total), *at));
    compared.truncate(MAX_COMPARED);
    let weight: f64 = compared.iter().map(|(_, pairs)| f64::from(pairs.total)).sum();
    // score[start] sums, over the compared lines, how alike the line at its place in the window is.
    let mut scores = vec![0.0; lines.len()];
    for (index, line) in lines.iter().enumerate() {
        let own = Pairs::of(line);
        for (at, pairs) in &compared {
            if let Some(score) = index.checked_sub(*at).and_then(|start| scores.get_mut(start)) {
                // Cubed: one line that is the same says more than several that are somewhat alike.
                *score += pairs.alike(&own).powi(3) * f64::from(pairs.total) / weight;
            }
        }
    }
    let (start, best) = scores
        .iter()
        .copied()
        .enumerate()
        .fold((0, 0.0), |best, (at, score)| if score > best.1 { (at, score) } else { best });
    if best < ALIKE {
        return None;
    }
    let end = (start + wanted.len().min(MAX_LINES)).min(lines.len());
    let shown: Vec<String> =
        lines[start..end].iter().map(|line| line.chars().take(MAX_LINE_CHARS).collect()).collect();
    Some(Nearest { first_line: start + 1, text: shown.join("\n") })
}

/// The pairs of neighbouring letters of a line, with how often each occurs.
struct Pairs {
    counts: HashMap<(char, char), u32>,
    total: u32,
}

impl Pairs {
    fn of(line: &str) -> Self {
        let mut counts = HashMap::new();
        let mut total = 0;
        let mut last = ' ';
        for c in line.trim().chars().take(MAX_LINE_CHARS).chain([' ']) {
            *counts.entry((last, c)).or_default() += 1;
            total += 1;
            last = c;
        }
        Self { counts, total }
    }

    /// Dice's coefficient.
    fn alike(&self, other: &Self) -> f64 {
        // The coefficient cannot reach the bound: most lines of a file end here.
        if self.total.min(other.total) * 4 < self.total.max(other.total) {
            return 0.0;
        }
        let common: u32 =
            self.counts.iter().map(|(pair, n)| other.counts.get(pair).map_or(0, |m| (*n).min(*m))).sum();
        f64::from(2 * common) / f64::from(self.total + other.total)
    }
}
