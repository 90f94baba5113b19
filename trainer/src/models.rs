//! The frozen model as the ranks of this process hold it.

use burn::tensor::Device;

use crate::base::BaseError;
use crate::build::{Prepared, precision};
use crate::model::{Cut, Decoder, Model, Slice};
use crate::parallel::{Ranks, World};
use crate::train::TrainError;

/// A decoder for each rank of this process, or one that they share.
#[derive(Debug)]
pub struct Models {
    /// The first rank of this process.
    first: usize,
    /// One a rank, in their order, where each keeps parts of its own; otherwise one a slice of the model.
    decoders: Vec<Decoder>,
}

impl Models {
    /// Reads the weights.
    ///
    /// # Errors
    /// [`BaseError::Load`]
    pub fn load(prepared: &Prepared, world: &World, device: &Device) -> Result<Self, BaseError> {
        let (local, mesh) = (world.local_ranks(), world.mesh());
        let apart = prepared.recipe.parallel.shard_base && mesh.data > 1;
        let cut = |rank| apart.then(|| Cut { index: mesh.data_index(rank), count: mesh.data });
        // Ranks with the same slice share it, unless each keeps its own parts of it.
        let loaded = local.clone().take(if apart { usize::MAX } else { mesh.tensor });
        let precision = precision(&prepared.recipe.model);
        let decoders = loaded.map(|rank| {
            let slice = Slice { index: mesh.tensor_index(rank), of: mesh.tensor };
            prepared.base.load_part(precision, device, slice, cut(rank))
        });
        Ok(Self { first: local.start, decoders: decoders.collect::<Result<_, _>>()? })
    }

    /// Returns the model of a rank of this process.
    ///
    /// # Panics
    /// When the rank is of another process.
    pub fn of<'a>(&'a self, ranks: &'a Ranks<'a>) -> Model<'a> {
        // The slices of a model are neighbours, so the ranks that share them come round again.
        Model::new(&self.decoders[(ranks.rank() - self.first) % self.decoders.len()], ranks)
    }

    /// Computes with the model outside of training and returns what the first rank of this process gets; nothing where
    /// another process does it. Every process calls this with the same `body`: ranks that hold a model together compute
    /// the same.
    ///
    /// # Errors
    /// What the ranks have in common, or the rank that failed.
    pub fn ask<T: Send>(
        &self,
        world: &World,
        body: impl Fn(Model) -> Result<T, TrainError> + Sync,
    ) -> Result<Option<T>, TrainError> {
        let first = &self.decoders[0];
        if !first.is_whole() {
            return world.run(|ranks| body(self.of(ranks))).map(Some);
        }
        world.leads().then(|| body(Model::from(first))).transpose()
    }
}
