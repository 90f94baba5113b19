//! What the loop reads besides tensors.

use super::CheckpointError;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The position of a run after an optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Optimizer steps done.
    pub step: u64,
    /// Tokens trained so far.
    pub trained_tokens: u64,
    /// Position in the data, in the words of the data's own reader.
    pub cursor: serde_json::Value,
    /// Lowest held-out loss so far.
    #[serde(with = "exact")]
    pub best_eval_loss: Option<f64>,
    /// Digest of the recipe.
    pub recipe_digest: String,
    /// Hash of the inputs as the lock states them.
    pub lock_digest: String,
}

impl State {
    /// Writes the state as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("numbers, strings and JSON values can be written")
    }

    /// Reads the state that `path` held.
    pub fn from_json(bytes: &[u8], path: &Path) -> Result<State, CheckpointError> {
        serde_json::from_slice(bytes)
            .map_err(|error| CheckpointError::State { path: path.to_owned(), message: error.to_string() })
    }
}

/// A float as text: JSON readers may round numbers, the standard library's parser does not.
mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(value: &Option<f64>, out: S) -> Result<S::Ok, S::Error> {
        value.map(|value| format!("{value:?}")).serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<f64>, D::Error> {
        let text = Option::<String>::deserialize(input)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_every_bit() {
        for loss in [None, Some(4.222_246), Some(0.1 + 0.2), Some(f64::MIN_POSITIVE), Some(1.0 / 3.0)] {
            let state = State {
                step: 3,
                trained_tokens: u64::MAX,
                cursor: serde_json::json!({"epoch": 1, "next": [1, 2]}),
                best_eval_loss: loss,
                recipe_digest: "a".to_owned(),
                lock_digest: "b".to_owned(),
            };
            let again = State::from_json(&state.to_json(), Path::new("state.json")).expect("our own file");
            assert_eq!(again, state);
            assert_eq!(again.best_eval_loss.map(f64::to_bits), loss.map(f64::to_bits));
        }
    }

    #[test]
    fn refuses_other_files() {
        for text in ["", "{}", "[1]", "{\"step\": -1}", "\u{0}"] {
            let error = State::from_json(text.as_bytes(), Path::new("x/state.json")).expect_err("no state");
            assert!(error.to_string().starts_with("`x/state.json` is not a state of a run: "), "{error}");
        }
    }
}
