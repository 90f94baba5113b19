//! Texts that are read, and texts that are not.

use super::Module;
use crate::ParseError;

const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";

fn parse(text: &str) -> Result<Module, ParseError> {
    Module::parse(&format!("{HEAD}{text}"))
}

#[test]
fn a_kernel_has_its_name_parameters_and_shared_memory() {
    let text =
        "/* two\nlines */ .visible .entry k(\n .param .u64 .ptr .align 1 p, // a pointer\n .param .u32 n,
        .param .align 8 .b8 info[24]\n)\n.maxntid 128, 1, 1\n{
        .shared .align 16 .b8 room[100]; .shared .f32 one;
        .reg .b32 %r<3>;\n { .reg .b32 %r1; mov.u32 %r1, room; }\n ret; }";
    let module = parse(text).unwrap();
    let kernel = &module.kernels()[0];
    assert_eq!((kernel.name.as_str(), kernel.shared_bytes), ("k", 112));
    assert_eq!(kernel.parameters, [(0, 8), (8, 4), (16, 24)]);
    // The inner register is another than the outer one of its name.
    assert_eq!(kernel.registers, 4);
    let texts: Vec<_> = kernel.instructions().iter().map(|one| (one.line, one.kind().to_owned())).collect();
    assert_eq!(texts, [(14, "mov".to_owned()), (15, "ret".to_owned())]);
}

#[test]
fn what_is_not_modelled_is_an_error() {
    for instruction in [
        "atom.global.add.u32 %r1, [%w1], 1;",
        "red.global.add.f32 [%w1], %f1;",
        "add.cc.u32 %r1, %r1, 1;",
        "add.rz.f32 %f1, %f1, %f1;",
        "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%f1}, {%r1}, {%r1}, {%f1};",
        "bar.sync 1, 64;",
        "tex.1d.v4.f32.s32 {%f1}, [%w1];",
    ] {
        let text =
            format!(".entry k() {{ .reg .b32 %r<4>; .reg .b64 %w<4>; .reg .f32 %f<4>; {instruction} ret; }}");
        let error = parse(&text).map(|_| instruction).unwrap_err();
        assert!(matches!(error, ParseError::Instruction { line: 4, .. }), "{error}");
    }
}

#[test]
fn broken_texts_are_errors() {
    for (text, name) in [
        (".entry k() { mov.u32 %r1, 0; ret; }", "%r1"),
        (".entry k() { .reg .b32 %r<2>; mov.u32 %r1, nowhere; ret; }", "nowhere"),
        (".entry k() { bra NOWHERE; }", "NOWHERE"),
        (".entry k() { .reg .b32 %r<2>; ld.global.u32 %r1, [nowhere+4]; }", "nowhere"),
    ] {
        assert_eq!(parse(text).unwrap_err(), ParseError::Name { line: 4, name: name.to_owned() });
    }
    for text in [
        ".entry k() { ret;",
        ".entry k()",
        ".entry k() { .reg .b32 %r<99999999>; }",
        ".entry k() { .shared .b8 room[99999999999]; }",
        ".func f() { ret; }",
        ".const .f32 table[2] = {0f3F800000, 1, 2};",
        ".const",
        "}",
        ".entry k() { } }",
        ".entry k(.param) { ret; }",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}
