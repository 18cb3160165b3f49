//! GGUF files that are in order: by the format's own writer (`fixtures/gguf`, the Python package `gguf`), by
//! `GgufBuilder`, and in shards. Files that lie are in `hostile`.
mod builder;
mod hostile;

pub use builder::{GgufBuilder, Meta};
use qwright::commands::inspect_gguf::header_json;
use qwright::engine::gguf::{Gguf, MetaValue};
use qwright::engine::quant::QuantType;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/gguf").join(name)
}

fn refusal(path: &Path) -> String {
    Gguf::open(path).unwrap_err().to_string()
}

#[test]
fn every_metadata_type_of_the_reference_writer_is_read() {
    let gguf = Gguf::open(&fixture("little.gguf")).unwrap();
    assert_eq!((gguf.version(), gguf.shard_count(), gguf.metadata().len()), (3, 1, 19));
    assert_eq!(gguf.metadata()[0], ("general.architecture".to_string(), MetaValue::Str("qwen3".into())));
    assert_eq!(gguf.u64("t.u8"), Some(200));
    assert_eq!(gguf.meta("t.i8"), Some(&MetaValue::I64(-100)));
    assert_eq!(gguf.u64("t.u16"), Some(60_000));
    assert_eq!(gguf.meta("t.i16"), Some(&MetaValue::I64(-30_000)));
    assert_eq!(gguf.u64("t.u32"), Some(4_000_000_000));
    assert_eq!(gguf.meta("t.i32"), Some(&MetaValue::I64(-2_000_000_000)));
    assert_eq!(gguf.u64("t.u64"), Some((1 << 63) + 1));
    assert_eq!(gguf.meta("t.i64"), Some(&MetaValue::I64(-(1 << 62))));
    assert_eq!(gguf.f64("t.f32"), Some(1.5));
    assert_eq!(gguf.f64("t.f64"), Some(0.1));
    assert_eq!((gguf.bool("t.yes"), gguf.bool("t.no")), (Some(true), Some(false)));
    assert_eq!(gguf.str("t.str"), Some("grüß dich"));
    let strings: Vec<&[u8]> = gguf.strings("t.strings").unwrap().collect();
    assert_eq!(strings.len(), 23);
    assert_eq!(strings[..4], [b"a", &b""[..], "Ġthe".as_bytes(), b"x0"]);
    assert_eq!(strings[22], b"x19");
    assert_eq!(gguf.ints("t.ints").unwrap().collect::<Vec<_>>(), [1, -2, 3]);
    assert_eq!(gguf.floats("t.ints").unwrap().collect::<Vec<_>>(), [1.0, -2.0, 3.0]);
    assert_eq!(gguf.floats("t.floats").unwrap().collect::<Vec<_>>(), [0.5, -0.25]);
    assert!(
        gguf.ints("t.floats").is_none() && gguf.ints("t.bools").is_none() && gguf.floats("t.bools").is_none()
    );
    let MetaValue::Numbers(bools) = gguf.meta("t.bools").unwrap() else { panic!("no array") };
    assert_eq!(bools.iter().collect::<Vec<_>>(), [true, false, true].map(MetaValue::Bool));
}

#[test]
fn tensors_of_the_reference_writer_are_read() {
    let gguf = Gguf::open(&fixture("little.gguf")).unwrap();
    let values = |name: &str| {
        let tensor = gguf.tensor(name).unwrap();
        assert_eq!(tensor.range.start % 64, 0, "general.alignment of the file");
        let mut values = vec![0.0; tensor.len()];
        tensor.kind.dequantize(gguf.data(tensor), &mut values);
        values
    };
    assert_eq!(
        gguf.tensors().iter().map(|t| t.name.as_str()).collect::<Vec<_>>(),
        ["plain.weight", "half.weight", "quant.weight"]
    );
    let plain = gguf.tensor("plain.weight").unwrap();
    assert_eq!((plain.dims.as_slice(), plain.kind, plain.row_bytes()), (&[4, 3][..], QuantType::F32, 16));
    assert_eq!(values("plain.weight"), (0..12).map(|v| v as f32).collect::<Vec<_>>());
    assert_eq!(gguf.tensor("half.weight").unwrap().kind, QuantType::F16);
    assert_eq!(values("half.weight")[..1], [-2.0]);
    let quant = gguf.tensor("quant.weight").unwrap();
    assert_eq!(
        (quant.dims.as_slice(), quant.kind, quant.row_bytes()),
        (&[32, 2, 1][..], QuantType::Q8_0, 34)
    );
    for (i, value) in values("quant.weight").into_iter().enumerate() {
        let want = -1.0 + 2.0 * i as f32 / 63.0;
        assert!((value - want).abs() < 0.005, "value {i}: {value}, not {want}");
    }
}

