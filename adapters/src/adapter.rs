//! The trained state: the factors `A` and `B` of every adapted module, on the device they are trained on.

use std::collections::HashMap;
use std::fmt::Write;

use burn::tensor::{Device, Tensor, TensorData, Transaction};
use rayon::prelude::*;
use seedcorn_kernels::device;
use seedcorn_kernels::lora_linear::{Columns, Dropout, Factors};
use seedcorn_kernels::section::Section;
use sha2::{Digest, Sha256};

use crate::lora::LoraWeights;

/// One adapted module.
#[derive(Clone, Debug)]
pub struct LoraModule {
    /// Module path, such as `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// What the low-rank product is multiplied by.
    pub scale: f32,
    /// `[rank, in]`.
    pub a: Tensor<2>,
    /// `[out, rank]`.
    pub b: Tensor<2>,
}

/// All adapted modules of a model. The order is that of the names, so it depends on nothing else.
#[derive(Clone, Debug)]
pub struct Adapter {
    modules: Vec<LoraModule>,
    places: HashMap<String, usize>,
}

/// Dropout of a whole micro-batch, from which each module gets a mask of its own.
#[derive(Clone, Copy, Debug)]
pub struct DropoutPlan {
    /// Probability that an element of an adapter's input is zeroed, in `[0, 1)`.
    pub probability: f32,
    /// Seed of the run.
    pub seed: u64,
    /// Global index of the micro-batch.
    pub micro_batch: u64,
}

impl DropoutPlan {
    /// Returns the mask of one module; nothing when the probability is zero.
    pub fn of_module(self, place: usize) -> Option<Dropout> {
        // Odd multipliers keep (seed, micro-batch, module) apart; the mask hashes the sum again.
        let key = self
            .seed
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(self.micro_batch.wrapping_mul(0xd1b5_4a32_d192_ed03))
            .wrapping_add((place as u64 + 1).wrapping_mul(0x8cb9_2ba7_2f3d_8dd7));
        (self.probability > 0.0).then_some(Dropout { probability: self.probability, key, columns: None })
    }
}

impl Adapter {
    /// Puts weights on a device, sorted by module name.
    pub fn new(mut weights: Vec<LoraWeights>, device: &Device) -> Self {
        weights.sort_by(|x, y| x.name.cmp(&y.name));
        let modules: Vec<LoraModule> = weights
            .into_iter()
            .map(|w| LoraModule {
                a: Tensor::from_data(TensorData::new(w.a, [w.rank, w.in_features]), device),
                b: Tensor::from_data(TensorData::new(w.b, [w.out_features, w.rank]), device),
                name: w.name,
                scale: w.scale,
            })
            .collect();
        let places = modules.iter().enumerate().map(|(place, module)| (module.name.clone(), place)).collect();
        Self { modules, places }
    }

    /// Returns the adapted modules, sorted by name.
    pub fn modules(&self) -> &[LoraModule] {
        &self.modules
    }

    /// Returns where a module stands in [`Adapter::modules`].
    pub fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// Returns the number of trained values.
    pub fn num_parameters(&self) -> usize {
        self.modules
            .iter()
            .map(|module| module.a.shape().num_elements() + module.b.shape().num_elements())
            .sum()
    }

    /// Returns the number of values of every trained tensor, in the order of [`Adapter::values`].
    pub fn lengths(&self) -> Vec<usize> {
        let both = |module: &LoraModule| [module.a.shape().num_elements(), module.b.shape().num_elements()];
        self.modules.iter().flat_map(both).collect()
    }

    /// Returns the shape of every trained tensor, in the order of [`Adapter::values`].
    pub fn shapes(&self) -> Vec<[usize; 2]> {
        self.modules.iter().flat_map(|module| [module.a.dims(), module.b.dims()]).collect()
    }

    /// Returns the device that the adapter is on, unless that is the CPU.
    pub fn away(&self) -> Option<Device> {
        self.modules.first().map(|module| module.a.device()).filter(|device| !device::is_cpu(device))
    }

    /// Reads the weights back from the device.
    pub fn weights(&self) -> Vec<LoraWeights> {
        self.modules.iter().map(LoraModule::weights).collect()
    }

    /// Returns every trained tensor as plain values: `A` and `B` of each module in turn.
    pub fn values(&self) -> Vec<Vec<f32>> {
        if self.away().is_none() {
            let read = |module: &LoraModule| [values(module.a.clone()), values(module.b.clone())];
            let pairs: Vec<_> = self.modules.par_iter().map(read).collect();
            return pairs.into_iter().flatten().collect();
        }
        read_back(self.modules.iter().flat_map(|module| [&module.a, &module.b]))
    }

