//! The AMX matrix unit: permission, tile registers, and the one block of products that every op is made of.
//!
//! A tile is 16 rows of 64 bytes. `TDPBF16PS` multiplies a tile of 16 x 32 bf16 by one of 32 x 16 and adds to
//! 16 x 16 f32: for each output, pairs of products in rising order of `k`, rounded to f32 after each. Denormal
//! inputs and results count as zero. The chain can be carried over several calls through memory, without a
//! change of bits.
//!
//! Operands are stored tile by tile, 1 KiB each, so that a tile is loaded from consecutive cache lines:
//! - left `[m, k]`: `[m / 16][k / 32][16 rows][32 k]`
//! - right `[k, n]`: `[n / 16][k / 32][16 pairs of k][16 columns][2]`
//!
//! # Source
//! Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18, and Linux
//! `Documentation/arch/x86/xstate.rst` for the permission.

#![expect(unsafe_code, reason = "instructions without a safe form")]

pub(crate) mod pack;
pub(crate) mod rows;
#[cfg(test)]
mod tests;

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Rows (of the left operand) or columns (of the right one) of a tile.
pub(crate) const LANES: usize = 16;

/// Elements of `k` that a tile holds.
pub(crate) const DEPTH: usize = 32;

/// bf16 elements of a tile.
pub(crate) const TILE: usize = LANES * DEPTH;

/// Rows and columns of the output of [`Tiles::block`].
pub(crate) const BLOCK: usize = 2 * LANES;

/// Returns whether this process may use bf16 tiles; asks the kernel for it the first time.
pub(crate) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512vl")
            && std::is_x86_feature_detected!("avx512bf16")
            && std::is_x86_feature_detected!("xsave")
            && has_tiles()
            && permitted()
    })
}

/// Whether the processor has bf16 tiles and the system saves them.
fn has_tiles() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    const XTILE: u64 = 3 << 17;
    let edx = __cpuid_count(7, 0).edx;
    // SAFETY: only called once `xsave` is found, which includes `xgetbv`.
    let saved = unsafe { _xgetbv(0) };
    edx & (AMX_BF16 | AMX_TILE) == AMX_BF16 | AMX_TILE && saved & XTILE == XTILE
}

/// Asks Linux for the use of tile data in this process.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call changes nothing but this permission.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Bytes that [`Tiles::add_and_fetch`] fetches for every tile of `k`: a quarter of the two tiles it multiplies by.
pub(crate) const FETCH: usize = 512;

/// The memory that `LDTILECFG` reads.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

/// The tile registers of this thread, configured as eight whole tiles; released when dropped.
pub(crate) struct Tiles(PhantomData<*const ()>);

/// Operands and place of one [`Tiles::block`].
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// Two rows of left tiles, `k_tiles` each.
    pub a: [*const u16; 2],
    /// Two columns of right tiles, `k_tiles` each.
    pub b: [*const u16; 2],
    /// Tiles along `k`; at least 1.
    pub k_tiles: usize,
    /// Output, [`BLOCK`] rows of [`BLOCK`].
    pub c: *mut f32,
    /// Elements between rows of `c`.
    pub ldc: usize,
    /// Whether the sums start at what is in `c`.
    pub add: bool,
}

#[expect(clippy::unused_self, reason = "registers are configured as long as `self` lives")]
impl Tiles {
    /// Configures the registers.
    ///
    /// # Panics
    /// Where there are no tiles.
    pub(crate) fn configure() -> Self {
        assert!(available(), "tiles asked for without a check");
        let mut config =
            TileConfig { palette: 1, start_row: 0, reserved: [0; 14], bytes_per_row: [0; 16], rows: [0; 16] };
        config.bytes_per_row[..8].fill(64);
        config.rows[..8].fill(16);
        // SAFETY: `available` found tiles and the permission; the configuration is valid for palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
        Self(PhantomData)
    }