#[test]
fn a_wrong_or_missing_key_is_named() {
    let gguf = Gguf::open(&fixture("little.gguf")).unwrap();
    let of = |error: qwright::engine::EngineError| error.to_string().rsplit('/').next().unwrap().to_owned();
    assert_eq!(
        of(gguf.require_u64("t.none").unwrap_err()),
        "little.gguf: metadata key \"t.none\" is missing"
    );
    assert_eq!(
        of(gguf.require_u64("t.str").unwrap_err()),
        "little.gguf: metadata key \"t.str\" is a string; an unsigned integer is expected"
    );
    assert_eq!(
        of(gguf.require_u64("t.i8").unwrap_err()),
        "little.gguf: metadata key \"t.i8\" is a signed integer; an unsigned integer is expected"
    );
    assert_eq!(gguf.require_f64("t.i8").unwrap(), -100.0);
    assert_eq!(gguf.require_str("general.architecture").unwrap(), "qwen3");
    assert_eq!(gguf.require_strings("t.strings").unwrap().get(2), Some("Ġthe".as_bytes()));
    assert_eq!(gguf.require_strings("t.strings").unwrap().get(23), None);
    assert_eq!(gguf.get::<bool>("t.none").unwrap(), None);
    assert!(gguf.get::<bool>("t.str").is_err());
    assert_eq!(of(gguf.require_tensor("x").unwrap_err()), "little.gguf: tensor \"x\" is missing");
}

#[test]
fn a_signed_key_that_is_not_negative_is_a_count() {
    let bytes = GgufBuilder::new().meta("n", Meta::I32(7)).build();
    assert_eq!(Gguf::from_bytes("x", bytes).unwrap().u64("n"), Some(7));
}

#[test]
fn version_2_is_read_like_version_3() {
    let two = Gguf::from_bytes("x", GgufBuilder { version: 2, ..GgufBuilder::tiny() }.build()).unwrap();
    let three = Gguf::from_bytes("x", GgufBuilder::tiny().build()).unwrap();
    assert_eq!((two.version(), three.version()), (2, 3));
    assert_eq!(two.metadata(), three.metadata());
    assert_eq!(two.tensors().len(), three.tensors().len());
}

