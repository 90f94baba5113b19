//! Instructions, lane by lane, against what the manual says.

use crate::{Argument, Grid, Memory, Module, Problem};

/// Runs instructions on two words a lane, `%a` and `%b`; what they leave in `%d` is the result.
fn lanes(code: &str, inputs: impl Fn(u32) -> [u32; 2]) -> Result<Vec<u32>, Problem> {
    let text = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p, .param .u64 q)\n{{
        .reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<9>; .reg .b32 %a, %b, %d; .reg .f32 %f<9>; .reg .b64 %w<9>;
        ld.param.u64 %w1, [p]; ld.param.u64 %w2, [q];
        mov.u32 %r1, %tid.x; mul.wide.u32 %w3, %r1, 8; add.s64 %w1, %w1, %w3;
        mul.wide.u32 %w3, %r1, 4; add.s64 %w2, %w2, %w3;
        ld.global.v2.b32 {{%a, %b}}, [%w1];
        {code}
        st.global.b32 [%w2], %d; ret; }}"
    );
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}"));
    let mut memory = Memory::new();
    let bytes: Vec<u8> = (0..32).flat_map(inputs).flat_map(u32::to_le_bytes).collect();
    let (p, q) = (memory.upload(&bytes), memory.reserve(128));
    let grid = Grid { blocks: [1; 3], threads: [32, 1, 1], dynamic_shared_bytes: 0 };
    let arguments = [Argument::Buffer(p), Argument::Buffer(q)];
    module.launch("k", grid, &arguments, &mut memory).map_err(|fault| fault.problem)?;
    let words =
        memory.read(q)?.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]));
    Ok(words.collect())
}

/// What instructions make of two words.
fn one(code: &str, a: u32, b: u32) -> u32 {
    lanes(code, |_| [a, b]).unwrap_or_else(|problem| panic!("{code}: {problem}"))[0]
}

#[test]
fn integers() {
    for (code, a, b, expected) in [
        ("add.u32 %d, %a, %b;", 0xffff_ffff, 2, 1),
        ("sub.s32 %d, %a, %b;", 1, 2, 0xffff_ffff),
        ("mul.lo.s32 %d, %a, %b;", 0xffff_fffd, 5, 0xffff_fff1),
        ("mul.hi.u32 %d, %a, %b;", 0x8000_0000, 6, 3),
        ("mul.hi.s32 %d, %a, %b;", 0xffff_ffff, 6, 0xffff_ffff),
        ("mad.lo.s32 %d, %a, %b, -7;", 3, 5, 8),
        ("div.s32 %d, %a, %b;", 0xffff_fff9, 2, 0xffff_fffd),
        ("rem.s32 %d, %a, %b;", 0xffff_fff9, 2, 0xffff_ffff),
        ("div.u32 %d, %a, %b;", 0xffff_fff9, 2, 0x7fff_fffc),
        ("min.s32 %d, %a, %b;", 0xffff_ffff, 1, 0xffff_ffff),
        ("min.u32 %d, %a, %b;", 0xffff_ffff, 1, 1),
        ("neg.s32 %d, %a;", 5, 0, 0xffff_fffb),
        ("abs.s32 %d, %a;", 0xffff_fffb, 0, 5),
        ("mul.wide.u32 %w4, %a, %b; shr.u64 %w4, %w4, 32; cvt.u32.u64 %d, %w4;", 0x8000_0000, 6, 3),
        ("mul.wide.s32 %w4, %a, %b; shr.s64 %w4, %w4, 32; cvt.u32.u64 %d, %w4;", 0xffff_ffff, 6, 0xffff_ffff),
        ("mad.wide.u32 %w4, %a, %b, 9; cvt.u32.u64 %d, %w4;", 7, 6, 51),
    ] {
        assert_eq!(one(code, a, b), expected, "{code} of {a:#x} and {b:#x}");
    }
}

#[test]
fn a_64_bit_hash_as_dropout_masks_use() {
    let code = "cvt.u64.u32 %w4, %a; mul.lo.s64 %w4, %w4, -7046029254386353131; shr.u64 %w5, %w4, 30;
        xor.b64 %w4, %w4, %w5; mul.lo.s64 %w4, %w4, -4658895280553007687; shr.u64 %w4, %w4, 40; cvt.u32.u64 %d, %w4;";
    let expected = |a: u64| {
        let z = a.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as u32
    };
    assert_eq!(lanes(code, |lane| [lane, 0]).unwrap(), (0..32).map(expected).collect::<Vec<_>>());
}

