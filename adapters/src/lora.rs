//! LoRA as plain host data: what was asked, which rank and scale each layer gets, and the two factors.
//!
//! `y = W x + scale * B (A x)`, A `[rank, in]`, B `[out, rank]`, scale `alpha / rank`, or
//! `alpha / sqrt(rank)` with rank stabilisation.
//!
//! Source: Hu et al. 2021 (<https://arxiv.org/abs/2106.09685>); Kalajdzievski 2023, rsLoRA
//! (<https://arxiv.org/abs/2312.03732>).

use std::collections::BTreeMap;

use crate::error::AdapterError;
use crate::init;
use crate::target::{LinearModule, Targets, end_match, select};

/// Largest rank that is accepted.
pub const MAX_RANK: usize = 1 << 16;

/// What the recipe or an adapter's own configuration asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Rank of the update, where no pattern says otherwise.
    pub rank: usize,
    /// Numerator of the scale, where no pattern says otherwise.
    pub alpha: f64,
    /// Probability with which an element of the adapter's input is zeroed in training.
    pub dropout: f32,
    /// Divide alpha by the root of the rank.
    pub rslora: bool,
    /// Layers to adapt.
    pub targets: Targets,
    /// Layers to leave out, by the rules of a list of targets.
    pub exclude: Vec<String>,
    /// Ranks by pattern on the end of module paths.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas by pattern on the end of module paths.
    pub alpha_pattern: BTreeMap<String, f64>,
}

/// A layer that gets an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedModule {
    /// The layer.
    pub module: LinearModule,
    /// Its rank.
    pub rank: usize,
    /// Its scale.
    pub scale: f32,
}

/// The adapter of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraWeights {
    /// Module path, such as `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// Rank of the update.
    pub rank: usize,
    /// Factor on `B A`.
    pub scale: f32,
    /// `[rank, in]`, row-major.
    pub a: Vec<f32>,
    /// `[out, rank]`, row-major.
    pub b: Vec<f32>,
    /// Width of the input.
    pub in_features: usize,
    /// Width of the output.
    pub out_features: usize,
}

