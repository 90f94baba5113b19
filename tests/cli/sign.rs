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
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem"), @r"
    exit 0
    ----- stdout
    signed: 2 files, 6 bytes
    not signed: .gitignore
    root digest: 3eb03647089418fbad66edabddbbb24569ab2244d9c692263863bd85f171401c
    key: P-256, e7bdc351995380a86bb90617967df50f82f08cd1325c0a56047614ca4c38e0cf
    signature: signed/model.sig
    ");
    let first = stage.read("signed/model.sig");
    assert_eq!(stage.seedcorn("sign signed --key private.pem --quiet"), "exit 0");
    assert_eq!(first, stage.read("signed/model.sig"));
    assert!(!stage.path("model.sig").exists());
}

#[test]
fn leaves_out_what_is_ignored() {
    let stage = stage();
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem --ignore weights --signature out.sig"), @r"
    exit 0
    ----- stdout
    signed: 1 file, 3 bytes
    not signed: .gitignore, weights
    root digest: 99c9eabdf3d25ff2826c4296b31961c421da47bffdeb182ab32394973114c297
    key: P-256, e7bdc351995380a86bb90617967df50f82f08cd1325c0a56047614ca4c38e0cf
    signature: out.sig
    ");
    assert!(stage.path("out.sig").exists() && !stage.path("signed/model.sig").exists());
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem --ignore wieghts"), @r"
    exit 2
    ----- stderr
    error: `wieghts` to ignore is not in `signed`

    hint: write it relative to the folder
    ");
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem --ignore ../data.jsonl"), @r"
    exit 2
    ----- stderr
    error: `../data.jsonl` to ignore is not in `signed`

    hint: write it relative to the folder
    ");
}

#[test]
fn a_signature_replaces_nothing_but_a_signature() {
    let stage = stage();
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem --signature signed/config.json"), @r"
    exit 2
    ----- stderr
    error: `signed/config.json` exists and is no signature

    hint: name another file with `--signature`
    ");
    assert_eq!(stage.read("signed/config.json"), "{}\n");
}

#[test]
fn keys_that_cannot_sign() {
    let stage = stage();
    assert_snapshot!(stage.seedcorn("sign signed --key public.pem"), @r"
    exit 2
    ----- stderr
    error: `public.pem` holds a public key, but signing needs the private one

    hint: give the private key, which only the signer has
    ");
    assert_snapshot!(stage.seedcorn("sign signed --key data.jsonl"), @r"
    exit 2
    ----- stderr
    error: `data.jsonl` holds no PEM block

    hint: `openssl ecparam -name prime256v1 -genkey -noout -out private.pem` makes a key
    ");
    assert_snapshot!(stage.seedcorn("sign signed --key none.pem"), @r"
    exit 2
    ----- stderr
    error: could not read `none.pem`
      Caused by: failed to open file `none.pem`: No such file or directory (os error 2)
    ");
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    stage.write("locked.pem", locked);
    assert_snapshot!(stage.seedcorn("sign signed --key locked.pem"), @r"
    exit 2
    ----- stderr
    error: `locked.pem` holds an encrypted private key

    hint: give it decrypted, without a copy on disk: `--key <(openssl pkey -in locked.pem)`
    ");
    assert!(!stage.path("signed/model.sig").exists());
}

#[test]
fn folders_that_cannot_be_signed() {
    let stage = stage();
    assert_snapshot!(stage.seedcorn("sign none --key private.pem"), @r"
    exit 2
    ----- stderr
    error: `none` is not a folder

    hint: name the folder whose files are signed
    ");
    stage.write("git/.gitignore", "");
    assert_snapshot!(stage.seedcorn("sign git --key private.pem"), @r"
    exit 2
    ----- stderr
    error: `git` holds no file to sign
    ");
}

#[cfg(unix)]
#[test]
fn links_are_refused_unless_allowed() {
    use std::os::unix::fs::symlink;
    let stage = stage();
    symlink("config.json", stage.path("signed/inside.json")).unwrap();
    symlink("../data.jsonl", stage.path("signed/outside.jsonl")).unwrap();
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem"), @r"
    exit 1
    ----- stderr
    error: `signed` cannot be signed:
      `inside.json` is a symbolic link
      `outside.jsonl` is a symbolic link

    hint: remove these, leave them out with `--ignore`, or allow links with `--allow-symlinks`
    ");
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem --allow-symlinks"), @r"
    exit 0
    ----- stdout
    signed: 4 files, 1977 bytes
    not signed: .gitignore
    root digest: f3e9bb42a820b7056f81234b8534969d85409b52d4aec8d36a3ae2d0c9ec8892
    key: P-256, e7bdc351995380a86bb90617967df50f82f08cd1325c0a56047614ca4c38e0cf
    signature: signed/model.sig
    ----- stderr
    warning: `outside.jsonl` links to a file outside of the folder: only its content is signed
    ");
    symlink("weights", stage.path("signed/folder")).unwrap();
    symlink("none", stage.path("signed/broken")).unwrap();
    assert_snapshot!(stage.seedcorn("sign signed --key private.pem --allow-symlinks"), @r"
    exit 1
    ----- stderr
    error: `signed` cannot be signed:
      `broken` is a symbolic link to nothing
      `folder` is a symbolic link to a folder, which no signature can cover

    hint: remove these, leave them out with `--ignore`, or allow links with `--allow-symlinks`
    ");
}
