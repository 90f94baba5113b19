//! Between the loop's state and the files of a checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use seedcorn_adapters::Adapter;
use sha2::{Digest, Sha256};

use crate::checkpoint::{CheckpointError, Resumed, State, Store, bytes};
use crate::optimizer::Optimizer;
use crate::progress::Progress;

const TENSORS: &str = "tensors.safetensors";

/// Where and under which identity a run saves its states.
#[derive(Debug)]
pub struct Checkpoints {
    /// The folder of checkpoints.
    pub store: Store,
    /// The recipe's canonical TOML.
    pub recipe: String,
    /// Digest of the recipe.
    pub recipe_digest: String,
    /// Digest of all inputs, as the lock states them.
    pub lock_digest: String,
}

impl Checkpoints {
    /// Saves everything that the loop reads.
    pub fn save(
        &self,
        progress: &Progress,
        adapter: &Adapter,
        optimizer: &Optimizer,
    ) -> Result<(), CheckpointError> {
        let state = state(progress, &self.recipe_digest, &self.lock_digest);
        let tensors = serialize(adapter, optimizer);
        self.store.save(&state, &self.recipe, vec![(TENSORS, bytes(tensors))])?;
        Ok(())
    }
}

fn state(progress: &Progress, recipe_digest: &str, lock_digest: &str) -> State {
    State {
        step: progress.step,
        trained_tokens: progress.trained_tokens,
        cursor: serde_json::to_value(progress.cursor).expect("a cursor is plain numbers"),
        best_eval_loss: progress.best_eval_loss,
        recipe_digest: recipe_digest.to_owned(),
        lock_digest: lock_digest.to_owned(),
    }
}

/// Puts a saved state back: the adapter, the optimizer's moments and the position.
///
/// # Errors
/// [`CheckpointError::State`] when the tensors are not those of this adapter.
pub fn restore(
    resumed: &Resumed,
    adapter: &mut Adapter,
    optimizer: &mut Optimizer,
) -> Result<Progress, CheckpointError> {
    let file = resumed.saved.read(TENSORS)?;
    put_back(&resumed.state, &file, &resumed.saved.folder.join(TENSORS), adapter, optimizer)
}

/// Writes what [`restore`] has put back as one message, for ranks that see no checkpoint.
pub fn pack(progress: &Progress, adapter: &Adapter, optimizer: &Optimizer) -> Vec<u8> {
    let state = state(progress, "", "").to_json();
    let mut message = (state.len() as u64).to_ne_bytes().to_vec();
    message.extend(state);
    message.extend(serialize(adapter, optimizer));
    message
}

/// Reads what [`pack`] has written.
///
/// # Errors
/// As [`restore`].
pub fn unpack(
    message: &[u8],
    adapter: &mut Adapter,
    optimizer: &mut Optimizer,
) -> Result<Progress, CheckpointError> {
    let path = Path::new("the state of rank 0");
    let short = || CheckpointError::State { path: path.to_owned(), message: "it ends early".to_owned() };
    let (length, rest) = message.split_first_chunk::<8>().ok_or_else(short)?;
    let length = u64::from_ne_bytes(*length) as usize;
    let (state, tensors) = rest.split_at_checked(length).ok_or_else(short)?;
    put_back(&State::from_json(state, path)?, tensors, path, adapter, optimizer)
}

fn put_back(
    state: &State,
    file: &[u8],
    path: &Path,
    adapter: &mut Adapter,
    optimizer: &mut Optimizer,
) -> Result<Progress, CheckpointError> {
    let fault = |message: String| CheckpointError::State { path: path.to_owned(), message };
    let tensors = SafeTensors::deserialize(file).map_err(|error| fault(error.to_string()))?;
    let mut found = [Vec::new(), Vec::new(), Vec::new()];
    for (index, length) in adapter.lengths().into_iter().enumerate() {
        for (group, found) in GROUPS.iter().zip(&mut found) {
            let name = name(adapter, group, index);
            let view = tensors.tensor(&name).map_err(|error| fault(format!("`{name}`: {error}")))?;
            if view.dtype() != Dtype::F32 || view.data().len() != length * 4 {
                let got = view.data().len();
                return Err(fault(format!("`{name}` holds {got} bytes, expected {}", length * 4)));
            }
            let read = |chunk: &[u8]| f32::from_le_bytes(chunk.try_into().expect("chunks of four"));
            found.push(view.data().chunks_exact(4).map(read).collect());
        }
    }
    let cursor = serde_json::from_value(state.cursor.clone()).map_err(|error| fault(error.to_string()))?;
    let [values, first, second] = found;
    adapter.set_values(values);
    optimizer.restore(state.step, [first, second]);
    let State { step, trained_tokens, best_eval_loss, .. } = *state;
    Ok(Progress { step, trained_tokens, cursor, best_eval_loss })
}

/// Hashes what every rank must hold alike: the adapter and the moments.
pub fn digest(adapter: &Adapter, optimizer: &Optimizer) -> [u8; 32] {
    let [first, second] = optimizer.moments();
    let values = adapter.values();
    let tensors = values.iter().chain(&*first).chain(&*second);
    tensors
        .fold(Sha256::new(), |hash, values| hash.chain_update(bytemuck::cast_slice(values)))
        .finalize()
        .into()
}

/// Factors, first moments, second moments.
const GROUPS: [&str; 3] = ["adapter", "exp_avg", "exp_avg_sq"];

fn name(adapter: &Adapter, group: &str, index: usize) -> String {
    let factor = if index.is_multiple_of(2) { "lora_A" } else { "lora_B" };
    format!("{group}.{}.{factor}", adapter.modules()[index / 2].name)
}

fn serialize(adapter: &Adapter, optimizer: &Optimizer) -> Vec<u8> {
    let values = adapter.values();
    let [first, second] = optimizer.moments();
    let mut tensors = BTreeMap::new();
    for (group, list) in GROUPS.iter().zip([values.as_slice(), &first, &second]) {
        for (index, values) in list.iter().enumerate() {
            let view = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values));
            tensors.insert(name(adapter, group, index), view.expect("four bytes a value"));
        }
    }
    safetensors::serialize(tensors, None).expect("names and sizes were made here")
}
