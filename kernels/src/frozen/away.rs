//! A weight whose elements are elsewhere for most of the time: what remains of it, and how it is put together again.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Compute, Storage};
use crate::int8::Int8;
use crate::nf4::{Absmax, Nf4};

/// What a storage is without its bytes.
#[derive(Clone, Debug)]
pub struct Form {
    kind: Kind,
    bytes: usize,
}

#[derive(Clone, Debug)]
enum Kind {
    F32,
    Bf16,
    Nf4 { shape: [usize; 2], block_size: usize, nested: Option<Nested> },
    Int8 { shape: [usize; 2] },
}

/// What NF4's doubly quantized scales have beside their codes.
#[derive(Clone, Debug)]
struct Nested {
    block: usize,
    offset: f32,
    map: Box<[f32; 256]>,
}

impl Form {
    /// Values that are not quantized, as a table keeps them.
    pub fn dense(compute: Compute, values: usize) -> Self {
        match compute {
            Compute::F32 => Self { kind: Kind::F32, bytes: 4 * values },
            Compute::Bf16 => Self { kind: Kind::Bf16, bytes: 2 * values },
        }
    }

    /// Returns the bytes that are missing.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts a storage together again from its bytes, which come in order, in pieces of any size.
    ///
    /// # Panics
    /// When the pieces are not as long as the storage.
    pub fn storage<'p>(&self, pieces: impl IntoIterator<Item = &'p [u8]>) -> Storage {
        let mut source = Source { pieces: pieces.into_iter(), rest: &[] };
        let storage = match &self.kind {
            Kind::F32 => Storage::F32(source.take(self.bytes / 4)),
            Kind::Bf16 => Storage::Bf16(source.take(self.bytes / 2)),
            Kind::Nf4 { shape, block_size, nested } => {
                let values = shape[0] * shape[1];
                let blocks = values.div_ceil(*block_size);
                let packed = source.take(values.div_ceil(2));
                let absmax = match nested {
                    None => Absmax::Single(source.take(blocks)),
                    Some(Nested { block, offset, map }) => Absmax::Double {
                        codes: source.take(blocks),
                        nested_absmax: source.take(blocks.div_ceil(*block)),
                        nested_block: *block,
                        offset: *offset,
                        map: map.clone(),
                    },
                };
                Storage::Nf4(Nf4 { packed, absmax, shape: *shape, block_size: *block_size })
            }
            Kind::Int8 { shape } => Storage::Int8(Int8 {
                codes: source.take(shape[0] * shape[1]),
                row_absmax: source.take(shape[0]),
                shape: *shape,
            }),
        };
        assert!(source.is_empty(), "more bytes than the {} of the storage", self.bytes);
        storage
    }
}

impl Storage {
    /// Returns what remains when the bytes are elsewhere.
    pub fn form(&self) -> Form {
        let kind = match self {
            Self::F32(_) => Kind::F32,
            Self::Bf16(_) => Kind::Bf16,
            Self::Nf4(nf4) => {
                let nested = match &nf4.absmax {
                    Absmax::Single(_) => None,
                    Absmax::Double { nested_block, offset, map, .. } => {
                        Some(Nested { block: *nested_block, offset: *offset, map: map.clone() })
                    }
                };
                Kind::Nf4 { shape: nf4.shape, block_size: nf4.block_size, nested }
            }
            Self::Int8(int8) => Kind::Int8 { shape: int8.shape },
            #[cfg(feature = "cube")]
            Self::Device(_) => unreachable!("elements on a device stay there"),
        };
        Form { kind, bytes: self.segments().iter().map(|segment| segment.len()).sum() }
    }

    /// Appends some of the bytes, in the order in which [`Form::storage`] takes them.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn copy_bytes(&self, range: Range<usize>, out: &mut Vec<u8>) {
        let mut start = 0;
        let before = out.len();
        for segment in self.segments() {
            let end = start + segment.len();
            let (from, to) = (range.start.clamp(start, end), range.end.clamp(start, end));
            out.extend_from_slice(&segment[from - start..to - start]);
            start = end;
        }
        assert_eq!(out.len() - before, range.len(), "a range beyond the {start} bytes of the storage");
    }

    fn segments(&self) -> Vec<&[u8]> {
        match self {
            Self::F32(values) => vec![bytemuck::cast_slice(values)],
            Self::Bf16(values) => vec![bytemuck::cast_slice(values)],
            Self::Nf4(nf4) => match &nf4.absmax {
                Absmax::Single(absmax) => vec![&nf4.packed, bytemuck::cast_slice(absmax)],
                Absmax::Double { codes, nested_absmax, .. } => {
                    vec![&nf4.packed, codes, bytemuck::cast_slice(nested_absmax)]
                }
            },
            Self::Int8(int8) => {
                vec![bytemuck::cast_slice(&int8.codes), bytemuck::cast_slice(&int8.row_absmax)]
            }
            #[cfg(feature = "cube")]
            Self::Device(_) => unreachable!("elements on a device stay there"),
        }
    }
}

