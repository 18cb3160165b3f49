//! `qwright bench` as a user runs it, on tiny models: what each backend reports, and what is refused. Only that figures
//! are there is asserted, never what they are.

use crate::oracle::manifest;
use serde_json::Value;
use std::process::{Command, Output};

fn bench(args: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_qwright"))
        .arg("bench")
        .args(["-m", manifest().join("fixtures/oracle/tiny-qwen2-q4_k_m.gguf").to_str().unwrap()])
        .args(args)
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .current_dir(home.path())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn report(args: &[&str]) -> Value {
    let sizes = ["-p", "8,16", "-n", "2", "-d", "0,20", "-r", "2", "--json"];
    let output = bench(&[args, &sizes].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> =
        report["rows"].as_array().unwrap().iter().map(|row| row["test"].as_str().unwrap()).collect();
    assert_eq!(names, ["pp8", "pp16", "tg2", "tg2@d20"]);
    for row in report["rows"].as_array().unwrap() {
        let [least, median, most] = ["tps_min", "tps", "tps_max"].map(|key| row[key].as_f64().unwrap());
        assert!(0.0 < least && least <= median && median <= most, "{row}");
        assert_eq!(row["runs"], 2);
    }
    report
}

#[test]
fn the_native_backend_reports_kernels_and_fractions() {
    let report = report(&["--kernels", "scalar", "-t", "1"]);
    assert_eq!(report["backend"], "native");
    assert_eq!((&report["kernels"], &report["threads"]), (&"scalar".into(), &1.into()));
    assert_eq!((&report["load"], &report["kv"]), (&"map".into(), &"f16".into()));
    assert!(report.get("note").is_none());
    assert!(report["rows"][3]["bytes_per_token"].as_u64() > report["rows"][2]["bytes_per_token"].as_u64());
    assert!(report["rows"][3]["bandwidth_fraction"].as_f64().is_some_and(|f| f > 0.0 && f <= 1.0));
}

#[test]
#[cfg(feature = "candle")]
fn candle_reports_what_is_known_of_it() {
    let report = report(&["--backend", "candle", "--kv", "q8_0"]);
    assert_eq!(report["backend"], "candle");
    // Whatever was asked for.
    assert_eq!(report["kv"], "f32");
    assert!(report["kernels"].is_null() && report["load"].is_null() && report["note"].is_string());
    assert!(report["rows"].as_array().unwrap().iter().all(|row| row.get("bandwidth_fraction").is_none()));
}

#[test]
fn what_candle_would_leave_out_is_refused() {
    let refused = bench(&["--backend", "candle", "--kernels", "scalar"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("kernel sets are the native backend's"));
    let home = tempfile::tempdir().unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_qwright"))
        .args(["bench", "--backend", "candle", "--shape", "qwen3-coder-30b"])
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .current_dir(home.path())
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("made-up weights run on the native backend only"));
}