    /// Computes `c = a . b`, or `c += a . b`, of 32 x 32 outputs.
    ///
    /// # Safety
    /// The operands hold `k_tiles` tiles each, at least one; `c` may be written (and read, to add) at 32 rows of 32.
    #[inline(always)]
    pub(crate) unsafe fn block(&self, block: Block) {
        // SAFETY: as the caller vouches.
        unsafe {
            self.start(block.c, block.ldc, block.add);
            self.add(block.a, block.b, block.k_tiles);
            self.store(block.c, block.ldc);
        }
    }

    /// Starts the sums of a block at zero, or at what is in `c`. [`Tiles::add`] and [`Tiles::store`] go on with them.
    ///
    /// # Safety
    /// To add, `c` may be read at 32 rows of 32.
    #[inline(always)]
    pub(crate) unsafe fn start(&self, c: *const f32, ldc: usize, add: bool) {
        let lower = c.wrapping_add(LANES * ldc);
        // SAFETY: as the caller vouches; registers 0 to 7 are configured as whole tiles.
        unsafe {
            if add {
                asm!(
                    "tileloadd tmm0, [{c0} + {ldc}]", "tileloadd tmm1, [{c0} + {ldc} + 64]",
                    "tileloadd tmm2, [{c1} + {ldc}]", "tileloadd tmm3, [{c1} + {ldc} + 64]",
                    c0 = in(reg) c, c1 = in(reg) lower, ldc = in(reg) ldc * 4, options(nostack, readonly)
                );
            } else {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    options(nostack, nomem)
                );
            }
        }
    }

    /// Adds `a . b` to the sums of a block.
    ///
    /// # Safety
    /// The operands hold `k_tiles` tiles each, at least one.
    #[inline(always)]
    pub(crate) unsafe fn add(&self, a: [*const u16; 2], b: [*const u16; 2], k_tiles: usize) {
        // SAFETY: as the caller vouches; registers 0 to 7 are configured as whole tiles.
        unsafe {
            asm!(
                "2:",
                "tileloadd tmm4, [{a0} + {row}]", "tileloadd tmm6, [{b0} + {row}]", "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a1} + {row}]", "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm7, [{b1} + {row}]", "tdpbf16ps tmm1, tmm4, tmm7", "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a0}, 1024", "add {a1}, 1024", "add {b0}, 1024", "add {b1}, 1024", "dec {k}", "jnz 2b",
                a0 = inout(reg) a[0] => _, a1 = inout(reg) a[1] => _,
                b0 = inout(reg) b[0] => _, b1 = inout(reg) b[1] => _,
                k = inout(reg) k_tiles => _, row = in(reg) 64usize, options(nostack, readonly)
            );
        }
    }

    /// As [`Tiles::add`], for an `a` that is used again and a `b` that is not soon: `b` passes by the first-level cache
    /// and leaves `a` in it. With `a` of 36 KB, 2.6 instead of 2.0 TFLOP/s.
    ///
    /// # Safety
    /// As [`Tiles::add`].
    #[inline(always)]
    pub(crate) unsafe fn add_streamed(&self, a: [*const u16; 2], b: [*const u16; 2], k_tiles: usize) {
        // SAFETY: as the caller vouches; registers 0 to 7 are configured as whole tiles.
        unsafe {
            asm!(
                "2:",
                "tileloadd tmm4, [{a0} + {row}]", "tileloaddt1 tmm6, [{b0} + {row}]", "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a1} + {row}]", "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloaddt1 tmm7, [{b1} + {row}]", "tdpbf16ps tmm1, tmm4, tmm7", "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a0}, 1024", "add {a1}, 1024", "add {b0}, 1024", "add {b1}, 1024", "dec {k}", "jnz 2b",
                a0 = inout(reg) a[0] => _, a1 = inout(reg) a[1] => _,
                b0 = inout(reg) b[0] => _, b1 = inout(reg) b[1] => _,
                k = inout(reg) k_tiles => _, row = in(reg) 64usize, options(nostack, readonly)
            );
        }
    }

    /// As [`Tiles::add_streamed`], and fetches [`FETCH`] bytes from `next` on into the second-level cache for every
    /// tile of `k`.
    ///
    /// # Safety
    /// As [`Tiles::add`]; `next` may be any address.
    #[inline(always)]
    pub(crate) unsafe fn add_and_fetch(
        &self,
        a: [*const u16; 2],
        b: [*const u16; 2],
        k_tiles: usize,
        next: *const u16,
    ) {
        // SAFETY: as the caller vouches; registers 0 to 7 are configured as whole tiles; a fetch does not fault.
        unsafe {
            asm!(
                "2:",
                "tileloadd tmm4, [{a0} + {row}]", "tileloaddt1 tmm6, [{b0} + {row}]", "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{next}]", "prefetcht1 [{next} + 64]",
                "tileloadd tmm5, [{a1} + {row}]", "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{next} + 128]", "prefetcht1 [{next} + 192]",
                "tileloaddt1 tmm7, [{b1} + {row}]", "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{next} + 256]", "prefetcht1 [{next} + 320]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{next} + 384]", "prefetcht1 [{next} + 448]", "add {next}, 512",
                "add {a0}, 1024", "add {a1}, 1024", "add {b0}, 1024", "add {b1}, 1024", "dec {k}", "jnz 2b",
                a0 = inout(reg) a[0] => _, a1 = inout(reg) a[1] => _,
                b0 = inout(reg) b[0] => _, b1 = inout(reg) b[1] => _, next = inout(reg) next => _,
                k = inout(reg) k_tiles => _, row = in(reg) 64usize, options(nostack, readonly)
            );
        }
    }

    /// Computes `c = a . b`, or `c += a . b`, of 16 x 32 outputs.
    ///
    /// # Safety
    /// As [`Tiles::block`], with 16 rows.
    #[inline(always)]
    pub(crate) unsafe fn half_block(
        &self,
        a: *const u16,
        b: [*const u16; 2],
        k_tiles: usize,
        c: *mut f32,
        ldc: usize,
        add: bool,
    ) {
        // SAFETY: as the caller vouches; registers 0 to 7 are configured as whole tiles.
        unsafe {
            if add {
                asm!(
                    "tileloadd tmm0, [{c} + {ldc}]", "tileloadd tmm1, [{c} + {ldc} + 64]",
                    c = in(reg) c, ldc = in(reg) ldc * 4, options(nostack, readonly)
                );
            } else {
                asm!("tilezero tmm0", "tilezero tmm1", options(nostack, nomem));
            }
            asm!(
                "2:",
                "tileloadd tmm4, [{a} + {row}]",
                "tileloadd tmm6, [{b0} + {row}]", "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b1} + {row}]", "tdpbf16ps tmm1, tmm4, tmm7",
                "add {a}, 1024", "add {b0}, 1024", "add {b1}, 1024", "dec {k}", "jnz 2b",
                "tilestored [{c} + {ldc}], tmm0", "tilestored [{c} + {ldc} + 64], tmm1",
                a = inout(reg) a => _, b0 = inout(reg) b[0] => _, b1 = inout(reg) b[1] => _,
                k = inout(reg) k_tiles => _, row = in(reg) 64usize,
                c = in(reg) c, ldc = in(reg) ldc * 4, options(nostack)
            );
        }
    }

    /// Writes the sums of a block to `c`.
    ///
    /// # Safety
    /// `c` may be written at 32 rows of 32.
    #[inline(always)]
    pub(crate) unsafe fn store(&self, c: *mut f32, ldc: usize) {
        // SAFETY: as the caller vouches.
        unsafe {
            asm!(
                "tilestored [{c0} + {ldc}], tmm0", "tilestored [{c0} + {ldc} + 64], tmm1",
                "tilestored [{c1} + {ldc}], tmm2", "tilestored [{c1} + {ldc} + 64], tmm3",
                c0 = in(reg) c, c1 = in(reg) c.wrapping_add(LANES * ldc), ldc = in(reg) ldc * 4, options(nostack)
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: `configure` found tiles.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
