//! What the tests of `qwright bench` say: medians and spread, the bytes that decoding moved, and those as a fraction of
//! the bandwidth measured in the same run. As a table, or as one JSON object. Pure but for the printing.

use crate::engine::backend::{BackendKind, Setup};
use crate::engine::bandwidth::Bandwidth;
use crate::engine::kv::KvType;
use serde::Serialize;
use std::fmt::Write;

#[derive(Debug, Serialize)]
pub struct Report {
    pub model: String,
    /// What was made up, where no file was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_up: Option<String>,
    pub backend: &'static str,
    pub device: &'static str,
    /// `None`: they are not ours, and the backend does not say.
    pub kernels: Option<&'static str>,
    pub threads: usize,
    pub kv: &'static str,
    /// `None`: the backend has its own copy of the weights.
    pub load: Option<&'static str>,
    /// What is not measured, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The best read loop in pages like the weights', or the fastest decode where that moved more.
    pub bandwidth_gbs: Option<f64>,
    pub bandwidth_buffer_gb: f64,
    /// The best read loop in huge pages, as `--load copy` has them.
    pub bandwidth_huge_pages_gbs: Option<f64>,
    /// `None`: not known of this backend.
    pub weights_gb_per_token: Option<f64>,
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
        // The middle one, or the mean of the two.
        let tps = (at(rates.len().saturating_sub(1) / 2) + at(rates.len() / 2)) / 2.0;
        let gbs = bytes_per_token.map(|bytes| bytes as f64 * tps / 1e9);
        let (tps_min, tps_max, runs) = (at(0), at(rates.len().saturating_sub(1)), rates.len());
        Self { test, tps, tps_min, tps_max, runs, bytes_per_token, gbs, bandwidth_fraction: None }
    }
}

impl Report {
    /// Of what ran; memory and bandwidth are for the caller to add.
    pub fn new(model: String, made_up: Option<String>, setup: &Setup, kv: KvType, rows: Vec<Row>) -> Self {
        let note = (setup.backend == BackendKind::Candle).then(|| {
            "candle copies the weights, and caches as they grow: what it reads for a token is not known here, so decoding \
             is no fraction of the bandwidth; its kernels are its own"
                .to_string()
        });
        Self {
            model,
            made_up,
            backend: setup.backend.name(),
            device: setup.device,
            kernels: setup.kernels.map(|set| set.name()),
            threads: setup.threads,
            kv: kv.name(),
            load: setup.load.map(|load| load.name()),
            note,
            bandwidth_gbs: None,
            bandwidth_buffer_gb: 0.0,
            bandwidth_huge_pages_gbs: None,
            weights_gb_per_token: setup.bytes_per_token.map(|bytes| bytes as f64 / 1e9),
            peak_rss_mb: None,
            anonymous_rss_mb: None,
            rows,
        }
    }

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
            "{}: backend {} on {}, kernels {}, {} threads, KV {}, load {}\n",
            self.model,
            self.backend,
            self.device,
            self.kernels.unwrap_or("its own"),
            self.threads,
            self.kv,
            self.load.unwrap_or("its own copy")
        );
        if let Some(note) = &self.made_up {
            let _ = writeln!(out, "{note}");
        }
        for row in &self.rows {
            let Row { test, tps, tps_min, tps_max, runs, .. } = row;
            let spread = match runs {
                0 | 1 => "one run".to_string(),
                _ => format!("{tps_min:.2} to {tps_max:.2} in {runs} runs"),
            };
            let _ = write!(out, "{test:>14}  {tps:8.2} tokens/s  ({spread})");
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
        if let Some(huge) = self.bandwidth_huge_pages_gbs.filter(|_| self.load == Some("map")) {
            let _ = writeln!(out, "in huge pages (--load copy) memory reads at {huge:.1} GB/s");
        }
        if let Some(note) = &self.note {
            let _ = writeln!(out, "{note}");
        }
        if let Some(weights) = self.weights_gb_per_token {
            let _ = writeln!(out, "a token reads {weights:.2} GB of weights");
        }
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
    use crate::engine::kernels::KernelSet;
    use crate::engine::memory::Load;

    fn report(rows: Vec<Row>) -> Report {
        let setup = Setup {
            backend: BackendKind::Native,
            device: "cpu",
            kernels: Some(KernelSet::Scalar),
            threads: 2,
            load: Some(Load::Map),
            bytes_per_token: Some(2_000_000_000),
        };
        Report::new("m".into(), None, &setup, KvType::F16, rows)
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
        assert!(
            fast_loop
                .table()
                .contains("10.00 tokens/s  (9.00 to 12.00 in 3 runs)  20.0 GB/s, 50 % of bandwidth")
        );
        let json = serde_json::to_value(&fast_loop).unwrap();
        assert_eq!((&json["rows"][1]["tps"], &json["rows"][1]["tps_max"]), (&10.0.into(), &12.0.into()));
        assert!(json["rows"][0].get("gbs").is_none());
        let mut nothing = report(vec![Row::new("pp512".into(), vec![100.0], None)]);
        nothing.hold_against(None);
        assert!(nothing.table().contains("bandwidth unknown"));
        assert!(nothing.table().contains("100.00 tokens/s  (one run)"));
    }

    #[test]
    fn the_median_of_an_even_number_of_runs_is_between_the_middle_two() {
        let tps = |rates: &[f64]| Row::new("pp1".into(), rates.to_vec(), None).tps;
        assert_eq!((tps(&[3.0, 1.0, 9.0, 2.0]), tps(&[5.0, 1.0, 2.0]), tps(&[])), (2.5, 2.0, 0.0));
    }

    #[test]
    fn what_is_not_known_of_a_backend_is_null_and_said() {
        let setup = Setup {
            backend: BackendKind::Candle,
            device: "cpu",
            kernels: None,
            threads: 2,
            load: None,
            bytes_per_token: None,
        };
        let rows = vec![Row::new("tg64".into(), vec![12.0], None)];
        let mut report = Report::new("m".into(), None, &setup, KvType::F32, rows);
        report.hold_against(Some(Bandwidth { bytes_per_second: 40e9, buffer: 4_000_000_000 }));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["backend"], &json["bandwidth_gbs"]), (&"candle".into(), &40.0.into()));
        for key in ["kernels", "load", "weights_gb_per_token"] {
            assert!(json.get(key).is_some_and(serde_json::Value::is_null), "{key}");
        }
        assert!(json["note"].as_str().unwrap().contains("no fraction of the bandwidth"));
        assert!(json["rows"][0].get("bandwidth_fraction").is_none());
        let table = report.table();
        assert!(table.starts_with(
            "m: backend candle on cpu, kernels its own, 2 threads, KV f32, load its own copy\n"
        ));
        assert!(table.contains("bandwidth 40.0 GB/s") && !table.contains("% of bandwidth"), "{table}");
    }
}
