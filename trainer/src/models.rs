//! The frozen model as the ranks of a run hold it: whole and shared by threads, or a slice each.

use burn::tensor::Device;

use crate::base::{Base, BaseError};
use crate::model::{Decoder, Pass, Precision, Slice};
use crate::parallel::{Mesh, ParallelError, Ranks, World};
use crate::train::TrainError;

/// The decoders of the ranks of this process.
#[derive(Debug)]
pub struct Models {
    mesh: Mesh,
    /// By the index of their slice, from `first` on.
    decoders: Vec<Decoder>,
    first: usize,
}

impl Models {
    /// Reads the weights that the ranks of this process need, one slice after the other.
    ///
    /// # Errors
    /// [`BaseError::Load`]
    pub fn load(
        world: &World,
        base: &Base,
        precision: Precision,
        device: &Device,
    ) -> Result<Self, BaseError> {
        let mesh = world.mesh();
        let slices = match world {
            World::Threads { .. } => 0..mesh.tensor,
            World::Processes { engine, .. } => {
                let own = mesh.tensor_index(engine.rank());
                own..own + 1
            }
        };
        let first = slices.start;
        let load = |index| base.load_slice(precision, Slice { index, of: mesh.tensor }, device);
        Ok(Self { mesh, decoders: slices.map(load).collect::<Result<_, _>>()?, first })
    }

    /// Returns what a rank of this process holds.
    ///
    /// # Panics
    /// When the rank is of another process.
    pub fn of(&self, ranks: &Ranks) -> &Decoder {
        &self.decoders[self.mesh.tensor_index(ranks.rank()) - self.first]
    }

    /// Lets the ranks that hold the first copy of the model compute something together, in the name of step `step`, while
    /// the others do nothing. Every process makes the call; those without such a rank get nothing.
    ///
    /// # Errors
    /// [`TrainError::Parallel`]
    pub fn first_copy<T: Send>(
        &self,
        world: &World,
        step: u64,
        body: impl Fn(Pass) -> Result<T, ParallelError> + Sync,
    ) -> Result<Option<T>, TrainError> {
        if self.mesh.tensor == 1 {
            // On all threads: no other rank is busy.
            return Ok(world.leads().then(|| body(self.decoders[0].alone())).transpose()?);
        }
        world.run(|ranks| {
            let takes_part = ranks.data_index() == 0;
            Ok(takes_part.then(|| body(self.of(ranks).with(ranks.tensor(step)))).transpose()?)
        })
    }
}
