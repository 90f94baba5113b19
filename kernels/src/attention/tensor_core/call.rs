//! The op as launches of the kernels.

use super::{Gives, Plan, Tile, delta};
use crate::attention::{AttentionConfig, QkvLayout};
use crate::tensor_core::{Device, Kernel, Launch};

/// Computes the output `[t, num_heads * head_dim]` and the log-sum-exp `[t, num_heads]`.
///
/// # Errors
/// Those of the device.
pub fn forward<D: Device>(
    device: &mut D,
    qkv: &D::Buffer,
    layout: QkvLayout,
    segments: &[u32],
    cfg: AttentionConfig,
) -> Result<[D::Buffer; 2], D::Error> {
    let tokens = tokens(segments);
    let out = device.reserve(4 * tokens * layout.q_width());
    let lse = device.reserve(4 * tokens * layout.num_heads);
    let plan = Plan { tile: Tile::of_forward(layout.head_dim), ..plan(layout, cfg) };
    let kernel = Kernel::attention_forward(plan);
    launch(device, kernel, layout, segments, cfg, layout.num_heads, plan, &[qkv], &[&out, &lse])?;
    Ok([out, lse])
}

/// Computes `dqkv` from the input, what [`forward`] gave, and the output's gradient.
///
/// # Errors
/// Those of the device.
pub fn backward<D: Device>(
    device: &mut D,
    [qkv, out, lse, d_out]: [&D::Buffer; 4],
    layout: QkvLayout,
    segments: &[u32],
    cfg: AttentionConfig,
) -> Result<D::Buffer, D::Error> {
    let rows = tokens(segments) * layout.num_heads;
    let d = device.reserve(4 * tokens(segments) * layout.width());
    let deltas = device.reserve(4 * rows);
    if rows > 0 {
        let kernel = Kernel::attention_delta();
        device.launch(&Launch {
            kernel,
            cubes: [rows.div_ceil(delta::UNITS / super::PLANE) as u32, 1, 1],
            buffers: &[out, d_out, &deltas],
            floats: &[],
            words: &[rows as u32, layout.head_dim as u32],
        })?;
    }
    let inputs = [qkv, d_out, lse, &deltas];
    let plan = plan(layout, cfg);
    let kernel = Kernel::attention_queries(plan);
    launch(device, kernel, layout, segments, cfg, layout.num_heads, plan, &inputs, &[&d])?;
    for &gives in Gives::launches(layout.head_dim) {
        let plan = Plan { gives, ..plan };
        let kernel = Kernel::attention_keys(plan);
        launch(device, kernel, layout, segments, cfg, layout.num_kv_heads, plan, &inputs, &[&d])?;
    }
    Ok(d)
}

fn tokens(segments: &[u32]) -> usize {
    segments.last().map_or(0, |&end| end as usize)
}

fn plan(layout: QkvLayout, cfg: AttentionConfig) -> Plan {
    let (head_dim, tile) = (layout.head_dim, Tile::of(layout.head_dim));
    let (windowed, capped) = (cfg.window.is_some(), cfg.soft_cap.is_some());
    Plan { tile, head_dim, gives: Gives::Both, windowed, capped }
}

/// Runs a kernel with a cube for each tile and head; the tiles stand between the other buffers: the first row of the segment, the first row of the tile
/// in it, and the rows of the segment.
fn launch<D: Device>(
    device: &mut D,
    kernel: Kernel,
    layout: QkvLayout,
    segments: &[u32],
    cfg: AttentionConfig,
    heads: usize,
    plan: Plan,
    before: &[&D::Buffer],
    after: &[&D::Buffer],
) -> Result<(), D::Error> {
    let mut tiles = Vec::new();
    for ends in segments.windows(2) {
        let len = ends[1] - ends[0];
        for first in (0..len).step_by(plan.tile.rows) {
            tiles.extend([ends[0], first, len]);
        }
    }
    if tiles.is_empty() {
        return Ok(());
    }
    let count = tiles.len() / 3;
    let tiles = device.upload(bytemuck::cast_slice(&tiles));
    // A window beyond all positions is none; sums with it stay inside 32 bits.
    let window = cfg.window.map_or(0, |window| window.min(1 << 30));
    let words = [layout.width(), layout.num_heads, layout.num_kv_heads, window].map(|value| value as u32);
    device.launch(&Launch {
        kernel,
        cubes: [count as u32, heads as u32, 1],
        buffers: &[before, &[&tiles], after].concat(),
        floats: &[cfg.scale, cfg.soft_cap.unwrap_or(1.0)],
        words: &words,
    })
}
