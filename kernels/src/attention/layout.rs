//! Where the heads lie in a row of the fused query, key and value tensor.

use std::ops::Range;

/// A row of `qkv` is `[q heads.. | k heads.. | v heads..]`, each head `head_dim` long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QkvLayout {
    /// Query heads; a multiple of `num_kv_heads`.
    pub num_heads: usize,
    /// Key heads, and as many value heads.
    pub num_kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
}

impl QkvLayout {
    /// Returns the elements of a row: `(num_heads + 2 * num_kv_heads) * head_dim`.
    pub fn width(self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
    }

    /// Returns the elements of the query part of a row, which is also the width of attention's output.
    pub fn q_width(self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Returns how many query heads share one key and value head.
    pub fn group(self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// Returns where query head `head` lies in a row.
    pub fn q(self, head: usize) -> Range<usize> {
        self.nth(head)
    }

    /// Returns where key head `head` lies in a row.
    pub fn k(self, head: usize) -> Range<usize> {
        self.nth(self.num_heads + head)
    }

    /// Returns where value head `head` lies in a row.
    pub fn v(self, head: usize) -> Range<usize> {
        self.nth(self.num_heads + self.num_kv_heads + head)
    }

    fn nth(self, head: usize) -> Range<usize> {
        head * self.head_dim..(head + 1) * self.head_dim
    }

    /// Fails on a layout or a row width that no op can work on.
    pub(crate) fn assert_fits(self, op: &str, width: usize) {
        let Self { num_heads, num_kv_heads, head_dim } = self;
        assert!(
            num_kv_heads > 0 && head_dim > 0 && num_heads > 0 && num_heads.is_multiple_of(num_kv_heads),
            "`{op}`: {num_heads} query heads over {num_kv_heads} key heads of {head_dim} elements"
        );
        assert_eq!(width, self.width(), "`{op}`: row width against {self:?}");
    }
}
