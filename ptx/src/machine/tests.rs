//! Faults that a GPU would not report, and kernels that NVRTC made.

use half::bf16;

use crate::{Argument, Fault, Grid, Memory, Module, Problem, Report};

const FIXTURES: &str = include_str!("../../fixtures/fixtures.ptx");

fn grid(blocks: u32, threads: u32) -> Grid {
    Grid { blocks: [blocks, 1, 1], threads: [threads, 1, 1], dynamic_shared_bytes: 0 }
}

/// Runs a body with a buffer of 64 words, the first half of which is written, as parameter `p`.
fn body(grid: Grid, body: &str) -> Result<Report, Fault> {
    let text = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{{
        .reg .pred %p<9>; .reg .b32 %r<9>; .reg .b64 %w<9>; .reg .f32 %f<9>;
        .shared .align 4 .b8 room[256];
        mov.u32 %r1, %tid.x; shl.b32 %r2, %r1, 2; mov.u32 %r3, room; add.s32 %r3, %r3, %r2;
        cvt.u64.u32 %w2, %r2; ld.param.u64 %w1, [p]; add.s64 %w2, %w1, %w2;
        {body}
        ret; }}"
    );
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}")).limited(1000);
    let mut memory = Memory::new();
    let buffer = memory.reserve(256);
    module.launch("k", grid, &[Argument::Buffer(buffer)], &mut memory)
}

fn problem(threads: u32, text: &str) -> Problem {
    body(grid(1, threads), text).expect_err("a fault").problem
}

#[test]
fn accesses_outside_of_memory_are_faults() {
    assert!(body(grid(1, 64), "st.global.u32 [%w2], 1;").is_ok());
    let fault = body(grid(1, 96), "st.global.u32 [%w2], 1;").unwrap_err();
    assert!(matches!(fault.problem, Problem::OutOfBounds { space: "global", bytes: 4, .. }), "{fault}");
    assert_eq!((fault.thread, fault.instruction.as_str()), (64, "st.global.u32 [%w2], 1"));
    assert!(matches!(problem(96, "st.shared.u32 [%r3], 1;"), Problem::OutOfBounds { space: "shared", .. }));
    assert!(matches!(
        problem(1, "ld.param.u32 %r4, [p+8];"),
        Problem::OutOfBounds { space: "parameter", .. }
    ));
    assert!(matches!(problem(1, "st.global.u32 [%w1+2], 1;"), Problem::Misaligned { bytes: 4, .. }));
    assert!(matches!(
        problem(1, "st.global.v2.u32 [%w1+4], {%r1, %r1};"),
        Problem::Misaligned { bytes: 8, .. }
    ));
}

#[test]
fn reads_of_what_nobody_wrote_are_faults() {
    assert!(matches!(problem(1, "ld.shared.u32 %r4, [%r3];"), Problem::Unset { space: "shared", .. }));
    assert!(matches!(problem(1, "ld.global.u32 %r4, [%w2];"), Problem::Unset { space: "global", .. }));
    assert!(body(grid(1, 1), "st.shared.u32 [%r3], 1; ld.shared.u32 %r4, [%r3];").is_ok());
    // Half of what is read was written.
    let half = "st.shared.u16 [room], 1; ld.shared.u32 %r4, [room];";
    assert_eq!(problem(1, half), Problem::Unset { space: "shared", address: 0x0100_0002 });
}

#[test]
fn an_asynchronous_copy_must_be_waited_for() {
    let copy = "st.global.u32 [%w2], %r1; cp.async.ca.shared.global [%r3], [%w2], 4; cp.async.commit_group;";
    assert!(body(grid(1, 32), &format!("{copy} cp.async.wait_group 0; ld.shared.u32 %r4, [%r3];")).is_ok());
    assert!(body(grid(1, 32), &format!("{copy} cp.async.wait_all; ld.shared.u32 %r4, [%r3];")).is_ok());
    for wait in ["", "cp.async.wait_group 1;"] {
        let read = format!("{copy} {wait} ld.shared.u32 %r4, [%r3];");
        assert!(matches!(problem(32, &read), Problem::Unset { space: "shared", .. }), "{wait}");
    }
}