impl LoraConfig {
    /// Checks the numbers that need no model.
    pub fn validate(&self) -> Result<(), AdapterError> {
        let bad = |key, value: String, expected| Err(AdapterError::BadValue { key, value, expected });
        for (key, rank) in std::iter::once(("rank", self.rank))
            .chain(self.rank_pattern.values().map(|rank| ("rank_pattern", *rank)))
        {
            if !(1..=MAX_RANK).contains(&rank) {
                return bad(key, rank.to_string(), "1 to 65536");
            }
        }
        for (key, alpha) in std::iter::once(("alpha", self.alpha))
            .chain(self.alpha_pattern.values().map(|alpha| ("alpha_pattern", *alpha)))
        {
            if !(alpha > 0.0 && (alpha as f32).is_finite() && alpha as f32 > 0.0) {
                return bad(key, alpha.to_string(), "a finite number above 0");
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return bad("dropout", self.dropout.to_string(), "at least 0 and below 1");
        }
        Ok(())
    }

    /// Returns rank and scale of one layer.
    pub fn scale_for(&self, name: &str) -> Result<(usize, f32), AdapterError> {
        let rank = lookup("rank_pattern", &self.rank_pattern, name)?.unwrap_or(self.rank);
        let alpha = lookup("alpha_pattern", &self.alpha_pattern, name)?.unwrap_or(self.alpha);
        Ok((rank, scale(alpha, rank, self.rslora)))
    }

    /// Selects the layers of a model and gives each its rank and scale, in the order of `modules`.
    ///
    /// # Errors
    /// What [`LoraConfig::validate`] and [`select`] refuse; a pattern that matches none of the selected
    /// layers; two patterns that give one layer different values.
    pub fn plan(&self, modules: &[LinearModule]) -> Result<Vec<PlannedModule>, AdapterError> {
        self.validate()?;
        let selected = select(&self.targets, &self.exclude, modules)?;
        let rank_keys = self.rank_pattern.keys().map(|key| ("rank_pattern", key));
        let alpha_keys = self.alpha_pattern.keys().map(|key| ("alpha_pattern", key));
        for (list, pattern) in rank_keys.chain(alpha_keys) {
            let regex = end_match(pattern)?;
            if !selected.iter().any(|module| regex.is_match(&module.name)) {
                return Err(AdapterError::UnusedPattern { list, pattern: pattern.clone() });
            }
        }
        selected
            .into_iter()
            .map(|module| {
                let (rank, scale) = self.scale_for(&module.name)?;
                Ok(PlannedModule { module: module.clone(), rank, scale })
            })
            .collect()
    }
}

fn scale(alpha: f64, rank: usize, rslora: bool) -> f32 {
    let rank = rank as f64;
    (alpha / if rslora { rank.sqrt() } else { rank }) as f32
}

/// Finds the value of the pattern that matches a layer. PEFT takes the first in the order of the file, and
/// sorts when it saves; a case where that order matters is an error here.
fn lookup<T: Copy + PartialEq>(
    list: &'static str,
    patterns: &BTreeMap<String, T>,
    name: &str,
) -> Result<Option<T>, AdapterError> {
    let mut found: Option<(&String, T)> = None;
    for (pattern, value) in patterns {
        if !end_match(pattern)?.is_match(name) {
            continue;
        }
        match found {
            Some((first, other)) if other != *value => {
                return Err(AdapterError::AmbiguousPattern {
                    list,
                    first: first.clone(),
                    second: pattern.clone(),
                    module: name.to_owned(),
                });
            }
            _ => found = Some((pattern, *value)),
        }
    }
    Ok(found.map(|(_, value)| value))
}

impl LoraWeights {
    /// Draws fresh weights: A uniform, B zero, so that the adapted model starts as the base.
    #[must_use]
    pub fn init(planned: &PlannedModule, seed: u64) -> Self {
        let LinearModule { name, in_features, out_features } = &planned.module;
        Self {
            name: name.clone(),
            rank: planned.rank,
            scale: planned.scale,
            a: init::lora_a(seed, name, planned.rank, *in_features),
            b: vec![0.0; out_features * planned.rank],
            in_features: *in_features,
            out_features: *out_features,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LoraConfig {
        LoraConfig {
            rank: 4,
            alpha: 8.0,
            dropout: 0.0,
            rslora: false,
            targets: Targets::AllLinear,
            exclude: Vec::new(),
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
        }
    }

    fn modules() -> Vec<LinearModule> {
        ["model.layers.0.q_proj", "model.layers.1.q_proj", "model.layers.1.up_proj"]
            .map(|name| LinearModule { name: name.to_owned(), in_features: 6, out_features: 3 })
            .to_vec()
    }

    #[test]
    fn scales() {
        assert_eq!(config().scale_for("x.q_proj").unwrap(), (4, 2.0));
        assert_eq!(LoraConfig { rslora: true, ..config() }.scale_for("x.q_proj").unwrap(), (4, 4.0));
    }

    #[test]
    fn patterns_match_the_end_of_a_path() {
        let mut cfg = config();
        cfg.rank_pattern.insert("q_proj".to_owned(), 2);
        cfg.alpha_pattern.insert(r"layers\.1\..*".to_owned(), 16.0);
        let plan: Vec<_> = cfg.plan(&modules()).unwrap().iter().map(|p| (p.rank, p.scale)).collect();
        assert_eq!(plan, [(2, 4.0), (2, 8.0), (4, 4.0)]);
        assert_eq!(cfg.scale_for("xq_proj").unwrap(), (4, 2.0), "only after a dot");
        cfg.rank_pattern.insert("v_proj".to_owned(), 2);
        assert_eq!(
            cfg.plan(&modules()).unwrap_err().to_string(),
            "`rank_pattern` entry `v_proj` matches none of the adapted layers"
        );
    }

    #[test]
    fn patterns_that_disagree_are_an_error() {
        let mut cfg = config();
        cfg.rank_pattern.extend([("q_proj".to_owned(), 2), ("0.q_proj".to_owned(), 8)]);
        let fault = cfg.plan(&modules()).unwrap_err().to_string();
        assert!(fault.contains("`0.q_proj` and `q_proj` both match `model.layers.0.q_proj`"), "{fault}");
        cfg.rank_pattern.insert("0.q_proj".to_owned(), 2);
        assert_eq!(cfg.plan(&modules()).unwrap().len(), 3);
    }

    #[test]
    fn numbers_are_checked() {
        let fault = |cfg: LoraConfig| cfg.validate().unwrap_err().to_string();
        assert_eq!(fault(LoraConfig { rank: 0, ..config() }), "adapter `rank` is 0, expected 1 to 65536");
        assert_eq!(
            fault(LoraConfig { alpha: f64::NAN, ..config() }),
            "adapter `alpha` is NaN, expected a finite number above 0"
        );
        assert_eq!(
            fault(LoraConfig { dropout: 1.0, ..config() }),
            "adapter `dropout` is 1, expected at least 0 and below 1"
        );
    }

    #[test]
    fn fresh_weights_change_nothing() {
        let plan = config().plan(&modules()).unwrap();
        let weights = LoraWeights::init(&plan[0], 7);
        assert_eq!((weights.a.len(), weights.b.len()), (4 * 6, 3 * 4));
        assert!(weights.b.iter().all(|b| *b == 0.0));
    }
}
