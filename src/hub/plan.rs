//! Which models fit this machine, and about how fast they would run: arithmetic on the catalogue, no files.
//!
//! Weights stay in the page cache, so a model fits if its file, its KV cache at the wanted context and a
//! gigabyte of working memory do. One that does not fit still runs from the map, at the speed of the disk. Decode
//! speed is memory bandwidth over the bytes a token reads. Pure: the machine's figures come in as values.

use super::catalogue::{CatalogueEntry, KvWidth, Quant};
use super::machine::Machine;
use super::{human, is_present};
use serde::Serialize;
use std::path::Path;

/// Memory beside the weights and the KV cache.
pub const HEADROOM: u64 = 1 << 30;

/// Slower than this is no pleasure to work with; such a model is not recommended while a faster one fits.
const USABLE_TOKENS_PER_SECOND: f64 = 4.0;

/// A usual NVMe disk, for models that run from the map.
const DISK_BYTES_PER_SECOND: f64 = 2e9;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Fits,
    /// More than the memory holds: weights are read from disk again and again.
    Slow,
    /// No room on disk to pull it.
    NoRoom,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub model: String,
    pub quant: String,
    pub bytes: u64,
    pub kv_bytes: u64,
    /// Weights, KV cache and working memory.
    pub memory_needed: u64,
    /// What writing one token reads of the file.
    pub bytes_per_token: u64,
    pub here: bool,
    pub verdict: Verdict,
    /// Memory it lacks.
    pub short_by: u64,
    /// It would lack none with a q8_0 cache.
    pub fits_with_q8_0: bool,
    /// Expected decode speed, at most: bandwidth over `bytes_per_token`, and what does not fit memory from a disk
    /// of 2 GB/s. Absent where the bandwidth is unknown.
    pub tokens_per_second: Option<f64>,
    pub recommended: bool,
}

/// What the plan is made for.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    pub machine: &'a Machine,
    /// Bytes per second from memory.
    pub bandwidth: Option<f64>,
    pub disk_free: Option<u64>,
    pub models_dir: &'a Path,
    pub ctx: u64,
    pub kv: KvWidth,
}

/// Every model and quantisation: the recommended one first, then by verdict, then best first.
pub fn plan(catalogue: &[CatalogueEntry], question: &Question<'_>) -> Vec<Row> {
    let mut rows: Vec<Row> =
        catalogue.iter().flat_map(|e| e.quants.iter().map(move |q| row(e, q, question))).collect();
    let usable = |r: &Row| r.tokens_per_second.is_none_or(|t| t >= USABLE_TOKENS_PER_SECOND);
    // The catalogue is in order of quality, and a model's first quantisation is its balanced one.
    let best = rows.iter().position(|r| r.verdict == Verdict::Fits && usable(r)).or_else(|| {
        let fitting = rows.iter().enumerate().filter(|(_, r)| r.verdict == Verdict::Fits);
        fitting.min_by_key(|(_, r)| r.bytes).map(|(i, _)| i)
    });
    if let Some(row) = best.and_then(|i| rows.get_mut(i)) {
        row.recommended = true;
    }
    rows.sort_by_key(|r| (!r.recommended, r.verdict as u8)); // stable: the catalogue's order stays
    rows
}

fn row(entry: &CatalogueEntry, quant: &Quant, question: &Question<'_>) -> Row {
    let ctx = question.ctx.min(entry.shape.context);
    let kv_bytes = entry.shape.kv_bytes_per_token(question.kv).saturating_mul(ctx);
    let beside = kv_bytes.saturating_add(HEADROOM);
    let memory_needed = quant.bytes.saturating_add(beside);
    let here = is_present(question.models_dir, quant);
    let on_disk = here
        || question.disk_free.is_none_or(|free| quant.bytes.saturating_add(super::pull::DISK_MARGIN) <= free);
    let available = question.machine.memory_available;
    let lacks = |needed: u64| available.map_or(0, |m| needed.saturating_sub(m));
    let short_by = lacks(memory_needed);
    let smaller = memory_needed - kv_bytes + entry.shape.kv_bytes_per_token(KvWidth::Q8).saturating_mul(ctx);
    let verdict = match (on_disk, short_by == 0) {
        (false, _) => Verdict::NoRoom,
        (true, true) => Verdict::Fits,
        (true, false) => Verdict::Slow,
    };
    let cached = available.map_or(quant.bytes, |m| m.saturating_sub(beside).min(quant.bytes));
    Row {
        model: entry.short_name().to_string(),
        quant: quant.name.clone(),
        bytes: quant.bytes,
        kv_bytes,
        memory_needed,
        bytes_per_token: entry.shape.bytes_per_token(quant.bytes, quant.bits()),
        here,
        verdict,
        short_by,
        fits_with_q8_0: lacks(smaller) == 0,
        tokens_per_second: question.bandwidth.map(|b| expected_speed(entry, quant, b, cached)),
        recommended: false,
    }
}

