//! The definition, in f64 with the standard library's `exp` and `tanh`.

use super::GatedKind;

/// Computes `act(gate) * up` for rows of `2 f` elements.
pub fn gated_act(gate_up: &[f64], f: usize, kind: GatedKind) -> Vec<f64> {
    let rows = gate_up.len().checked_div(2 * f).unwrap_or(0);
    let mut y = vec![0.0; rows * f];
    for row in 0..rows {
        for i in 0..f {
            let (gate, up) = (gate_up[row * 2 * f + i], gate_up[row * 2 * f + f + i]);
            y[row * f + i] = act(gate, kind) * up;
        }
    }
    y
}

/// Computes the gradient of `gate_up`; the formulas are derived in `backward.rs`.
pub fn gated_act_backward(gate_up: &[f64], dy: &[f64], f: usize, kind: GatedKind) -> Vec<f64> {
    let rows = gate_up.len().checked_div(2 * f).unwrap_or(0);
    let mut d = vec![0.0; gate_up.len()];
    for row in 0..rows {
        for i in 0..f {
            let (at, dy) = (row * 2 * f + i, dy[row * f + i]);
            d[at] = dy * gate_up[at + f] * act_derivative(gate_up[at], kind);
            d[at + f] = dy * act(gate_up[at], kind);
        }
    }
    d
}

fn act(g: f64, kind: GatedKind) -> f64 {
    match kind {
        GatedKind::SwiGlu => g / (1.0 + (-g).exp()),
        GatedKind::GeGlu => 0.5 * g * (1.0 + inner(g).tanh()),
    }
}

fn act_derivative(g: f64, kind: GatedKind) -> f64 {
    match kind {
        GatedKind::SwiGlu => {
            let s = 1.0 / (1.0 + (-g).exp());
            s * (1.0 + g * (1.0 - s))
        }
        GatedKind::GeGlu => {
            let t = inner(g).tanh();
            let inner_derivative = (2.0 / std::f64::consts::PI).sqrt() * (1.0 + 3.0 * 0.044715 * g * g);
            0.5 * (1.0 + t) + 0.5 * g * (1.0 - t * t) * inner_derivative
        }
    }
}

fn inner(g: f64) -> f64 {
    (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g * g * g)
}
