//! The instruction tier of this process: chosen once, overridable, the same for every op.
//!
//! `SEEDCORN_ISA` = `amx` | `avx512` | `avx2` | `portable` forces a tier; without it the best one that the
//! processor offers is taken. Tiers may differ in the last bits of a result, so the tier is part of the
//! device class that a run records.

use std::sync::OnceLock;

/// Name of the environment variable that forces a tier.
pub const ENV: &str = "SEEDCORN_ISA";

/// A set of vector instructions that the CPU code is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// AVX-512, and tiles of bf16 for products (AMX-TILE, AMX-BF16, AVX-512 BF16).
    Amx,
    /// 512-bit vectors with fused multiply-add (AVX-512 F, BW, DQ, VL).
    Avx512,
    /// 256-bit vectors with fused multiply-add (AVX2, FMA).
    Avx2,
    /// What the compiler's target baseline has (SSE2 on x86-64, NEON on aarch64).
    Portable,
}

impl Tier {
    /// All tiers, best first.
    pub const ALL: [Self; 4] = [Self::Amx, Self::Avx512, Self::Avx2, Self::Portable];

    /// Returns the name that `SEEDCORN_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }

    /// Returns whether this processor can run the tier (cheap: the standard library caches CPUID).
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub fn is_available(self) -> bool {
        match self {
            Self::Amx => Self::Avx512.is_available() && crate::amx::available(),
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512dq")
                    && std::is_x86_feature_detected!("avx512vl")
            }
            Self::Avx2 => std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma"),
            Self::Portable => true,
        }
    }

    /// Returns whether this processor can run the tier.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    pub fn is_available(self) -> bool {
        self == Self::Portable
    }

    /// Returns the tiers that this processor can run, best first.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|tier| tier.is_available()).collect()
    }
}

/// Why `SEEDCORN_ISA` cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// The variable holds a word that names no tier.
    #[error("`{ENV}` names no instruction tier: `{value}`")]
    Unknown {
        /// What the variable holds.
        value: String,
    },
    /// The tier exists, but not on this processor.
    #[error("`{ENV}` asks for `{}`, which this processor does not have", tier.name())]
    Unavailable {
        /// The tier asked for.
        tier: Tier,
    },
}

impl IsaError {
    /// Returns what to do next.
    pub fn hint(&self) -> String {
        let names: Vec<String> = Tier::available().iter().map(|tier| format!("`{}`", tier.name())).collect();
        format!("unset `{ENV}` or set it to one of {}", names.join(", "))
    }
}

/// Reads a tier from the value of `SEEDCORN_ISA`; without a value, the best available one.
fn resolve(value: Option<&str>) -> Result<Tier, IsaError> {
    let Some(value) = value else { return Ok(best()) };
    let tier = Tier::ALL.into_iter().find(|tier| tier.name() == value);
    let tier = tier.ok_or_else(|| IsaError::Unknown { value: value.to_owned() })?;
    if tier.is_available() { Ok(tier) } else { Err(IsaError::Unavailable { tier }) }
}

fn best() -> Tier {
    Tier::ALL.into_iter().find(|tier| tier.is_available()).unwrap_or(Tier::Portable)
}

/// Returns the tier of this process, or why the environment's wish cannot be met.
///
/// A program calls this once at start and stops on an error; the answer never changes afterwards.
///
/// # Errors
/// [`IsaError`] when `SEEDCORN_ISA` names no tier, or one that this processor does not have.
pub fn check() -> Result<Tier, IsaError> {
    static CHOICE: OnceLock<Result<Tier, IsaError>> = OnceLock::new();
    CHOICE
        .get_or_init(|| {
            let value = std::env::var_os(ENV).map(|value| value.to_string_lossy().into_owned());
            match (value, PREFERRED.get()) {
                (None, Some(tier)) if tier.is_available() => Ok(*tier),
                (value, _) => resolve(value.as_deref()),
            }
        })
        .clone()
}

