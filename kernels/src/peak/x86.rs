//! The multiply-add loops: enough independent sums to hide the latency of the instruction.

use crate::isa::Tier;

/// Runs the loop of `tier` and returns all its sums; `None` where the tier has no instruction of its own.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn multiply_add(_: Tier, _: u32) -> Option<Vec<f32>> {
    None
}

/// Runs the loop of `tier` and returns all its sums; `None` where the tier has no instruction of its own.
#[cfg(target_arch = "x86_64")]
pub(super) fn multiply_add(tier: Tier, turns: u32) -> Option<Vec<f32>> {
    match tier {
        Tier::Amx => Some(x86_64::tiles(turns)),
        #[expect(unsafe_code, reason = "calling code compiled for a checked instruction set")]
        // SAFETY: the caller found the tier.
        Tier::Avx512 => Some(unsafe { x86_64::avx512(turns) }),
        #[expect(unsafe_code, reason = "calling code compiled for a checked instruction set")]
        // SAFETY: the caller found the tier.
        Tier::Avx2 => Some(unsafe { x86_64::avx2(turns) }),
        Tier::Portable => None,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::asm;
    use std::arch::x86_64::{
        __m256, __m512, _mm256_fmadd_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm512_fmadd_ps, _mm512_set1_ps,
        _mm512_setzero_ps,
    };
    use std::hint::black_box;
    use std::mem::transmute;

    use crate::amx::{BLOCK, DEPTH, LANES, TILE, Tiles};

    /// Two multiply-adds a cycle with a latency of four need eight sums; AVX2 has room for 13 beside the factors.
    const SUMS: usize = 12;

    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "taking vectors apart")]
    pub(super) fn avx512(turns: u32) -> Vec<f32> {
        let one = black_box(_mm512_set1_ps(1.0));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(one, one, *sum);
            }
        }
        // SAFETY: a vector is 16 floats, any bits of which are a value.
        unsafe { transmute::<[__m512; SUMS], [[f32; 16]; SUMS]>(sums) }.concat()
    }

    #[target_feature(enable = "avx2,fma")]
    #[expect(unsafe_code, reason = "taking vectors apart")]
    pub(super) fn avx2(turns: u32) -> Vec<f32> {
        let one = black_box(_mm256_set1_ps(1.0));
        let mut sums = [_mm256_setzero_ps(); SUMS];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(one, one, *sum);
            }
        }
        // SAFETY: a vector is 8 floats, any bits of which are a value.
        unsafe { transmute::<[__m256; SUMS], [[f32; 8]; SUMS]>(sums) }.concat()
    }

    /// Two by two tiles from two left and two right ones, as in every product, but without a load.
    #[expect(unsafe_code, reason = "instructions without a safe form")]
    pub(super) fn tiles(turns: u32) -> Vec<f32> {
        const ONE: u16 = 0x3f80;
        let tile = [ONE; TILE];
        let mut sums = vec![0f32; BLOCK * BLOCK];
        let registers = Tiles::configure();
        // SAFETY: the registers are configured as whole tiles of 16 rows of 64 bytes; `tile` holds one and `sums`
        // two by two.
        unsafe {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "tileloadd tmm4, [{tile} + {row}]", "tileloadd tmm5, [{tile} + {row}]",
                "tileloadd tmm6, [{tile} + {row}]", "tileloadd tmm7, [{tile} + {row}]",
                "test {turns:e}, {turns:e}", "jz 3f",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
                "dec {turns:e}", "jnz 2b",
                "3:",
                "tilestored [{sums} + {ldc}], tmm0", "tilestored [{sums} + {ldc} + 64], tmm1",
                "tilestored [{lower} + {ldc}], tmm2", "tilestored [{lower} + {ldc} + 64], tmm3",
                tile = in(reg) tile.as_ptr(), row = in(reg) 2 * DEPTH, turns = inout(reg) turns => _,
                sums = in(reg) sums.as_mut_ptr(), lower = in(reg) sums.as_mut_ptr().wrapping_add(LANES * BLOCK),
                ldc = in(reg) 4 * BLOCK, options(nostack)
            );
        }
        drop(registers);
        sums
    }
}
