//! Every quantised format against values computed by the Python package `gguf`, the format's own reference.
//! `fixtures/quant/TYPE.bin`: number of blocks as u32, the blocks (random, with finite scales), the values as f32.
use qwright::engine::quant::{QuantType, Unpacked};

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

#[test]
fn numbers_and_names_are_ggmls() {
    // ggml.h's enum; what is not listed is unread.
    let known = [
        (0, "F32"),
        (1, "F16"),
        (2, "Q4_0"),
        (3, "Q4_1"),
        (6, "Q5_0"),
        (7, "Q5_1"),
        (8, "Q8_0"),
        (10, "Q2_K"),
        (11, "Q3_K"),
        (12, "Q4_K"),
        (13, "Q5_K"),
        (14, "Q6_K"),
        (16, "IQ2_XXS"),
        (17, "IQ2_XS"),
        (18, "IQ3_XXS"),
        (19, "IQ1_S"),
        (20, "IQ4_NL"),
        (21, "IQ3_S"),
        (22, "IQ2_S"),
        (23, "IQ4_XS"),
        (29, "IQ1_M"),
        (30, "BF16"),
        (39, "MXFP4"),
    ];
    assert_eq!(known.len(), QuantType::ALL.len());
    for id in 0..100 {
        let name = QuantType::from_ggml(id).map(QuantType::name);
        assert_eq!(name, known.iter().find(|(known, _)| *known == id).map(|(_, name)| *name), "{id}");
    }
}

#[test]
fn a_block_leaves_nothing_behind_for_the_next_type() {
    // Kernels reuse one `Unpacked`; a minimum or a scale of the block before must not leak into this one.
    for kind in quantised() {
        let Fixture { blocks, .. } = fixture(kind);
        let block = &blocks[..kind.block_bytes()];
        let (mut clean, mut dirty) = (Unpacked::default(), Unpacked::default());
        dirty.q.fill(77);
        dirty.scale.fill(-77);
        dirty.min.fill(77);
        (dirty.d, dirty.dmin) = (7e7, -7e7);
        kind.unpack(block, &mut clean);
        kind.unpack(block, &mut dirty);
        let groups = kind.block_len() / 16;
        assert_eq!((clean.d, clean.dmin), (dirty.d, dirty.dmin), "{}", kind.name());
        assert_eq!(clean.q[..kind.block_len()], dirty.q[..kind.block_len()], "{}", kind.name());
        assert_eq!(clean.scale[..groups], dirty.scale[..groups], "{}", kind.name());
        assert_eq!(clean.min[..groups], dirty.min[..groups], "{}", kind.name());
    }
}

#[test]
fn any_bytes_unpack_within_the_stated_ranges() {
    // Every byte value in every place, so also every index into a lattice; files are not to be trusted.
    for kind in quantised() {
        let mut out = Unpacked::default();
        for seed in 0..=255u8 {
            for step in [0u8, 1, 3, 85] {
                let block: Vec<u8> =
                    (0..kind.block_bytes()).map(|i| seed.wrapping_add(step.wrapping_mul(i as u8))).collect();
                kind.unpack(&block, &mut out);
                let small = |v: &i16| (-128..=127).contains(v);
                assert!(out.scale.iter().all(small) && out.min.iter().all(small), "{} {seed}", kind.name());
            }
        }
    }
}

#[test]
fn a_row_may_end_inside_a_block() {
    for kind in QuantType::ALL {
        let Fixture { blocks, values } = fixture(kind);
        let mut whole = vec![0.0; values.len()];
        kind.dequantize(&blocks, &mut whole);
        let count = kind.block_len() + kind.block_len() / 2 + 1;
        let mut part = vec![0.0; count + 1];
        part[count] = 5.0;
        kind.dequantize(&blocks, &mut part[..count]);
        assert_eq!(part[..count], whole[..count], "{}", kind.name());
        assert_eq!(part[count], 5.0, "{} wrote past the end", kind.name());
    }
}

fn quantised() -> impl Iterator<Item = QuantType> {
    QuantType::ALL.into_iter().filter(|kind| kind.block_len() > 1)
}
