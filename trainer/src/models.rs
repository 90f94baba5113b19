//! The frozen model as the ranks of this process hold it.

use burn::tensor::Device;

use crate::base::BaseError;
use crate::build::{Prepared, precision};
use crate::model::{Cut, Decoder, Model};
use crate::parallel::{Ranks, World};
use crate::train::TrainError;

/// A decoder for each rank of this process, or one that they share.
#[derive(Debug)]
pub struct Models {
    /// The first rank of this process.
    first: usize,
    /// One a rank, in their order; or one alone.
    decoders: Vec<Decoder>,
    /// Whether ranks of other processes are needed to compute with it.
    together: bool,
}

impl Models {
    /// Reads the weights.
    ///
    /// # Errors
    /// [`BaseError::Load`]
    pub fn load(prepared: &Prepared, world: &World, device: &Device) -> Result<Self, BaseError> {
        let (local, count) = (world.local_ranks(), world.size());
        let together = prepared.recipe.parallel.parts() > 1;
        let cuts = if together {
            local.clone().map(|index| Some(Cut { index, count })).collect()
        } else {
            vec![None]
        };
        let precision = precision(&prepared.recipe.model);
        let decoders = cuts.into_iter().map(|cut| prepared.base.load_part(precision, device, cut));
        Ok(Self { first: local.start, decoders: decoders.collect::<Result<_, _>>()?, together })
    }

    /// Returns the model of a rank of this process.
    ///
    /// # Panics
    /// When the rank is of another process.
    pub fn of<'a>(&'a self, ranks: &'a Ranks<'a>) -> Model<'a> {
        let place = if self.together { ranks.rank() - self.first } else { 0 };
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
            _ if self.together => world.run(|ranks| body(self.of(ranks))).map(Some),
            [shared, ..] if world.leads() => body(Model::from(shared)).map(Some),
            _ => Ok(None),
        }
    }
}
