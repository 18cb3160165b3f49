//! Every quantised format against values computed by the Python package `gguf`, the format's own reference.
//! `fixtures/quant/TYPE.bin`: number of blocks as u32, the blocks (random, with finite scales), the values as f32.
use qwright::engine::quant::QuantType;

struct Fixture {
    blocks: Vec<u8>,
    values: Vec<f32>,
}

fn fixture(kind: QuantType) -> Fixture {
    let path = format!("{}/fixtures/quant/{}.bin", env!("CARGO_MANIFEST_DIR"), kind.name());
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (count, rest) = bytes.split_first_chunk::<4>().unwrap();
    let count = u32::from_le_bytes(*count) as usize;
    let (blocks, values) = rest.split_at(count * kind.block_bytes());
    let values: Vec<f32> =
        values.chunks_exact(4).map(|v| f32::from_le_bytes(v.try_into().unwrap())).collect();
    assert_eq!(values.len(), count * kind.block_len(), "{path}");
    assert!(count > 1, "{path}");
    Fixture { blocks: blocks.to_vec(), values }
}

#[test]
fn every_type_dequantizes_as_its_format_says() {
    for kind in QuantType::ALL {
        let Fixture { blocks, values } = fixture(kind);
        let mut out = vec![f32::NAN; values.len()];
        kind.dequantize(&blocks, &mut out);
        // A minimum may cancel a value, so the tolerance is relative to the largest value of the block.
        for (block, (got, want)) in
            out.chunks(kind.block_len()).zip(values.chunks(kind.block_len())).enumerate()
        {
            let largest = want.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            for (i, (got, want)) in got.iter().zip(want).enumerate() {
                let wrong = (got - want).abs();
                assert!(
                    wrong <= 1e-6 * largest,
                    "{} block {block} value {i}: {got}, not {want}",
                    kind.name()
                );
            }
        }
    }
}
