//! Parts of a quantized matrix that hold the very values of the whole.

use super::{Absmax, Nf4};
use crate::section::Section;

impl Nf4 {
    /// Cuts out a part. Its values are those of the whole, to the bit.
    ///
    /// With double quantization a scale of the second level covers fewer scales in a part, where those of the whole begin
    /// and end elsewhere; where it would cover a single one, the scales themselves are kept.
    ///
    /// # Panics
    /// When the part does not lie in the matrix, or begins or ends within a block (see [`is_whole_blocks`]).
    #[must_use]
    pub fn cut(&self, section: &Section) -> Nf4 {
        let (shape, size) = (self.shape, self.block_size);
        assert!(is_whole_blocks(shape, size, section), "{section:?} of {shape:?} cuts blocks of {size}");
        let bytes = section
            .stretches(shape)
            .flat_map(|stretch| &self.packed[stretch.start / 2..stretch.end.div_ceil(2)]);
        let blocks =
            || section.stretches(shape).flat_map(|stretch| stretch.start / size..stretch.end.div_ceil(size));
        let absmax = match &self.absmax {
            Absmax::Single(absmax) => Absmax::Single(blocks().map(|block| absmax[block]).collect()),
            Absmax::Double { codes, nested_absmax, nested_block, offset, map } => {
                match nested_of_section(shape, size, *nested_block, section) {
                    1 => Absmax::Single(blocks().map(|block| self.absmax_at(block)).collect()),
                    nested => Absmax::Double {
                        codes: blocks().map(|block| codes[block]).collect(),
                        nested_absmax: blocks()
                            .step_by(nested)
                            .map(|block| nested_absmax[block / nested_block])
                            .collect(),
                        nested_block: nested,
                        offset: *offset,
                        map: map.clone(),
                    },
                }
            }
        };
        Nf4 { packed: bytes.copied().collect(), absmax, shape: section.shape(shape), block_size: size }
    }
}

/// Whether a part of a matrix is made of whole blocks.
pub fn is_whole_blocks(shape: [usize; 2], block_size: usize, section: &Section) -> bool {
    let values = shape[0] * shape[1];
    section.stretches(shape).all(|stretch| {
        let ends = stretch.end.is_multiple_of(block_size) || stretch.end == values;
        stretch.is_empty() || (stretch.start.is_multiple_of(block_size) && ends)
    })
}

/// Returns the bytes that [`Nf4::cut`] leaves, as [`Nf4::bytes`] counts them; `nested_block` is that of a matrix with double
/// quantization.
pub fn bytes_of_section(
    shape: [usize; 2],
    block_size: usize,
    nested_block: Option<usize>,
    section: &Section,
) -> usize {
    let [out, width] = section.shape(shape);
    let (values, blocks) = (out * width, (out * width).div_ceil(block_size));
    let scales = match nested_block.map(|nested| nested_of_section(shape, block_size, nested, section)) {
        None | Some(1) => 4 * blocks,
        Some(nested) => blocks + 4 * blocks.div_ceil(nested) + 4,
    };
    values.div_ceil(2) + scales
}

/// Returns how many scales of a part share a scale of the second level, everywhere in it: a divisor of `nested`.
fn nested_of_section([_, width]: [usize; 2], block_size: usize, nested: usize, section: &Section) -> usize {
    match section {
        Section::Rows(rows) => gcd(nested, rows.start * width / block_size),
        Section::Columns(columns) => [width, columns.start, columns.len()]
            .into_iter()
            .fold(nested, |all, one| gcd(all, one / block_size)),
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nf4::quantize;
    use crate::testing::random;

    #[test]
    fn a_part_holds_the_values_of_the_whole() {
        // 24 and 9 blocks a row: the second level's 256 begin anywhere in a row.
        for (shape, cuts) in [
            (
                [40, 1536],
                vec![
                    Section::Rows(0..40),
                    Section::Rows(13..29),
                    Section::Columns(512..1024),
                    Section::Columns(0..64),
                ],
            ),
            ([64, 576], vec![Section::Rows(0..32), Section::Rows(32..64), Section::Columns(192..384)]),
            ([96, 2048], vec![Section::Columns(1024..1536), Section::Rows(24..48)]),
            // A last block that is not whole.
            ([5, 96], vec![Section::Rows(2..5)]),
        ] {
            for double in [false, true] {
                let whole = quantize(&random(7, shape[0] * shape[1], 1.0), shape, 64, double);
                let values = whole.dequantize();
                for section in &cuts {
                    let part = whole.cut(section);
                    part.check().expect("parts that fit");
                    let expected: Vec<f32> =
                        section.stretches(shape).flat_map(|stretch| values[stretch].to_vec()).collect();
                    let same =
                        part.dequantize().iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(
                        same && part.len() == expected.len(),
                        "{section:?} of {shape:?}, double {double}"
                    );
                    let nested = double.then_some(crate::nf4::NESTED_BLOCK);
                    assert_eq!(
                        part.bytes(),
                        bytes_of_section(shape, 64, nested, section),
                        "{section:?} of {shape:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn parts_of_blocks_are_refused() {
        assert!(!is_whole_blocks([64, 96], 64, &Section::Columns(0..48)));
        assert!(!is_whole_blocks([64, 96], 64, &Section::Rows(1..2)));
        assert!(is_whole_blocks([64, 96], 64, &Section::Rows(2..4)));
        assert!(is_whole_blocks([64, 96], 64, &Section::Rows(64..64)));
    }
}
