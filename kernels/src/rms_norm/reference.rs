//! The definition, in f64 so that it can also be differentiated by differences.

/// Normalises the rows (of `weight.len()` elements) of `x`.
pub fn rms_norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let d = weight.len();
    let mut y = vec![0.0; x.len()];
    for row in 0..x.len().checked_div(d).unwrap_or(0) {
        let mut squares = 0.0;
        for i in 0..d {
            squares += x[row * d + i] * x[row * d + i];
        }
        let inverse = 1.0 / (squares / d as f64 + eps).sqrt();
        for i in 0..d {
            y[row * d + i] = x[row * d + i] * inverse * weight[i];
        }
    }
    y
}

/// Computes `dx`; the formula is derived in `backward.rs`.
pub fn rms_norm_backward(x: &[f64], weight: &[f64], dy: &[f64], eps: f64) -> Vec<f64> {
    let d = weight.len();
    let mut dx = vec![0.0; x.len()];
    for row in 0..x.len().checked_div(d).unwrap_or(0) {
        let (mut squares, mut along) = (0.0, 0.0);
        for i in 0..d {
            squares += x[row * d + i] * x[row * d + i];
            along += weight[i] * dy[row * d + i] * x[row * d + i];
        }
        let inverse = 1.0 / (squares / d as f64 + eps).sqrt();
        for i in 0..d {
            let straight = inverse * weight[i] * dy[row * d + i];
            dx[row * d + i] = straight - x[row * d + i] * inverse.powi(3) * along / d as f64;
        }
    }
    dx
}
