//! Frozen weights: matrices that never change, in the storage they are kept in.
//!
//! A weight is `[out, in]`, row-major. It is read as f32 a stretch at a time; the whole matrix never exists
//! in f32 unless it is stored so.

mod away;

use std::ops::Deref;
use std::sync::Arc;

use burn::tensor::Device;
use half::bf16;

use crate::device::TooLarge;
#[cfg(feature = "cube")]
pub use crate::gpu::weight::DeviceWeight;
use crate::int8::{self, Int8};
use crate::nf4::Nf4;

use away::Away;
pub use away::Form;

/// What the matrix unit multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compute {
    /// Inputs and weights as they are, in f32.
    F32,
    /// Inputs and weights rounded to bf16, products summed in f32.
    Bf16,
}

/// How the elements of a frozen weight are kept in memory.
#[derive(Debug)]
pub enum Storage {
    /// 4 bytes an element.
    F32(Vec<f32>),
    /// 2 bytes an element.
    Bf16(Vec<bf16>),
    /// bitsandbytes' 4-bit NormalFloat, with the absmax of each block decoded on the fly.
    Nf4(Nf4),
    /// bitsandbytes' row-wise int8.
    Int8(Int8),
    /// Any of these in the memory of a device.
    #[cfg(feature = "cube")]
    Device(Box<DeviceWeight>),
}

/// A frozen `[out, in]` matrix. Clones share the elements, and their coming and going.
#[derive(Clone, Debug)]
pub struct FrozenWeight {
    held: Held,
    shape: [usize; 2],
    compute: Compute,
}

/// Whether the elements stay.
#[derive(Clone, Debug)]
enum Held {
    Here(Arc<Storage>),
    Away(Arc<Away>),
}

/// The elements of a weight, for as long as they are looked at.
#[derive(Debug)]
pub enum Stored<'a> {
    /// They stay.
    Here(&'a Storage),
    /// They were brought.
    Brought(Arc<Storage>),
}

impl Deref for Stored<'_> {
    type Target = Storage;

    fn deref(&self) -> &Storage {
        match self {
            Self::Here(storage) => storage,
            Self::Brought(storage) => storage,
        }
    }
}

impl FrozenWeight {
    /// Wraps a stored `[out, in]` matrix.
    ///
    /// # Panics
    /// When the storage does not hold `out * in` elements.
    pub fn new(storage: Storage, shape: [usize; 2], compute: Compute) -> Self {
        let elements = match &storage {
            Storage::F32(values) => values.len(),
            Storage::Bf16(values) => values.len(),
            Storage::Nf4(nf4) => nf4.shape.iter().product(),
            Storage::Int8(int8) => int8.shape.iter().product(),
            #[cfg(feature = "cube")]
            Storage::Device(weight) => weight.len,
        };
        assert_eq!(elements, shape[0] * shape[1], "a {shape:?} weight with {elements} elements");
        Self { held: Held::Here(Arc::new(storage)), shape, compute }
    }

    /// An `[out, in]` matrix whose elements are elsewhere until they are brought.
    pub fn away(form: Form, shape: [usize; 2], compute: Compute) -> Self {
        Self { held: Held::Away(Arc::new(Away::new(form))), shape, compute }
    }

    /// Returns what the elements are kept in, where they come and go.
    pub fn form(&self) -> Option<&Form> {
        match &self.held {
            Held::Here(_) => None,
            Held::Away(away) => Some(away.form()),
        }
    }

    /// Brings the elements of a weight that is away.
    ///
    /// # Panics
    /// When the elements stay.
    pub fn bring(&self, storage: Storage) {
        let Held::Away(away) = &self.held else { panic!("the elements are here to stay") };
        away.set(Some(Arc::new(storage)));
    }

    /// Lets elements that were brought go.
    pub fn leave(&self) {
        if let Held::Away(away) = &self.held {
            away.set(None);
        }
    }

    /// Whether the elements can be read.
    pub fn is_here(&self) -> bool {
        match &self.held {
            Held::Here(_) => true,
            Held::Away(away) => away.get().is_some(),
        }
    }

