//! `sign`: what it prints, what it writes, what it refuses.

use insta::assert_snapshot;

use crate::stage::Stage;

fn stage() -> Stage {
    let stage = Stage::new();
    stage.copy("signing/P-256.pem", "private.pem");
    stage.copy("signing/P-256.pub.pem", "public.pem");
    stage.write("signed/.gitignore", "*.tmp\n");
    stage.write("signed/config.json", "{}\n");
    stage.write("signed/weights/w.bin", [0, 1, 2]);
    stage
}

#[test]
fn signs_a_folder_and_again_to_the_same_bytes() {
    let stage = stage();
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem"), @"");
    let first = stage.read("signed/model.sig");
    assert_eq!(stage.seedcorn("sign signed --key private.pem --quiet"), "exit 0");
    assert_eq!(first, stage.read("signed/model.sig"));
    assert!(!stage.path("model.sig").exists());
}

#[test]
fn leaves_out_what_is_ignored() {
    let stage = stage();
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem --ignore weights --signature out.sig"), @"");
    assert!(stage.path("out.sig").exists() && !stage.path("signed/model.sig").exists());
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem --ignore wieghts"), @"");
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem --ignore ../data.jsonl"), @"");
}

#[test]
fn a_signature_replaces_nothing_but_a_signature() {
    let stage = stage();
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem --signature signed/config.json"), @"");
    assert_eq!(stage.read("signed/config.json"), "{}\n");
}

#[test]
fn keys_that_cannot_sign() {
    let stage = stage();
    assert_snapshot!(stage.seedcorn("sign signed --key public.pem"), @"");
    assert_snapshot!(stage.seedcorn("sign signed --key data.jsonl"), @"");
    assert_snapshot!(stage.seedcorn("sign signed --key none.pem"), @"");
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    stage.write("locked.pem", locked);
    assert_snapshot!(stage.seedcorn("sign signed --key locked.pem"), @"");
    assert!(!stage.path("signed/model.sig").exists());
}

#[test]
fn folders_that_cannot_be_signed() {
    let stage = stage();
    assert_snapshot!(stage.seedcorn("sign none --key private.pem"), @"");
    stage.write("git/.gitignore", "");
    assert_snapshot!(stage.seedcorn("sign git --key private.pem"), @"");
}

#[cfg(unix)]
#[test]
fn links_are_refused_unless_allowed() {
    use std::os::unix::fs::symlink;
    let stage = stage();
    symlink("config.json", stage.path("signed/inside.json")).unwrap();
    symlink("../data.jsonl", stage.path("signed/outside.jsonl")).unwrap();
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem"), @"");
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem --allow-symlinks"), @"");
    symlink("weights", stage.path("signed/folder")).unwrap();
    symlink("none", stage.path("signed/broken")).unwrap();
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem --allow-symlinks"), @"");
}