#[test]
fn arrays_inside_arrays_are_read() {
    let inner = Meta::Nested(vec![Meta::Ints(vec![1, 2]), Meta::Strings(vec!["a", "b"])]);
    let gguf =
        Gguf::from_bytes("x", GgufBuilder::new().meta("n", Meta::Nested(vec![inner])).build()).unwrap();
    let Some(MetaValue::Array(outer)) = gguf.meta("n") else { panic!("no array") };
    let [MetaValue::Array(inner)] = outer.as_slice() else { panic!("not one array") };
    let [MetaValue::Numbers(ints), MetaValue::Strings(strings)] = inner.as_slice() else {
        panic!("not two arrays")
    };
    assert_eq!(ints.ints().unwrap().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(strings.iter().collect::<Vec<_>>(), [b"a", b"b"]);
}

#[test]
fn inspect_shows_the_header_and_shortens_arrays() {
    let json = header_json(&Gguf::open(&fixture("little.gguf")).unwrap());
    assert_eq!(json["version"], 3);
    assert_eq!(json["bytes"], 1216);
    assert_eq!(json["metadata"]["t.i64"], -(1i64 << 62));
    assert_eq!(json["metadata"]["t.ints"], serde_json::json!([1, -2, 3]));
    assert_eq!(
        json["metadata"]["t.strings"],
        serde_json::json!({"array": "string", "len": 23, "first": ["a", "", "Ġthe", "x0", "x1", "x2", "x3", "x4"]})
    );
    assert_eq!(json["types"]["Q8_0"], serde_json::json!({"tensors": 1, "bytes": 68}));
    assert_eq!(
        json["tensors"][2],
        serde_json::json!({"name": "quant.weight", "type": "Q8_0", "dims": [32, 2, 1], "shard": 0,
            "offset": 1216 - 128, "bytes": 68})
    );
}

#[test]
fn a_big_endian_file_is_refused_by_name() {
    let message = refusal(&fixture("big-endian.gguf"));
    assert!(
        message.ends_with("a big-endian GGUF file; only little-endian ones are read (at byte 4)"),
        "{message}"
    );
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let message = refusal(dir.path());
    assert!(message.ends_with(": not a file"), "{message}");
    let empty = dir.path().join("empty.gguf");
    std::fs::write(&empty, "").unwrap();
    assert!(refusal(&empty).ends_with("empty.gguf: the file is empty"));
    assert!(refusal(&dir.path().join("none.gguf")).contains("none.gguf: "));
    // Opening a pipe without a writer would wait for ever.
    let pipe = dir.path().join("pipe.gguf");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(refusal(&pipe).ends_with("pipe.gguf: not a file"));
}

/// `NAME-00001-of-0000N.gguf`: the shards of a model of `count` files with one tensor each.
struct Shards {
    dir: tempfile::TempDir,
    count: u16,
}

impl Shards {
    fn write(count: u16) -> Self {
        let shards = Self { dir: tempfile::tempdir().unwrap(), count };
        for no in 0..count {
            shards.replace(no, shards.builder(no));
        }
        shards
    }
    fn builder(&self, no: u16) -> GgufBuilder {
        GgufBuilder::new()
            .meta("from", Meta::U16(no))
            .meta("split.no", Meta::U16(no))
            .meta("split.count", Meta::U16(self.count))
            .meta("split.tensors.count", Meta::I32(i32::from(self.count)))
            .tensor(&format!("blk.{no}.weight"), &[4], 0, &[no as u8; 16])
    }
    fn path(&self, no: u16) -> PathBuf {
        self.dir.path().join(format!("model-Q8_0-{:05}-of-{:05}.gguf", no + 1, self.count))
    }
    fn replace(&self, no: u16, builder: GgufBuilder) {
        std::fs::write(self.path(no), builder.build()).unwrap();
    }
    fn refusal(&self) -> String {
        let message = refusal(&self.path(0));
        message.rsplit('/').next().unwrap().to_owned()
    }
}

#[test]
fn all_shards_are_opened_through_any_of_them() {
    let shards = Shards::write(3);
    for opened in 0..3 {
        let gguf = Gguf::open(&shards.path(opened)).unwrap();
        assert_eq!((gguf.shard_count(), gguf.tensors().len()), (3, 3));
        assert_eq!(gguf.u64("from"), Some(0), "the metadata is that of the first");
        assert_eq!(gguf.path(), shards.path(0));
        for no in 0..3u8 {
            let tensor = gguf.tensor(&format!("blk.{no}.weight")).unwrap();
            assert_eq!((tensor.shard, gguf.data(tensor)), (usize::from(no), &[no; 16][..]));
        }
        let all: u64 = (0..3).map(|no| std::fs::metadata(shards.path(no)).unwrap().len()).sum();
        assert_eq!(gguf.file_bytes(), all);
    }
}

#[test]
fn a_single_shard_is_a_whole_model() {
    let shards = Shards::write(1);
    assert_eq!(Gguf::open(&shards.path(0)).unwrap().tensors().len(), 1);
    shards.replace(0, GgufBuilder::tiny());
    assert_eq!(Gguf::open(&shards.path(0)).unwrap().tensors().len(), 2);
}

#[test]
fn a_missing_shard_is_named() {
    let shards = Shards::write(3);
    std::fs::remove_file(shards.path(1)).unwrap();
    let missing = "model-Q8_0-00001-of-00003.gguf: shard 2 of 3, model-Q8_0-00002-of-00003.gguf, is missing";
    assert_eq!(shards.refusal(), missing);
    std::fs::remove_file(shards.path(0)).unwrap();
    let message = refusal(&shards.path(2));
    let first_missing = "model-Q8_0-00003-of-00003.gguf: it is one shard of a model and the first, model-Q8_0-00001-of-00003.gguf, is missing";
    assert!(message.ends_with(first_missing), "{message}");
}

#[test]
fn shards_that_do_not_belong_together_are_refused() {
    let shards = Shards::write(3);
    let check = |no: u16, builder: GgufBuilder, expected: &str| {
        shards.replace(no, builder);
        assert_eq!(shards.refusal(), expected);
        shards.replace(no, shards.builder(no));
    };
    let third = "model-Q8_0-00003-of-00003.gguf";
    check(
        2,
        shards.builder(1),
        &format!("{third}: split.no is 1 (counted from 0) and its name says shard 3"),
    );
    check(
        2,
        GgufBuilder::tiny(),
        &format!("{third}: it is named as a shard and its metadata has no split.count"),
    );
    let four = Shards { count: 4, dir: tempfile::tempdir().unwrap() };
    check(2, four.builder(2), &format!("{third}: split.count is 4 and its name says 3"));
    let twice = shards.builder(2).tensor("blk.0.weight", &[4], 0, &[0; 16]);
    check(2, twice, "model-Q8_0-00001-of-00003.gguf: tensor \"blk.0.weight\" is in two shards");
    let more = shards.builder(2).tensor("more", &[4], 0, &[0; 16]);
    let counted = "model-Q8_0-00001-of-00003.gguf: split.tensors.count is 3 and the shards hold 4 tensors";
    check(2, more, counted);
    let no_total = GgufBuilder::new().meta("split.no", Meta::U16(2)).meta("split.count", Meta::U16(3));
    check(2, no_total, &format!("{third}: metadata key split.tensors.count is missing"));
    let other_total = no_total_but(2, 3, 4);
    check(2, other_total, &format!("{third}: split.tensors.count is 4 and the first shard says 3"));
    let named =
        "model-Q8_0-00001-of-00003.gguf: it is named as one of 3 shards and its metadata has no split.count";
    check(0, GgufBuilder::tiny(), named);
    let text = GgufBuilder::new().meta("split.count", Meta::Str("3"));
    let message = "model-Q8_0-00001-of-00003.gguf: split.count is a string; an unsigned integer is expected";
    check(0, text, message);
    assert!(Gguf::open(&shards.path(0)).is_ok(), "each case was put back");
}

fn no_total_but(no: u16, count: u16, total: i32) -> GgufBuilder {
    GgufBuilder::new()
        .meta("split.no", Meta::U16(no))
        .meta("split.count", Meta::U16(count))
        .meta("split.tensors.count", Meta::I32(total))
}

#[test]
fn a_renamed_shard_says_what_its_name_must_be() {
    let shards = Shards::write(2);
    let renamed = shards.dir.path().join("renamed.gguf");
    std::fs::rename(shards.path(1), &renamed).unwrap();
    let message = refusal(&renamed);
    let expected =
        "renamed.gguf: it is shard 2 of 2; the name of such a file must end in -00002-of-00002.gguf";
    assert!(message.ends_with(expected), "{message}");
}

#[test]
fn a_damaged_shard_is_the_one_named() {
    let shards = Shards::write(2);
    let mut bytes = shards.builder(1).build();
    bytes.pop();
    std::fs::write(shards.path(1), bytes).unwrap();
    let message = shards.refusal();
    assert!(
        message.starts_with("model-Q8_0-00002-of-00002.gguf: tensor \"blk.1.weight\" needs 16 bytes"),
        "{message}"
    );
}