    /// Returns `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Returns how products with this weight are computed.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// Returns how the elements are kept.
    ///
    /// # Panics
    /// When they are away.
    pub fn storage(&self) -> Stored<'_> {
        match &self.held {
            Held::Here(storage) => Stored::Here(storage),
            Held::Away(away) => {
                Stored::Brought(away.get().expect("elements are brought before they are read"))
            }
        }
    }

    /// Returns the bytes that the elements take in memory where they are.
    pub fn bytes(&self) -> usize {
        let storage = match &self.held {
            Held::Here(storage) => storage,
            Held::Away(away) => return away.bytes(),
        };
        match &**storage {
            Storage::F32(values) => values.len() * 4,
            Storage::Bf16(values) => values.len() * 2,
            Storage::Nf4(nf4) => nf4.bytes(),
            Storage::Int8(int8) => int8.bytes(),
            #[cfg(feature = "cube")]
            Storage::Device(weight) => weight.bytes,
        }
    }

    /// Returns the weight on `device`: as it is for the CPU, else a copy in the device's memory. The host's elements
    /// go where this was the last handle.
    ///
    /// # Errors
    /// [`TooLarge`] where the device has no buffer for all elements.
    pub fn on(self, device: &Device) -> Result<Self, TooLarge> {
        #[cfg(feature = "cube")]
        if let Some(device) = crate::device::cube(device)
            && !self.is_on_device()
        {
            let weight = DeviceWeight::upload(&device.client(), &self.storage())?;
            return Ok(Self { held: Held::Here(Arc::new(Storage::Device(Box::new(weight)))), ..self });
        }
        let _ = device;
        Ok(self)
    }

    /// Whether the elements are in the memory of a device, where only kernels can read them.
    pub fn is_on_device(&self) -> bool {
        #[cfg(feature = "cube")]
        if self.on_device().is_some() {
            return true;
        }
        false
    }

    /// Returns the elements in the memory of a device, if they are there.
    #[cfg(feature = "cube")]
    pub(crate) fn on_device(&self) -> Option<&DeviceWeight> {
        match &self.held {
            Held::Here(storage) => match &**storage {
                Storage::Device(weight) => Some(weight.as_ref()),
                _ => None,
            },
            Held::Away(_) => None,
        }
    }

    /// Reads `out.len()` elements from flat position `start`, row-major, as f32.
    ///
    /// # Panics
    /// When the weight is on a device.
    pub fn read(&self, start: usize, out: &mut [f32]) {
        let stored = self.storage();
        match &*stored {
            Storage::F32(values) => out.copy_from_slice(&values[start..][..out.len()]),
            Storage::Bf16(values) => {
                for (out, value) in out.iter_mut().zip(&values[start..]) {
                    *out = value.to_f32();
                }
            }
            Storage::Nf4(nf4) => nf4.read(start, out),
            Storage::Int8(int8) => read_int8(int8, start, out),
            #[cfg(feature = "cube")]
            Storage::Device(_) => unreachable!("a weight on a device is read by kernels"),
        }
        if self.compute == Compute::Bf16 && !matches!(&*stored, Storage::Bf16(_)) {
            round_to_bf16(out);
        }
    }

    /// Returns row `index` as f32: one token's embedding, for a table.
    pub fn read_row(&self, index: usize, out: &mut [f32]) {
        self.read(index * self.shape[1], out);
    }
}

fn read_int8(weight: &Int8, start: usize, out: &mut [f32]) {
    let cols = weight.shape[1];
    let (mut at, mut rest) = (start, out);
    while !rest.is_empty() {
        let row = at / cols;
        let len = rest.len().min((row + 1) * cols - at);
        let (part, tail) = rest.split_at_mut(len);
        int8::reference::dequantize_row(&weight.codes[at..at + len], weight.row_absmax[row], part);
        at += len;
        rest = tail;
    }
}

/// Rounds every element to the nearest bf16, ties to even, staying in f32.
pub fn round_to_bf16(values: &mut [f32]) {
    for value in values {
        let bits = value.to_bits();
        // NaN keeps its payload's top bits; adding could carry it into infinity.
        if !value.is_nan() {
            *value = f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000);
        }
    }
}
