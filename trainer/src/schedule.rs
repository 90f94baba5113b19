//! The learning rate of each optimizer step.

use crate::recipe::{self, ScheduleKind};
use std::f64::consts::PI;

/// A warm-up that is longer than the run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`schedule.warmup_steps` ({warmup_steps}) is more than the {total_steps} steps of the run")]
pub struct WarmUpTooLong {
    /// Steps of the warm-up.
    pub warmup_steps: u64,
    /// Steps of the run.
    pub total_steps: u64,
}

/// Learning rate over the steps `k = 1..=N` of a run, with `w` steps of warm-up:
/// `lr * k / w` for `k <= w`, then a curve of `t = (k - w) / (N - w)` from `lr` to `lr * min_ratio`.
///
/// # Numerics
/// Computed in f64 from `k` alone, so that a resumed run has the same rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    kind: ScheduleKind,
    lr: f64,
    warmup_steps: u64,
    min_ratio: f64,
    total_steps: u64,
}

impl Schedule {
    /// Builds the schedule of a run of `total_steps` steps.
    ///
    /// # Errors
    /// [`WarmUpTooLong`], which a recipe in epochs can only meet once the data has been counted.
    pub fn new(config: &recipe::Schedule, lr: f64, total_steps: u64) -> Result<Schedule, WarmUpTooLong> {
        let warmup_steps = config.warmup_steps;
        if warmup_steps > total_steps {
            return Err(WarmUpTooLong { warmup_steps, total_steps });
        }
        let min_ratio = config.min_ratio.unwrap_or(0.0);
        Ok(Schedule { kind: config.kind, lr, warmup_steps, min_ratio, total_steps })
    }

    /// Returns the learning rate of step `k`, counted from 1; steps past the end keep the last rate.
    pub fn lr(&self, step: u64) -> f64 {
        let step = step.clamp(1, self.total_steps.max(1));
        if step <= self.warmup_steps {
            return self.lr * (step as f64 / self.warmup_steps as f64);
        }
        // Here `step > warmup_steps`, so that the run is longer than its warm-up.
        let t = (step - self.warmup_steps) as f64 / (self.total_steps - self.warmup_steps) as f64;
        let share = match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Linear => 1.0 - t,
            ScheduleKind::Cosine => 0.5 * (1.0 + (PI * t).cos()),
        };
        match self.kind {
            ScheduleKind::Constant => self.lr,
            _ => self.lr * (self.min_ratio + (1.0 - self.min_ratio) * share),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind, warmup_steps: u64, min_ratio: f64, total: u64) -> Schedule {
        let config = recipe::Schedule { kind, warmup_steps, min_ratio: Some(min_ratio) };
        Schedule::new(&config, 1e-3, total).expect("valid")
    }

    fn rates(schedule: Schedule, steps: &[u64]) -> Vec<f64> {
        steps.iter().map(|step| schedule.lr(*step)).collect()
    }

    fn assert_near(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() <= 1e-15, "{got} is not {expected}");
        }
    }

    #[test]
    fn warms_up_to_lr_at_w() {
        for kind in [ScheduleKind::Constant, ScheduleKind::Linear, ScheduleKind::Cosine] {
            let rates = rates(schedule(kind, 4, 0.0, 12), &[1, 2, 3, 4]);
            assert_near(&rates, &[0.25e-3, 0.5e-3, 0.75e-3, 1e-3]);
        }
    }

    #[test]
    fn curves_match_hand_values() {
        let steps = [5, 8, 10, 12];
        assert_near(&rates(schedule(ScheduleKind::Constant, 4, 0.0, 12), &steps), &[1e-3; 4]);
        // t = 1/8, 1/2, 3/4, 1.
        let linear = rates(schedule(ScheduleKind::Linear, 4, 0.0, 12), &steps);
        assert_near(&linear, &[0.875e-3, 0.5e-3, 0.25e-3, 0.0]);
        // 0.1 + 0.9 (1 - t).
        let linear = rates(schedule(ScheduleKind::Linear, 4, 0.1, 12), &steps);
        assert_near(&linear, &[0.8875e-3, 0.55e-3, 0.325e-3, 0.1e-3]);
        // 0.5 (1 + cos(pi t)): cos(pi/8) = 0.923879532511287, cos(3 pi/4) = -sqrt(1/2).
        let cosine = rates(schedule(ScheduleKind::Cosine, 4, 0.0, 12), &steps);
        assert_near(&cosine, &[0.961_939_766_255_643_3e-3, 0.5e-3, 0.146_446_609_406_726_2e-3, 0.0]);
        let cosine = rates(schedule(ScheduleKind::Cosine, 0, 0.2, 4), &[1, 2, 3, 4]);
        // 0.2 + 0.8 * 0.5 (1 + cos(pi/4)) = 0.6 + 0.4 sqrt(1/2).
        let half_root = std::f64::consts::FRAC_1_SQRT_2 * 0.4e-3;
        assert_near(&cosine, &[0.6e-3 + half_root, 0.6e-3, 0.6e-3 - half_root, 0.2e-3]);
    }

    #[test]
    fn edges_are_defined() {
        let all_warm = schedule(ScheduleKind::Cosine, 3, 0.0, 3);
        assert_near(&rates(all_warm, &[1, 3, 4]), &[1e-3 / 3.0, 1e-3, 1e-3]);
        assert_near(&rates(schedule(ScheduleKind::Linear, 0, 0.5, 1), &[0, 1, 2]), &[0.5e-3; 3]);
        let config = recipe::Schedule { kind: ScheduleKind::Linear, warmup_steps: 5, min_ratio: None };
        let error = Schedule::new(&config, 1.0, 4).expect_err("too long");
        assert_eq!(error.to_string(), "`schedule.warmup_steps` (5) is more than the 4 steps of the run");
    }
}