/// Bytes that come in pieces.
struct Source<'p, I> {
    pieces: I,
    rest: &'p [u8],
}

impl<'p, I: Iterator<Item = &'p [u8]>> Source<'p, I> {
    /// Takes the next elements.
    fn take<T: bytemuck::Pod>(&mut self, count: usize) -> Vec<T> {
        let mut values = vec![T::zeroed(); count];
        let mut out: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        while !out.is_empty() {
            if self.rest.is_empty() {
                self.rest = self.pieces.next().expect("fewer bytes than the storage has");
            }
            let length = out.len().min(self.rest.len());
            let (piece, rest) = self.rest.split_at(length);
            let (now, later) = out.split_at_mut(length);
            now.copy_from_slice(piece);
            (self.rest, out) = (rest, later);
        }
        values
    }

    fn is_empty(&mut self) -> bool {
        self.rest.is_empty() && self.pieces.all(<[u8]>::is_empty)
    }
}

/// Where the elements of a weight are for as long as they are needed.
#[derive(Debug)]
pub(super) struct Away {
    form: Form,
    here: RwLock<Option<Arc<Storage>>>,
}

impl Away {
    pub(super) fn new(form: Form) -> Self {
        Self { form, here: RwLock::new(None) }
    }

    /// Returns the bytes of the elements wherever they are, as a weight that is here counts them.
    pub(super) fn bytes(&self) -> usize {
        let offset = matches!(self.form.kind, Kind::Nf4 { nested: Some(_), .. });
        self.form.bytes + if offset { size_of::<f32>() } else { 0 }
    }

    pub(super) fn form(&self) -> &Form {
        &self.form
    }

    /// Returns the elements, if they are here.
    pub(super) fn get(&self) -> Option<Arc<Storage>> {
        self.here.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, storage: Option<Arc<Storage>>) {
        *self.here.write().unwrap_or_else(PoisonError::into_inner) = storage;
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::frozen::FrozenWeight;
    use crate::testing::random;
    use crate::{int8, nf4};

    fn storages(shape: [usize; 2]) -> Vec<Storage> {
        let values = random(7, shape[0] * shape[1], 1.0);
        vec![
            Storage::F32(values.clone()),
            Storage::Bf16(values.iter().copied().map(bf16::from_f32).collect()),
            Storage::Nf4(nf4::quantize(&values, shape, 64, true)),
            Storage::Nf4(nf4::quantize(&values, shape, 64, false)),
            Storage::Int8(int8::quantize(&values, shape)),
        ]
    }

    #[test]
    fn parts_of_any_size_make_the_whole() {
        for shape in [[33, 20], [1, 7], [64, 320]] {
            for storage in storages(shape) {
                let form = storage.form();
                let bytes = form.bytes();
                for parts in [1, 2, 3, 5, 11] {
                    let part = |part: usize| {
                        let mut out = Vec::new();
                        storage.copy_bytes(part * bytes / parts..(part + 1) * bytes / parts, &mut out);
                        out
                    };
                    let parts: Vec<Vec<u8>> = (0..parts).map(part).collect();
                    let again = form.storage(parts.iter().map(Vec::as_slice));
                    assert_eq!(format!("{again:?}"), format!("{storage:?}"), "{shape:?} in {}", parts.len());
                }
            }
        }
    }

    #[test]
    fn a_weight_that_went_away_reads_as_before() {
        for (storage, again) in storages([33, 20]).into_iter().zip(storages([33, 20])) {
            for compute in [Compute::F32, Compute::Bf16] {
                let away = FrozenWeight::away(storage.form(), [33, 20], compute);
                let copy = away.clone();
                let mut all = Vec::new();
                storage.copy_bytes(0..storage.form().bytes(), &mut all);
                away.bring(storage.form().storage([all.as_slice()]));
                let mut bytes = Vec::new();
                again.copy_bytes(0..again.form().bytes(), &mut bytes);
                let whole = FrozenWeight::new(again.form().storage([bytes.as_slice()]), [33, 20], compute);
                let mut read = [vec![0.0f32; 600], vec![0.0f32; 600]];
                // What a graph has kept sees the elements too.
                copy.read(30, &mut read[0]);
                whole.read(30, &mut read[1]);
                assert_eq!(read[0], read[1]);
                assert_eq!(whole.bytes(), copy.bytes());
                copy.leave();
                assert!(!away.is_here() && whole.is_here());
            }
        }
    }
}