    /// Returns the sha256 of every name, shape and value, in lower-case hexadecimal digits.
    ///
    /// Two adapters have the same digest when they hold the same bits under the same names.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (module, pair) in self.modules.iter().zip(self.values().chunks_exact(2)) {
            hash.update((module.name.len() as u64).to_le_bytes());
            hash.update(&module.name);
            for (tensor, values) in [&module.a, &module.b].into_iter().zip(pair) {
                for size in tensor.dims() {
                    hash.update((size as u64).to_le_bytes());
                }
                for chunk in values.chunks(1 << 12) {
                    let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
                    hash.update(&bytes);
                }
            }
        }
        hash.finalize().iter().fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Changes every trained tensor, in the order of [`Adapter::values`], without a copy where no one else holds
    /// it.
    ///
    /// # Panics
    /// When `change` leaves another number of tensors or values.
    pub fn change_values<T>(&mut self, change: impl FnOnce(&mut Vec<Vec<f32>>) -> T) -> T {
        let tensors = self.modules.iter_mut().flat_map(|module| [&mut module.a, &mut module.b]);
        let taken = tensors.map(|tensor| {
            let (shape, device) = (tensor.dims(), tensor.device());
            // An empty tensor stands in until the new values are there.
            let tensor = std::mem::replace(tensor, Tensor::empty([0, 0], &device));
            (values(tensor), (shape, device))
        });
        let (mut new, places): (Vec<_>, Vec<_>) = taken.unzip();
        let result = change(&mut new);
        assert_eq!(new.len(), places.len(), "two tensors a module");
        let tensors = self.modules.iter_mut().flat_map(|module| [&mut module.a, &mut module.b]);
        for (tensor, (values, (shape, device))) in tensors.zip(new.into_iter().zip(places)) {
            *tensor = Tensor::from_data(TensorData::new(values, shape), &device);
        }
        result
    }

    /// Changes every trained tensor where it is, in the order of [`Adapter::values`].
    pub fn change_tensors(&mut self, mut change: impl FnMut(Tensor<2>) -> Tensor<2>) {
        for tensor in self.modules.iter_mut().flat_map(|module| [&mut module.a, &mut module.b]) {
            *tensor = change(tensor.clone());
        }
    }

    /// Replaces every trained tensor, in the order of [`Adapter::values`].
    ///
    /// # Panics
    /// When there are not as many tensors and values as the adapter has.
    pub fn set_values(&mut self, new: Vec<Vec<f32>>) {
        self.change_values(|values| *values = new);
    }
}

impl LoraModule {
    /// Returns the factors of a part of the module as constants: the forward pass without gradients.
    ///
    /// A part with some rows takes all of `A` and those rows of `B`; a part with some columns takes those of `A`, and all of
    /// `B`, and gives an addend of the output.
    pub fn factors(&self, part: Option<&Section>, dropout: Option<Dropout>) -> Factors {
        let (mut a, mut b) = (self.a.clone(), self.b.clone());
        let mut dropout = dropout;
        match part {
            None => {}
            Some(Section::Rows(rows)) => b = b.narrow(0, rows.start, rows.len()),
            Some(Section::Columns(columns)) => {
                let of = a.dims()[1];
                a = a.narrow(1, columns.start, columns.len());
                let columns = Columns { first: columns.start, count: columns.len(), of };
                dropout = dropout.map(|dropout| Dropout { columns: Some(columns), ..dropout });
            }
        }
        Factors { a, b, scale: self.scale, dropout }
    }

    /// Returns them as leaves of a new autodiff graph.
    pub fn tracked_factors(&self, part: Option<&Section>, dropout: Option<Dropout>) -> Factors {
        let Factors { a, b, scale, dropout } = self.factors(part, dropout);
        let leaf = |tensor: Tensor<2>| tensor.autodiff().require_grad();
        Factors { a: leaf(a), b: leaf(b), scale, dropout }
    }

    fn weights(&self) -> LoraWeights {
        let ([rank, in_features], [out_features, _]) = (self.a.dims(), self.b.dims());
        let (a, b) = (values(self.a.clone()), values(self.b.clone()));
        LoraWeights { name: self.name.clone(), rank, scale: self.scale, a, b, in_features, out_features }
    }
}

/// Reads tensors back from a device, on the thread whose queue they are made in: some at a time, since each takes room
/// for its transfer.
pub fn read_back<'a>(tensors: impl Iterator<Item = &'a Tensor<2>>) -> Vec<Vec<f32>> {
    const AT_ONCE: usize = 16;
    let tensors: Vec<&Tensor<2>> = tensors.collect();
    let read = |some: &[&Tensor<2>]| {
        let reads = some.iter().map(|tensor| (*tensor).clone());
        reads.fold(Transaction::default(), Transaction::register).execute()
    };
    let values = |data: TensorData| data.try_into_vec().expect("factors and their moments are f32");
    tensors.chunks(AT_ONCE).flat_map(read).map(values).collect()
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("factors are f32")
}