#[test]
fn bits() {
    for (code, a, b, expected) in [
        ("and.b32 %d, %a, %b;", 12, 10, 8),
        ("or.b32 %d, %a, %b;", 12, 10, 14),
        ("xor.b32 %d, %a, %b;", 12, 10, 6),
        ("not.b32 %d, %a;", 0xffff_0000, 0, 0xffff),
        ("shl.b32 %d, %a, %b;", 1, 31, 0x8000_0000),
        ("shl.b32 %d, %a, %b;", 1, 32, 0),
        ("shr.u32 %d, %a, %b;", 0x8000_0000, 31, 1),
        ("shr.s32 %d, %a, %b;", 0x8000_0000, 40, 0xffff_ffff),
        ("shf.l.wrap.b32 %d, %a, %b, 8;", 0x1122_3344, 0x5566_7788, 0x6677_8811),
        ("shf.r.wrap.b32 %d, %a, %b, 8;", 0x1122_3344, 0x5566_7788, 0x8811_2233),
        ("lop3.b32 %d, %a, %b, 15, 0xEA;", 12, 10, 15),
        ("lop3.b32 %d, %a, %b, 3, 0x40;", 12, 10, 8),
        ("bfe.u32 %d, %a, 4, %b;", 0x1234_5678, 8, 0x67),
        ("bfe.s32 %d, %a, 4, %b;", 0xf8f, 4, 0xffff_fff8),
        ("bfi.b32 %d, %a, %b, 4, 8;", 0xfab, 0xffff_ffff, 0xffff_fabf),
        ("popc.b32 %d, %a;", 0xf0f0, 0, 8),
        ("clz.b32 %d, %a;", 1, 0, 31),
        ("brev.b32 %d, %a;", 1, 0, 0x8000_0000),
        ("prmt.b32 %d, %a, %b, 0x7531;", 0x4433_2211, 0x8877_6655, 0x8866_4422),
        ("prmt.b32 %d, %a, %b, 0xBBBB;", 0x8033_2211, 0, 0xffff_ffff),
    ] {
        assert_eq!(one(code, a, b), expected, "{code} of {a:#x} and {b:#x}");
    }
}

#[test]
fn floats() {
    let (one_f, three, tiny) = (1.0f32.to_bits(), 3.0f32.to_bits(), f32::from_bits(3));
    let nan = f32::NAN.to_bits();
    for (code, a, b, expected) in [
        ("add.f32 %d, %a, %b;", one_f, three, 4.0f32),
        (
            "fma.rn.f32 %d, %a, %b, 0fBF800000;",
            0x3f80_0003,
            0x3f80_0003,
            f32::from_bits((6.0f32 / 8_388_608.0).to_bits() + 2),
        ),
        ("fma.rm.f32 %d, %a, %b, 0f4B400001;", 0.5f32.to_bits(), one_f, 12_582_913.0),
        ("fma.rm.f32 %d, %a, %b, 0fB3800000;", one_f, one_f, 1.0 - 1.0 / 16_777_216.0),
        ("cvt.sat.f32.f32 %d, %a;", three, 0, 1.0),
        ("cvt.sat.f32.f32 %d, %a;", nan, 0, 0.0),
        ("div.rn.f32 %d, %a, %b;", one_f, three, 1.0 / 3.0),
        ("mul.ftz.f32 %d, %a, %b;", tiny.to_bits(), one_f, 0.0),
        ("mul.f32 %d, %a, %b;", tiny.to_bits(), one_f, tiny),
        ("max.f32 %d, %a, %b;", nan, one_f, 1.0),
        ("neg.f32 %d, %a;", one_f, 0, -1.0),
        ("ex2.approx.ftz.f32 %d, %a;", three, 0, 8.0),
        ("lg2.approx.f32 %d, %a;", 8.0f32.to_bits(), 0, 3.0),
        ("rcp.approx.f32 %d, %a;", 4.0f32.to_bits(), 0, 0.25),
        ("sqrt.approx.f32 %d, %a;", 9.0f32.to_bits(), 0, 3.0),
        ("rsqrt.approx.f32 %d, %a;", 4.0f32.to_bits(), 0, 0.5),
        ("cvt.rn.f32.s32 %d, %a;", 0xffff_fffd, 0, -3.0),
        ("cvt.rn.f32.u32 %d, %a;", 0xffff_ffff, 0, 4_294_967_296.0),
        ("cvt.rn.bf16.f32 %h1, %a; mov.b32 %d, {0, %h1};", 0x3f80_8000, 0, 1.0),
        ("cvt.rn.bf16.f32 %h1, %a; mov.b32 %d, {0, %h1};", 0x3f81_8000, 0, 1.015_625),
        ("cvt.rn.bf16.f32 %h1, %a; mov.b32 %d, {0, %h1};", 16.062_508f32.to_bits(), 0, 16.125),
        ("cvt.rn.f16.f32 %h1, %a; cvt.f32.f16 %d, %h1;", 65520.0f32.to_bits(), 0, f32::INFINITY),
        (
            "mov.b32 {%h1, %h2}, %a; fma.rn.bf16 %h3, %h1, %h2, %h2; mov.b32 %d, {0, %h3};",
            0x4040_4000,
            0,
            9.0,
        ),
    ] {
        assert_eq!(f32::from_bits(one(code, a, b)), expected, "{code}");
    }
    assert!(f32::from_bits(one("max.NaN.f32 %d, %a, %b;", nan, one_f)).is_nan());
    for (code, value, expected) in [("rni", 2.5f32, 2), ("rzi", -2.5, -2), ("rmi", -2.5, -3), ("rpi", 2.1, 3)]
    {
        let code = format!("cvt.{code}.s32.f32 %d, %a;");
        assert_eq!(one(&code, value.to_bits(), 0) as i32, expected, "{code}");
    }
    assert_eq!(one("cvt.rn.bf16x2.f32 %d, %a, %b;", 2.0f32.to_bits(), 1.0f32.to_bits()), 0x4000_3f80);
}

