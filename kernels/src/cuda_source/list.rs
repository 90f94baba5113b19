//! The kernels that a training run of large matrices launches.

use super::Kernel;
use crate::attention::tensor_core::{self as attention, Gives};
use crate::lora_linear::tensor_core::{Kind, Masked, Onto, Plan, Side, Tile};

/// The kernels, each with a name for tables.
pub fn all() -> Vec<(String, Kernel)> {
    let nf4 = Kind::Nf4 { block_log2: 6, nested_block: 256 };
    let kinds = [("nf4", nf4), ("int8", Kind::Int8), ("bf16", Kind::Bf16)];
    let base = Plan {
        tile: Tile::SQUARE,
        left: Side::Inner,
        right: Side::Inner,
        kind: nf4,
        left_whole: true,
        right_whole: true,
        second: Some((Side::Inner, true)),
        masked: Masked::Nothing,
        onto: Onto::Nothing,
        bias: false,
    };
    let mut plans = Vec::new();
    for (name, kind) in kinds {
        let y = Plan { kind, ..base };
        let dx = Plan { right: Side::Outer, second: Some((Side::Outer, true)), ..y };
        plans.push((format!("lora_linear y, {name}"), y));
        plans.push((format!("lora_linear y, {name}, 64x64"), Plan { tile: Tile::SMALL, ..y }));
        plans.push((format!("lora_linear y, {name}, any size"), any_size(y)));
        plans.push((format!("lora_linear dx, {name}"), dx));
        plans.push((format!("lora_linear dx, {name}, any size"), any_size(dx)));
        plans.push((format!("lora_linear dx, {name}, dropout"), Plan { masked: Masked::Second, ..dx }));
    }
    let with_all = Plan { onto: Onto::Addend, bias: true, ..base };
    plans.push(("lora_linear y, nf4, bias and residual".to_owned(), with_all));
    let factor = Plan { kind: Kind::F32, tile: Tile::NARROW, second: None, ..base };
    let over_tokens = Plan { left: Side::Outer, right: Side::Outer, ..factor };
    let da = Plan { tile: Tile::FLAT, ..over_tokens };
    plans.push(("lora_linear t = x A^T".to_owned(), factor));
    plans.push(("lora_linear t = x A^T, dropout".to_owned(), Plan { masked: Masked::Left, ..factor }));
    plans.push(("lora_linear u = dy B".to_owned(), Plan { right: Side::Outer, ..factor }));
    plans.push(("lora_linear dA".to_owned(), da));
    plans.push(("lora_linear dA, dropout".to_owned(), Plan { masked: Masked::Right, ..da }));
    plans.push(("lora_linear dB".to_owned(), over_tokens));
    let mut kernels: Vec<_> = plans.into_iter().map(|(name, plan)| (name, Kernel::product(plan))).collect();
    kernels.push(("lora_linear sum of parts".to_owned(), Kernel::sum_parts()));
    kernels.extend(of_attention());
    for (name, kind) in kinds {
        let logits = Plan { kind, second: None, ..base };
        let sums = Plan { right: Side::Outer, onto: Onto::Scaled, ..logits };
        kernels.push((format!("linear_cross_entropy logits, {name}"), Kernel::product(logits)));
        kernels.push((format!("linear_cross_entropy sums for dx, {name}"), Kernel::product(sums)));
        kernels.push((format!("linear_cross_entropy dx, {name}"), Kernel::loss_gradient(kind)));
    }
    kernels.push(("linear_cross_entropy rows with targets".to_owned(), Kernel::loss_gather()));
    kernels.push(("linear_cross_entropy softmax".to_owned(), Kernel::loss_rows()));
    kernels.push(("linear_cross_entropy loss".to_owned(), Kernel::loss_sum()));
    kernels
}

/// Attention for the sizes of heads that models have, and one that is read element by element.
fn of_attention() -> Vec<(String, Kernel)> {
    let mut kernels = Vec::new();
    for (head_dim, windowed, capped) in [
        (64, false, false),
        (128, false, false),
        (128, true, false),
        (256, true, true),
        (80, false, false),
        (30, true, true),
    ] {
        let (tile, gives) = (attention::Tile::of(head_dim), Gives::Both);
        let plan = attention::Plan { tile, head_dim, gives, windowed, capped };
        let also = [(windowed, ", window"), (capped, ", cap")].map(|(is, name)| if is { name } else { "" });
        let name = |pass: &str| format!("attention {pass}, {head_dim}{}{}", also[0], also[1]);
        let forward = attention::Plan { tile: attention::Tile::of_forward(head_dim), ..plan };
        kernels.push((name("forward"), Kernel::attention_forward(forward)));
        kernels.push((name("dq"), Kernel::attention_queries(plan)));
        for &gives in Gives::launches(head_dim) {
            let pass = match gives {
                Gives::Both => "dk and dv",
                Gives::Keys => "dk",
                Gives::Values => "dv",
            };
            kernels.push((name(pass), Kernel::attention_keys(attention::Plan { gives, ..plan })));
        }
    }
    kernels.push(("attention delta".to_owned(), Kernel::attention_delta()));
    kernels
}

/// The same for sizes that are no multiples of eight.
fn any_size(plan: Plan) -> Plan {
    let second = plan.second.map(|(side, _)| (side, false));
    Plan { tile: Tile::ODD, left_whole: false, right_whole: false, second, ..plan }
}
