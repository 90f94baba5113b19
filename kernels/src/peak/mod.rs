//! The most that this machine computes and moves: what the speed of an op is compared with.
//!
//! Each loop does nothing but one instruction on registers, or one pass over memory. `cargo bench --bench peak`
//! times them on one thread and on all.

mod x86;

use crate::isa::{Tier, tiered};

/// Turns of [`multiply_add`] up to which its sums are exact in every tier.
pub const MAX_TURNS: u32 = 1 << 19;

/// Multiplies ones and adds them up in registers, `turns` times over, and returns the FLOPs (two for each
/// product that was added); `None` for the portable tier, which has no instruction of its own.
///
/// The products are counted by the sums themselves, so no compiler can leave any of them out.
///
/// # Panics
/// If the processor lacks the tier, or `turns` is above [`MAX_TURNS`].
pub fn multiply_add(tier: Tier, turns: u32) -> Option<u64> {
    assert!(tier.is_available(), "tier `{}` asked for without a check", tier.name());
    assert!(turns <= MAX_TURNS, "{turns} turns, at most {MAX_TURNS}");
    let sums = x86::multiply_add(tier, turns)?;
    Some(2 * sums.iter().map(|&sum| sum as u64).sum::<u64>())
}

tiered! {
    /// Reads every element once and returns all of them combined by exclusive or.
    pub fn read(data: &[u64]) -> u64 = read_body;
}

#[inline(always)]
fn read_body<const FMA: bool, const WIDTH: usize>(data: &[u64]) -> u64 {
    data.iter().fold(0, |all, value| all ^ value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flops_are_counted_by_the_sums() {
        for tier in Tier::available() {
            let one = multiply_add(tier, 1);
            assert_eq!(one.is_none(), tier == Tier::Portable, "{tier:?}");
            let Some(one) = one else { continue };
            assert!(one >= 2 * 8 * 8, "{tier:?}: {one}");
            assert_eq!(multiply_add(tier, 0), Some(0), "{tier:?}");
            assert_eq!(multiply_add(tier, 1000), Some(1000 * one), "{tier:?}");
            assert_eq!(multiply_add(tier, MAX_TURNS), Some(u64::from(MAX_TURNS) * one), "{tier:?}");
        }
    }

    #[test]
    fn every_element_is_read() {
        for tier in Tier::available() {
            for len in [0, 1, 7, 64, 1001] {
                let data: Vec<u64> = (0..len).map(|i| 1 << (i % 64)).collect();
                assert_eq!(
                    read(tier, &data),
                    data.iter().fold(0, |all, value| all ^ value),
                    "{tier:?} {len}"
                );
            }
        }
    }
}