/// Tokens per second when `cached` of the file's bytes stay in memory.
fn expected_speed(entry: &CatalogueEntry, quant: &Quant, bandwidth: f64, cached: u64) -> f64 {
    let per_token = entry.shape.bytes_per_token(quant.bytes, quant.bits()) as f64;
    let missing = if cached >= quant.bytes {
        0.0
    } else if entry.shape.experts == 0 {
        // A dense model is read in the same order every token: the page cache drops what comes next.
        1.0
    } else {
        1.0 - cached as f64 / quant.bytes as f64
    };
    1.0 / (per_token * (1.0 - missing) / bandwidth + per_token * missing / DISK_BYTES_PER_SECOND)
}

/// The plan for people.
pub fn table(rows: &[Row], question: &Question<'_>) -> String {
    use std::fmt::Write;
    let or_unknown = |bytes: Option<u64>| bytes.map_or("unknown".into(), human);
    let machine = question.machine;
    let mut out = format!(
        "This machine: {} of {} memory free, {} free on disk, {} cores, {}\n\n",
        or_unknown(machine.memory_available),
        or_unknown(machine.memory_total),
        or_unknown(question.disk_free),
        machine.cores,
        question.bandwidth.map_or("bandwidth unknown".into(), |b| format!("reads {:.0} GB/s", b / 1e9)),
    );
    let _ = writeln!(
        out,
        "  {:<22} {:<7} {:>9} {:>9} {:>11} {:>9}",
        "model", "quant", "file", "memory", "reads/token", "tokens/s"
    );
    for row in rows {
        let mark = if row.recommended { '*' } else { ' ' };
        let speed = match row.tokens_per_second {
            Some(t) if t >= 10.0 => format!("{t:.0}"),
            Some(t) if t >= 1.0 => format!("{t:.1}"),
            // Nearly the seconds of a token, upside down: one digit would say nothing.
            Some(t) if t >= 0.01 => format!("{t:.2}"),
            Some(_) => "<0.01".into(),
            None => "-".into(),
        };
        let verdict = match row.verdict {
            Verdict::Fits => "fits".to_string(),
            Verdict::Slow if row.fits_with_q8_0 => {
                format!("{} short, fits with --kv q8_0", human(row.short_by))
            }
            Verdict::Slow => format!("{} short", human(row.short_by)),
            Verdict::NoRoom => "no room on disk".into(),
        };
        let here = if row.here { ", here already" } else { "" };
        let _ = writeln!(
            out,
            "{mark} {:<22} {:<7} {:>9} {:>9} {:>11} {speed:>9}  {verdict}{here}",
            row.model,
            row.quant,
            human(row.bytes),
            human(row.memory_needed),
            human(row.bytes_per_token),
        );
    }
    match rows.first().filter(|r| r.recommended) {
        Some(row) if row.here => {
            let _ = writeln!(out, "\n* recommended: qwright -m {}:{}", row.model, row.quant);
        }
        Some(row) => {
            let _ = writeln!(out, "\n* recommended: qwright models pull {}:{}", row.model, row.quant);
        }
        None => out.push_str("\nNo model fits this machine's memory.\n"),
    }
    let _ = writeln!(
        out,
        "Memory: the file, the KV cache of {} tokens of context and 1 GB. What is short of it runs all the same, from the\n\
         file, reading the disk again for every token.\n\
         tokens/s: at most, writing with little context: {} over the bytes a token reads, and what is\n\
         short of memory from a disk of 2 GB/s. Other programs at work while it is measured lower it.\n\
         `qwright bench --shape MODEL` runs a model's true layers on random weights, without its file.",
        question.ctx,
        question
            .bandwidth
            .map_or("bandwidth (unknown here)".into(), |b| format!("the {:.0} GB/s just measured", b / 1e9)),
    );
    out
}