static PREFERRED: OnceLock<Tier> = OnceLock::new();

/// Takes another tier than the best one, where the processor has it and the environment has no wish: before
/// [`check`] was called, and once.
pub fn prefer(tier: Tier) {
    PREFERRED.get_or_init(|| tier);
}

/// Returns the tier that ops run on: that of [`check`], or the best one where `check` failed.
pub fn tier() -> Tier {
    static TIER: OnceLock<Tier> = OnceLock::new();
    *TIER.get_or_init(|| check().unwrap_or_else(|_| best()))
}

/// Whether the portable tier fuses `a * b + c`: only where the target's baseline has the instruction,
/// since elsewhere `mul_add` is a call into libm.
pub(crate) const PORTABLE_FMA: bool = cfg!(target_arch = "aarch64");

/// Computes `a * b + c`, fused when `FMA`.
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Defines `fn name(tier, args..)`, which runs `body::<FMA, WIDTH>(args..)` compiled for that tier.
///
/// `body` is an `#[inline(always)]` function with two const parameters: `FMA: bool` (see [`fma`]) and
/// `WIDTH: usize`, the `f32` lanes of a vector register. Asking for a tier that the processor lacks is a
/// bug and panics, which is what makes the calls below sound.
macro_rules! tiered {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident;) => {
        $(#[$meta])*
        $vis fn $name(tier: $crate::isa::Tier, $($arg: $ty),*) $(-> $ret)? {
            assert!(tier.is_available(), "tier `{}` asked for without a check", tier.name());
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body::<true, 16>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body::<true, 8>($($arg),*)
                }
                match tier {
                    #[expect(unsafe_code, reason = "calling code compiled for a checked instruction set")]
                    // SAFETY: `is_available` above found every feature that `avx512` enables.
                    $crate::isa::Tier::Amx | $crate::isa::Tier::Avx512 => return unsafe { avx512($($arg),*) },
                    #[expect(unsafe_code, reason = "calling code compiled for a checked instruction set")]
                    // SAFETY: `is_available` above found every feature that `avx2` enables.
                    $crate::isa::Tier::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::isa::Tier::Portable => {}
                }
            }
            $body::<{ $crate::isa::PORTABLE_FMA }, 4>($($arg),*)
        }
    };
}
pub(crate) use tiered;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wish_takes_the_best_tier() {
        assert_eq!(resolve(None), Ok(Tier::available()[0]));
    }

    #[test]
    fn every_available_name_is_followed() {
        for tier in Tier::available() {
            assert_eq!(resolve(Some(tier.name())), Ok(tier));
        }
    }

    #[test]
    fn unknown_name_is_an_error_with_a_hint() {
        let error = resolve(Some("sse9")).unwrap_err();
        assert_eq!(error.to_string(), "`SEEDCORN_ISA` names no instruction tier: `sse9`");
        assert!(error.hint().contains("`portable`"));
    }

    #[test]
    fn missing_tier_is_an_error() {
        for tier in Tier::ALL.into_iter().filter(|tier| !tier.is_available()) {
            assert_eq!(resolve(Some(tier.name())), Err(IsaError::Unavailable { tier }));
        }
    }

    fn sum_body<const FMA: bool, const WIDTH: usize>(x: &[f32]) -> f32 {
        x.iter().fold(0.0, |sum, &v| fma::<FMA>(v, 2.0, sum)) + WIDTH as f32
    }
    tiered! { fn sum(x: &[f32]) -> f32 = sum_body; }

    #[test]
    fn tiered_runs_the_body_with_the_tier_s_width() {
        for tier in Tier::available() {
            let width = match tier {
                Tier::Amx | Tier::Avx512 => 16.0,
                Tier::Avx2 => 8.0,
                Tier::Portable => 4.0,
            };
            assert_eq!(sum(tier, &[1.0, 2.0]), 6.0 + width);
        }
    }
}
