//! What `--help` says. Accept a change with `just bless`.

use insta::assert_snapshot;

use crate::stage::Stage;

#[test]
fn program() {
    assert_snapshot!(Stage::new().seedcorn("--help"));
}

#[test]
fn train() {
    assert_snapshot!(Stage::new().seedcorn("train --help"));
}

#[test]
fn check() {
    assert_snapshot!(Stage::new().seedcorn("check --help"));
}

#[test]
fn inspect() {
    assert_snapshot!(Stage::new().seedcorn("inspect --help"));
}

#[test]
fn plan() {
    assert_snapshot!(Stage::new().seedcorn("plan --help"));
}

#[test]
fn merge() {
    assert_snapshot!(Stage::new().seedcorn("merge --help"));
}

#[test]
fn eval() {
    assert_snapshot!(Stage::new().seedcorn("eval --help"));
}

#[test]
fn generate() {
    assert_snapshot!(Stage::new().seedcorn("generate --help"));
}

#[test]
fn verify() {
    assert_snapshot!(Stage::new().seedcorn("verify --help"));
}

#[test]
fn sign() {
    assert_snapshot!(Stage::new().seedcorn("sign --help"));
}

#[test]
fn report() {
    assert_snapshot!(Stage::new().seedcorn("report --help"));
}

#[test]
fn doctor() {
    assert_snapshot!(Stage::new().seedcorn("doctor --help"));
}

#[test]
fn version() {
    assert_snapshot!(Stage::new().seedcorn("--version"));
}
