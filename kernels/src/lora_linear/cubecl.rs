//! The op as products on CubeCL devices. Packed weights are decoded in shared memory, and the low-rank term is added
//! before a tile is stored.
//!
//! A product of the frozen weight reads its packed bytes once for every 64 tokens, and the tokens once for every 64
//! rows of the weight.

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::{FrozenPart, Group, Inputs, LoraLinearBackend};
use crate::frozen::FrozenWeight;
use crate::gpu::product::{Matrix, Product, Right};
use crate::gpu::weight::DeviceWeight;
use crate::gpu::{self, Words};

impl LoraLinearBackend for CubeBackend {
    fn lora_linear(inputs: Inputs<Self>, group: Group) -> FloatTensor<Self> {
        Self::lora_linear_forward(inputs, group).0
    }

    fn lora_linear_forward(inputs: Inputs<Self>, group: Group) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [x, residual, factors @ ..] = inputs.into_array().map(gpu::contiguous);
        let [tokens, width] = gpu::dims(&x);
        let y = gpu::empty(&x, [tokens, group.out_features()]);
        let t = gpu::empty(&x, [tokens, group.ranks()]);
        let (mut column, mut rank_column) = (0, 0);
        for (part, factors) in group.parts.iter().zip(factors.chunks_exact(2)) {
            let [out, _] = part.weight.shape();
            let (weight, compute) = (on_device(&part.weight), part.weight.compute());
            let right = Right::weight(weight, width, 0);
            let mut product = Product::transposed(Matrix::whole(&x), right, [tokens, out, width], compute);
            if let Some(lora) = part.lora {
                let a = Right::dense(&factors[0]);
                Product::transposed(Matrix::whole(&x), a, [tokens, lora.rank, width], compute)
                    .left_dropped(lora.dropout)
                    .scaled(lora.scale)
                    .launch(&t, rank_column);
                let b = Right::dense(&factors[1]);
                product = product.plus_transposed(Matrix::columns(&t, rank_column), b, lora.rank);
                rank_column += lora.rank;
            }
            let bias = part.bias.as_ref().map(|bias| Words::upload(&x.client, bias));
            let residual = group.residual.then_some(&residual);
            product.bias(bias.as_ref()).onto_addend(residual).launch(&y, column);
            column += out;
        }
        (y, t)
    }

    fn lora_linear_backward(
        dy: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        inputs: Inputs<Self>,
        group: Group,
        need_dx: bool,
    ) -> Vec<FloatTensor<Self>> {
        let (dy, t) = (gpu::contiguous(dy), gpu::contiguous(kept));
        let [x, _, factors @ ..] = inputs.into_array().map(gpu::contiguous);
        let [tokens, width] = gpu::dims(&x);
        let dx = gpu::empty(&x, if need_dx { [tokens, width] } else { [1, 1] });
        let mut gradients = vec![dx.clone()];
        let (mut column, mut rank_column) = (0, 0);
        for (place, (part, factors)) in group.parts.iter().zip(factors.chunks_exact(2)).enumerate() {
            let [out, _] = part.weight.shape();
            let dy = Matrix::columns(&dy, column);
            let low_rank = part.lora.map(|lora| {
                let u = gpu::empty(&x, [tokens, lora.rank]);
                let b = Right::dense(&factors[1]);
                Product::straight(dy.clone(), b, [tokens, lora.rank, out], part.weight.compute())
                    .scaled(lora.scale)
                    .launch(&u, 0);
                u
            });
            if need_dx {
                add_to_dx(&dx, place > 0, &dy, part, low_rank.as_ref(), factors, width);
            }
            let t = Matrix::columns(&t, rank_column);
            gradients.extend(factor_gradients(&x, &dy, t, part, low_rank.as_ref()));
            rank_column += part.lora.map_or(0, |lora| lora.rank);
            column += out;
        }
        gradients
    }
}

/// `dx (+)= dy . W + mask * (u . A)`.
fn add_to_dx(
    dx: &CubeTensor,
    adds: bool,
    dy: &Matrix,
    part: &FrozenPart,
    low_rank: Option<&CubeTensor>,
    factors: &[CubeTensor],
    width: usize,
) {
    let [out, _] = part.weight.shape();
    let sizes = [gpu::dims(dx)[0], width, out];
    let weight = Right::weight(on_device(&part.weight), width, 0);
    let mut product = Product::straight(dy.clone(), weight, sizes, part.weight.compute());
    if let (Some(u), Some(lora)) = (low_rank, part.lora) {
        product = product.plus_straight(Matrix::whole(u), Right::dense(&factors[0]), lora.rank, lora.dropout);
    }
    product.onto_output(adds).launch(dx, 0);
}

/// `dA = u^T . xd` and `dB = dy^T . t`; placeholders where the part is not adapted.
fn factor_gradients(
    x: &CubeTensor,
    dy: &Matrix,
    t: Matrix,
    part: &FrozenPart,
    low_rank: Option<&CubeTensor>,
) -> [CubeTensor; 2] {
    let (Some(u), Some(lora)) = (low_rank, part.lora) else {
        return [gpu::empty(x, [1, 1]), gpu::empty(x, [1, 1])];
    };
    let ([tokens, width], [out, _]) = (gpu::dims(x), part.weight.shape());
    let (da, db) = (gpu::empty(x, [lora.rank, width]), gpu::empty(x, [out, lora.rank]));
    let compute = part.weight.compute();
    Product::over_rows(Matrix::whole(u), Right::dense(x), [lora.rank, width, tokens], compute)
        .right_dropped(lora.dropout)
        .launch(&da, 0);
    Product::over_rows(dy.clone(), Right::window(t), [out, lora.rank, tokens], compute).launch(&db, 0);
    [da, db]
}

fn on_device(weight: &FrozenWeight) -> &DeviceWeight {
    weight.on_device().expect("`lora_linear`: tensors on a device come with a weight there")
}
