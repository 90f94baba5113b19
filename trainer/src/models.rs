//! The frozen model as the ranks of this process hold it.

use burn::tensor::Device;

use crate::base::BaseError;
use crate::build::{Prepared, precision};
use crate::model::{Cut, Decoder, Model, Slice};
use crate::parallel::{Mesh, Ranks, World};
use crate::train::TrainError;

/// A decoder for each rank of this process, or one that they share.
#[derive(Debug)]
pub struct Models {
    /// The first rank of this process.
    first: usize,
    mesh: Mesh,
    /// One a rank, in their order, where each keeps parts of its own; otherwise one a slice of the model.
    decoders: Vec<Decoder>,
    /// Whether each rank keeps parts of its own.
    apart: bool,
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
        Ok(Self { first: local.start, mesh, decoders: decoders.collect::<Result<_, _>>()?, apart })
    }

    /// Returns the model of a rank of this process.
    ///
    /// # Panics
    /// When the rank is of another process.
    pub fn of<'a>(&'a self, ranks: &'a Ranks<'a>) -> Model<'a> {
        let place = ranks.rank() - self.first;
        let place = if self.apart { place } else { place % self.decoders.len() };
        Model::new(&self.decoders[place], ranks)
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
        match self.decoders.as_slice() {
            _ if self.apart || self.mesh.tensor > 1 => world.run(|ranks| body(self.of(ranks))).map(Some),
            [shared, ..] if world.leads() => body(Model::from(shared)).map(Some),
            _ => Ok(None),
        }
    }
}
