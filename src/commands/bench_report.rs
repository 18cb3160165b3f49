//! What the tests of `qwright bench` say: medians and spread, the bytes that decoding moved, and those as a fraction of
//! the bandwidth measured in the same run. As a table, or as one JSON object. Pure but for the printing.

use crate::engine::bandwidth::Bandwidth;
use serde::Serialize;
use std::fmt::Write;

#[derive(Debug, Serialize)]
pub struct Report {
    pub model: String,
    /// What was made up, where no file was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_up: Option<String>,
    pub kernels: &'static str,
    pub threads: usize,
    pub kv: &'static str,
    pub load: &'static str,
    /// The best read loop in pages like the weights', or the fastest decode where that moved more.
    pub bandwidth_gbs: Option<f64>,
    pub bandwidth_buffer_gb: f64,
    /// The best read loop in huge pages, as `--load copy` has them.
    pub bandwidth_huge_pages_gbs: Option<f64>,
    pub weights_gb_per_token: f64,
    /// Mapped weights count here as far as they were read.
    pub peak_rss_mb: Option<u64>,
    /// Beside mapped files.
    pub anonymous_rss_mb: Option<u64>,
    pub rows: Vec<Row>,
}

/// One test: tokens per second, the median of its runs and the ends.
#[derive(Debug, Serialize)]
pub struct Row {
    pub test: String,
    pub tps: f64,
    pub tps_min: f64,
    pub tps_max: f64,
    pub runs: usize,
    /// Decoding: bytes of weights, keys and values that a token reads; what that comes to; of the bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_token: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gbs: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth_fraction: Option<f64>,
}

impl Row {
    pub fn new(test: String, mut rates: Vec<f64>, bytes_per_token: Option<u64>) -> Self {
        rates.sort_by(f64::total_cmp);
        let at = |i: usize| rates.get(i).copied().unwrap_or(0.0);
        let tps = at(rates.len() / 2);
        let gbs = bytes_per_token.map(|bytes| bytes as f64 * tps / 1e9);
        let (tps_min, tps_max, runs) = (at(0), at(rates.len().saturating_sub(1)), rates.len());
        Self { test, tps, tps_min, tps_max, runs, bytes_per_token, gbs, bandwidth_fraction: None }
    }
}

impl Report {
    /// Sets the bandwidth and every row's share of it. Decoding cannot move more than there is: where it seems to,
    /// the loops were too slow.
    pub fn hold_against(&mut self, measured: Option<Bandwidth>) {
        let moved = self.rows.iter().filter_map(|row| Some(row.bytes_per_token? as f64 * row.tps_max / 1e9));
        let measured_gbs = measured.map(|m| m.bytes_per_second / 1e9);
        self.bandwidth_gbs = moved.chain(measured_gbs).max_by(f64::total_cmp);
        self.bandwidth_buffer_gb = measured.map_or(0.0, |m| m.buffer as f64 / 1e9);
        for row in &mut self.rows {
            row.bandwidth_fraction =
                row.gbs.zip(self.bandwidth_gbs).map(|(gbs, all)| gbs / all.max(f64::MIN_POSITIVE));
        }
    }

    pub fn print(&self, json: bool) {
        match serde_json::to_string(self) {
            Ok(object) if json => println!("{object}"),
            _ => print!("{}", self.table()),
        }
    }

    fn table(&self) -> String {
        let mut out = format!(
            "{}: kernels {}, {} threads, KV {}, load {}\n",
            self.model, self.kernels, self.threads, self.kv, self.load
        );
        if let Some(note) = &self.made_up {
            let _ = writeln!(out, "{note}");
        }
        for row in &self.rows {
            let Row { test, tps, tps_min, tps_max, .. } = row;
            let _ = write!(out, "{test:>14}  {tps:8.2} tokens/s  ({tps_min:.2} to {tps_max:.2})");
            if let (Some(gbs), Some(share)) = (row.gbs, row.bandwidth_fraction) {
                let _ = write!(out, "  {gbs:.1} GB/s, {:.0} % of bandwidth", share * 100.0);
            }
            out.push('\n');
        }
        match (self.bandwidth_gbs, self.bandwidth_buffer_gb) {
            (Some(gbs), buffer) if buffer > 0.0 => {
                let _ = writeln!(
                    out,
                    "bandwidth {gbs:.1} GB/s (the best of several read loops over {buffer:.1} GB, and of what decoding moved)"
                );
            }
            (Some(gbs), _) => {
                let _ = writeln!(out, "bandwidth {gbs:.1} GB/s (what decoding moved: no room to measure it)");
            }
            (None, _) => out.push_str("bandwidth unknown: no room to measure it\n"),
        }
        if let Some(huge) = self.bandwidth_huge_pages_gbs.filter(|_| self.load == "map") {
            let _ = writeln!(out, "in huge pages (--load copy) memory reads at {huge:.1} GB/s");
        }
        let _ = writeln!(out, "a token reads {:.2} GB of weights", self.weights_gb_per_token);
        if let Some(peak) = self.peak_rss_mb {
            let own = self.anonymous_rss_mb.map(|own| format!(", {own} MB of them beside mapped files"));
            let _ = writeln!(out, "peak memory {peak} MB{}", own.unwrap_or_default());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: Vec<Row>) -> Report {
        Report {
            model: "m".into(),
            made_up: None,
            kernels: "scalar",
            threads: 2,
            kv: "f16",
            load: "map",
            bandwidth_gbs: None,
            bandwidth_buffer_gb: 0.0,
            bandwidth_huge_pages_gbs: None,
            weights_gb_per_token: 2.0,
            peak_rss_mb: Some(7),
            anonymous_rss_mb: Some(3),
            rows,
        }
    }

    #[test]
    fn decode_is_a_fraction_of_what_was_measured_or_of_the_fastest_decode() {
        let rows = || {
            vec![
                Row::new("pp512".into(), vec![100.0], None),
                Row::new("tg64".into(), vec![12.0, 10.0, 9.0], Some(2_000_000_000)),
            ]
        };
        let mut slow_loop = report(rows());
        slow_loop.hold_against(Some(Bandwidth { bytes_per_second: 22e9, buffer: 4_000_000_000 }));
        assert_eq!(slow_loop.bandwidth_gbs, Some(24.0));
        assert_eq!(slow_loop.rows[1].bandwidth_fraction, Some(20.0 / 24.0));
        let mut fast_loop = report(rows());
        fast_loop.hold_against(Some(Bandwidth { bytes_per_second: 40e9, buffer: 4_000_000_000 }));
        assert_eq!(fast_loop.rows[1].bandwidth_fraction, Some(0.5));
        assert!(fast_loop.table().contains("10.00 tokens/s  (9.00 to 12.00)  20.0 GB/s, 50 % of bandwidth"));
        let json = serde_json::to_value(&fast_loop).unwrap();
        assert_eq!((&json["rows"][1]["tps"], &json["rows"][1]["tps_max"]), (&10.0.into(), &12.0.into()));
        assert!(json["rows"][0].get("gbs").is_none());
        let mut nothing = report(vec![Row::new("pp512".into(), vec![100.0], None)]);
        nothing.hold_against(None);
        assert!(nothing.table().contains("bandwidth unknown"));
    }
}
