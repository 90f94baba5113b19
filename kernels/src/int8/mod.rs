//! placeholder until merged
/// x
#[derive(Debug)]
pub struct Int8 {
    /// c
    pub codes: Vec<i8>,
    /// r
    pub row_absmax: Vec<f32>,
    /// s
    pub shape: [usize; 2],
}