#[test]
fn races_between_warps_are_faults() {
    // Each thread reads what its neighbour in the other warp wrote.
    let exchange = |barrier: &str| {
        format!("st.shared.u32 [%r3], %r1; {barrier} xor.b32 %r2, %r2, 128; mov.u32 %r4, room; add.s32 %r4, %r4, %r2;
            ld.shared.u32 %r5, [%r4];")
    };
    assert!(body(grid(1, 64), &exchange("bar.sync 0;")).is_ok());
    // The first warp reads what the second has not written yet.
    assert!(matches!(problem(64, &exchange("")), Problem::Unset { .. }));
    let read_then_write =
        "st.shared.u32 [%r3], 1; bar.sync 0; ld.shared.u32 %r4, [room]; st.shared.u32 [room], 1;";
    let Problem::Race { first, second, .. } = problem(64, read_then_write) else { panic!("no race") };
    assert_eq!((first.as_str(), second.as_str()), ("warp 0 writes", "warp 1 reads"));
    let all_read = "st.shared.u32 [%r3], 1; bar.sync 0; ld.shared.u32 %r4, [room]; setp.ge.u32 %p1, %r1, 32;
        @%p1 st.shared.u32 [room], 1;";
    assert!(matches!(problem(64, all_read), Problem::Race { .. }));
    let lanes = "st.shared.u32 [room], %r1;";
    assert!(matches!(problem(32, lanes), Problem::Collision { address: 0x0100_0000 }));
    assert!(body(grid(1, 32), "st.shared.u32 [room], 7;").is_ok());
}

#[test]
fn races_between_blocks_are_faults() {
    assert!(body(grid(1, 32), "st.global.u32 [%w2], 1;").is_ok());
    let fault = body(grid(2, 32), "st.global.u32 [%w2], 1;").unwrap_err();
    let expected = ("block 0 writes".to_owned(), "block 1 writes".to_owned());
    assert!(
        matches!(&fault.problem, Problem::Race { space: "global", first, second, .. }
        if (first, second) == (&expected.0, &expected.1)),
        "{fault}"
    );
    assert_eq!(fault.block, [1, 0, 0]);
}

#[test]
fn barriers_are_for_all_threads() {
    let some = "setp.lt.u32 %p1, %r1, 32; @%p1 bar.sync 0;";
    assert_eq!(problem(64, some), Problem::Barrier { waiting: 32, threads: 64 });
    let ended = "setp.lt.u32 %p1, %r1, 32; @%p1 ret; bar.sync 0;";
    assert_eq!(problem(64, ended), Problem::Barrier { waiting: 32, threads: 64 });
    let two = "setp.lt.u32 %p1, %r1, 7; @%p1 bra OTHER; bar.sync 0; bra DONE; OTHER: bar.sync 0; DONE:";
    assert!(matches!(problem(32, two), Problem::Barrier { .. }));
}

#[test]
fn a_kernel_that_does_not_end_is_a_fault() {
    assert_eq!(problem(1, "AGAIN: bra AGAIN;"), Problem::Endless { limit: 1000 });
}

#[test]
fn arguments_must_fit() {
    let module = Module::parse(FIXTURES).unwrap();
    let mut memory = Memory::new();
    for (kernel, arguments) in
        [("row_sum", vec![]), ("none", vec![]), ("softmax", vec![Argument::Value(vec![0; 4]); 2])]
    {
        let fault = module.launch(kernel, grid(1, 32), &arguments, &mut memory).unwrap_err();
        assert!(matches!(fault.problem, Problem::Arguments { .. }), "{fault}");
    }
}

/// Runs a kernel of the fixtures; the last buffer is the result.
fn fixture(
    kernel: &str,
    launch: Grid,
    inputs: &[&[u8]],
    more: &[Argument],
    bytes: usize,
) -> Result<Vec<u8>, Fault> {
    run(&Module::parse(FIXTURES).unwrap(), kernel, launch, inputs, more, bytes)
}

fn run(
    module: &Module,
    kernel: &str,
    launch: Grid,
    inputs: &[&[u8]],
    more: &[Argument],
    bytes: usize,
) -> Result<Vec<u8>, Fault> {
    let mut memory = Memory::new();
    let mut arguments: Vec<_> = inputs.iter().map(|input| Argument::Buffer(memory.upload(input))).collect();
    let out = memory.reserve(bytes);
    // Scalars stand before the result in `unpack`, behind it in `row_sum`.
    if kernel == "unpack" {
        arguments.extend(more.iter().cloned());
        arguments.push(Argument::Buffer(out));
    } else {
        arguments.push(Argument::Buffer(out));
        arguments.extend(more.iter().cloned());
    }
    module.launch(kernel, launch, &arguments, &mut memory)?;
    Ok(memory.read(out).map(<[u8]>::to_vec).unwrap_or_default())
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn narrow(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}

/// Small whole numbers: sums are exact in any order.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + 11) % 23) as f32 - 11.0).collect()
}

#[test]
fn rows_are_summed() {
    let x = numbers(3 * 301);
    let out =
        fixture("row_sum", grid(3, 128), &[&bytes(&x)], &[Argument::Value(301i32.to_le_bytes().into())], 12);
    let expected: Vec<f32> = x.chunks_exact(301).map(|row| row.iter().sum()).collect();
    assert_eq!(floats(&out.unwrap()), expected);
}

#[test]
fn softmax_agrees() {
    let x: Vec<f32> = numbers(64).iter().map(|value| value / 3.0).collect();
    let out = floats(&fixture("softmax", grid(2, 32), &[&bytes(&x)], &[], 256).unwrap());
    for (row, out) in x.chunks_exact(32).zip(out.chunks_exact(32)) {
        let sum: f64 = row.iter().map(|value| f64::from(*value).exp()).sum();
        for (value, out) in row.iter().zip(out) {
            let expected = f64::from(*value).exp() / sum;
            assert!((f64::from(*out) - expected).abs() <= 1e-6 * expected, "{out} {expected}");
        }
    }
}

#[test]
fn nibbles_are_unpacked() {
    let codes: Vec<u8> = (0..64u8).map(|i| i.wrapping_mul(67)).collect();
    let scale = Argument::Value(0.37f32.to_le_bytes().into());
    let out = fixture("unpack", grid(2, 32), &[&codes], &[scale], 256).unwrap();
    let value = |code: u8| if code == 15 { 7.5 } else { f32::from(code) - 8.0 } * 0.37;
    let expected: Vec<f32> = codes.iter().flat_map(|both| [value(both >> 4), value(both & 15)]).collect();
    assert_eq!(out, narrow(&expected));
}

/// `a . b` with `a: [16, 16]` and `b: [16, n]`.
fn product(a: &[f32], b: &[f32], n: usize) -> Vec<f32> {
    let at = |i: usize| (0..16).map(|k| a[i / n * 16 + k] * b[k * n + i % n]).sum();
    (0..16 * n).map(at).collect()
}

#[test]
fn the_matrix_unit_multiplies() {
    let (a, b) = (numbers(256), numbers(400)[272..].to_vec());
    let grid = Grid { dynamic_shared_bytes: 1024, ..grid(1, 32) };
    let out = fixture("product", grid, &[&narrow(&a), &narrow(&b)], &[], 512).unwrap();
    assert_eq!(floats(&out), product(&a, &b, 8));
}

#[test]
fn opaque_fragments_multiply() {
    let (a, b, c) = (numbers(256), numbers(600)[344..].to_vec(), numbers(999)[743..].to_vec());
    let out = fixture("fragments", grid(1, 32), &[&narrow(&a), &narrow(&b), &bytes(&c)], &[], 1024).unwrap();
    // A lies by columns.
    let by_rows: Vec<f32> = (0..256).map(|i| a[i % 16 * 16 + i / 16]).collect();
    let expected: Vec<f32> = product(&by_rows, &b, 16).iter().zip(&c).map(|(sum, c)| sum + c).collect();
    assert_eq!(floats(&out), expected);
}

/// Leaves out one instruction after the other: nearly every one must be missed.
#[test]
fn mutants_are_noticed() {
    let module = Module::parse(FIXTURES).unwrap().limited(10_000);
    let (a, b, c) = (numbers(256), numbers(600)[344..].to_vec(), numbers(999)[743..].to_vec());
    let inputs = [narrow(&a), narrow(&b), bytes(&c)];
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let x = bytes(&numbers(301 * 3));
    let width = [Argument::Value(301i32.to_le_bytes().into())];
    let (unit, wide) = (Grid { dynamic_shared_bytes: 1024, ..grid(1, 32) }, grid(3, 128));
    for (kernel, grid, inputs, more, len, kind, equal) in [
        // Every row is wider than a block, and all lanes hold the sum that one of them stores.
        ("row_sum", wide, vec![x.as_slice()], width.as_slice(), 12, "", 5),
        // Lane numbers are never negative, so what rounds their division down changes nothing.
        ("product", unit, inputs[..2].to_vec(), &[], 512, "", 9),
        // Much of the rest is a loop for lengths that do not occur here.
        ("fragments", unit, inputs.clone(), &[], 1024, "wmma", 0),
    ] {
        let right = run(&module, kernel, grid, &inputs, more, len).unwrap();
        let count = module.kernels().iter().find(|one| one.name == kernel).unwrap().instructions().len();
        let missed: Vec<String> = (0..count)
            .filter(|at| {
                run(&module.without(kernel, *at), kernel, grid, &inputs, more, len).as_ref() == Ok(&right)
            })
            .map(|at| {
                module.kernels().iter().find(|one| one.name == kernel).unwrap().instructions()[at]
                    .text
                    .clone()
            })
            .collect();
        // Registers start as zeros here, one address space is as good as another, and lanes run in step.
        let harmless = |text: &str| {
            text.starts_with("cvta")
                || text.starts_with("ret")
                || text.starts_with("bar.warp")
                || text.ends_with(", 0")
                || text.ends_with("0f00000000")
                || text.starts_with("cp.async.commit")
        };
        let wrong: Vec<_> = missed.iter().filter(|text| text.starts_with(kind) && !harmless(text)).collect();
        assert!(wrong.len() <= equal, "{kernel}: {wrong:?}");
    }
}
