//! Keeps the samples of a step that broke a run.

use std::path::{Path, PathBuf};

use seedcorn_data::{IGNORE, MicroBatch};

/// Writes the step's samples as `bad/step-000123.jsonl` in the format `tokens`, one line a sample, so that
/// they can be looked at and trained alone. Returns nothing if they could not be written.
pub(crate) fn save(output: &Path, step: u64, batches: &[MicroBatch]) -> Option<PathBuf> {
    let path = output.join("bad").join(format!("step-{step:06}.jsonl"));
    let lines: String = batches.iter().flat_map(samples).map(|line| line + "\n").collect();
    fs_err::create_dir_all(path.parent()?).ok()?;
    fs_err::write(&path, lines).ok()?;
    Some(path)
}

fn samples(batch: &MicroBatch) -> impl Iterator<Item = String> + '_ {
    batch.segments.windows(2).map(|bounds| {
        let range = bounds[0] as usize..bounds[1] as usize;
        let targets = &batch.targets[range.clone()];
        // Targets are labels moved one to the left; the first token's label is never used.
        let labels: Vec<i32> =
            std::iter::once(IGNORE).chain(targets.iter().copied()).take(targets.len()).collect();
        serde_json::json!({ "input_ids": &batch.input_ids[range], "labels": labels }).to_string()
    })
}

#[cfg(test)]
mod tests {
    use seedcorn_data::{MicroBatch, Sample};

    #[test]
    fn samples_come_back_as_they_were() {
        let sample = |ids: &[u32], labels: &[i32]| Sample {
            input_ids: ids.to_vec(),
            labels: labels.to_vec(),
            ..Sample::default()
        };
        let (one, two) = (sample(&[1, 2, 3], &[-100, -100, 3]), sample(&[4, 5], &[-100, 5]));
        let batch = MicroBatch::from_samples(0, &[&one, &two]);
        let folder = tempfile::tempdir().unwrap();
        let path = super::save(folder.path(), 7, &[batch]).unwrap();
        let text = fs_err::read_to_string(path).unwrap();
        assert_eq!(
            text,
            "{\"input_ids\":[1,2,3],\"labels\":[-100,-100,3]}\n{\"input_ids\":[4,5],\"labels\":[-100,5]}\n"
        );
    }
}