#[test]
fn comparisons() {
    let nan = f32::NAN.to_bits();
    for (relation, a, b, expected) in [
        ("lt.s32", 0xffff_ffff, 0, 1),
        ("lt.u32", 0xffff_ffff, 0, 0),
        ("lo.u32", 1, 2, 1),
        ("ge.f32", 1.0f32.to_bits(), 1.0f32.to_bits(), 1),
        ("ne.f32", nan, nan, 0),
        ("neu.f32", nan, nan, 1),
        ("ltu.f32", nan, 0, 1),
        ("num.f32", nan, 0, 0),
        ("nan.f32", nan, 0, 1),
    ] {
        let code = format!("setp.{relation} %p1, %a, %b; selp.u32 %d, 1, 0, %p1;");
        assert_eq!(one(&code, a, b), expected, "{relation}");
    }
    let both = "setp.eq.u32 %p2, %a, 5; setp.lt.and.u32 %p1|%p3, %b, 9, %p2; selp.u32 %d, 1, 0, %p3;";
    assert_eq!((one(both, 5, 10), one(both, 5, 3), one(both, 4, 10)), (1, 0, 0));
}

#[test]
fn lanes_exchange_values() {
    let shuffled = |code: &str| lanes(code, |lane| [lane * 10, 0]).unwrap();
    let expected = |f: fn(u32) -> u32| (0..32).map(|lane| 10 * f(lane)).collect::<Vec<_>>();
    assert_eq!(shuffled("shfl.sync.bfly.b32 %d, %a, 5, 31, -1;"), expected(|lane| lane ^ 5));
    assert_eq!(shuffled("shfl.sync.idx.b32 %d, %a, 7, 31, -1;"), expected(|_| 7));
    let down = |lane| if lane + 3 < 32 { lane + 3 } else { lane };
    assert_eq!(shuffled("shfl.sync.down.b32 %d, %a, 3, 31, -1;"), expected(down));
    assert_eq!(
        shuffled("shfl.sync.up.b32 %d, %a, 3, 0, -1;"),
        expected(|lane| lane.checked_sub(3).unwrap_or(lane))
    );
    // Parts of eight lanes.
    let parts = |lane| if lane % 8 + 3 < 8 { lane + 3 } else { lane };
    assert_eq!(shuffled("shfl.sync.down.b32 %d, %a, 3, 0x1807, -1;"), expected(parts));
    let odd = "and.b32 %r2, %a, 1; setp.eq.u32 %p1, %r2, 1; vote.sync.ballot.b32 %d, %p1, -1;";
    assert_eq!(lanes(odd, |lane| [lane, 0]).unwrap(), vec![0xaaaa_aaaa; 32]);
    assert_eq!(lanes("redux.sync.add.s32 %d, %a, -1;", |lane| [lane, 0]).unwrap(), vec![496; 32]);
}

#[test]
fn lanes_diverge_and_meet() {
    let code = "mov.u32 %d, 0; mov.u32 %r2, 0;
        LOOP: setp.ge.u32 %p1, %r2, %a; @%p1 bra DONE; add.u32 %d, %d, %r2; add.u32 %r2, %r2, 1; bra LOOP;
        DONE: shfl.sync.bfly.b32 %d, %d, 1, 31, -1;";
    let triangle = |n: u32| n * n.saturating_sub(1) / 2;
    let expected: Vec<u32> = (0..32).map(|lane| triangle(lane ^ 1)).collect();
    assert_eq!(lanes(code, |lane| [lane, 0]).unwrap(), expected);
}

#[test]
fn a_shuffle_without_some_of_its_lanes_is_a_fault() {
    let code = "setp.lt.u32 %p1, %a, 7; mov.u32 %d, 0; @%p1 shfl.sync.bfly.b32 %d, %a, 1, 31, -1;";
    assert_eq!(lanes(code, |lane| [lane, 0]), Err(Problem::Partial { active: 0x7f }));
}
