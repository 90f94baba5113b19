//! Every byte counts.

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::*;

#[test]
fn a_change_of_any_byte_of_any_file_is_found_and_named() {
    let stage = Stage::small().signed();
    assert_eq!(stage.found_names(), Vec::<String>::new());
    for name in ["a.json", "empty", "sub/w.bin", "sub/x"] {
        let content = fs_err::read(stage.path(name)).unwrap();
        let mut others: Vec<Vec<u8>> = (0..content.len())
            .map(|at| {
                let mut other = content.clone();
                other[at] ^= 1;
                other
            })
            .collect();
        others.push([content.as_slice(), b"\0"].concat());
        others.extend((!content.is_empty()).then(|| content[1..].to_vec()));
        for other in others {
            stage.write(name, &other);
            assert_eq!(stage.found_names(), [name]);
        }
        stage.write(name, &content);
    }
    assert_eq!(stage.found_names(), Vec::<String>::new());
}

#[test]
fn a_change_of_any_byte_of_the_signature_is_found() {
    let stage = Stage::small().signed();
    let signature = fs_err::read(signature_of(&stage.folder())).unwrap();
    let last = signature.len() - 1;
    let changes: Vec<(usize, u8)> = (0..=last)
        .flat_map(|at| {
            let byte = signature[at];
            [byte ^ 1, byte ^ 0x20, b' '].map(|new| (at, new))
        })
        .filter(|(at, new)| signature[*at] != *new)
        .collect();
    let key = public("P-256");
    let accepted: Vec<(usize, u8)> = changes
        .into_par_iter()
        .filter(|(at, new)| {
            let mut changed = signature.clone();
            changed[*at] = *new;
            let path = stage.0.path().join(format!("{at}-{new}.sig"));
            fs_err::write(&path, changed).unwrap();
            verify(&stage.folder(), &path, Some(&key), &VerifyOptions::default())
                .is_ok_and(|verified| verified.signed_by.is_some())
        })
        .collect();
    // The line break at the end of the file is white space, as a space is.
    assert_eq!((accepted, signature[last]), (vec![(last, b' ')], b'\n'));
}

#[test]
fn a_signature_that_is_cut_or_prolonged_is_refused() {
    let stage = Stage::small().signed();
    let path = signature_of(&stage.folder());
    let signature = fs_err::read(&path).unwrap();
    for end in 0..signature.len() - 1 {
        fs_err::write(&path, &signature[..end]).unwrap();
        assert!(matches!(stage.verify(), Err(SignatureError::Malformed { .. })), "{end}");
    }
    fs_err::write(&path, [signature.as_slice(), b"{}"].concat()).unwrap();
    assert!(matches!(stage.verify(), Err(SignatureError::Malformed { .. })));
}

#[test]
fn added_missing_and_renamed_files_are_found() {
    let stage = Stage::small().signed();
    stage.write("sub/new", b"");
    assert_eq!(stage.found(), [("sub/new".to_owned(), Fault::Unlisted)]);
    let lenient = VerifyOptions { allow_unlisted: true, ..VerifyOptions::default() };
    assert_eq!(stage.verify_with(&lenient).unwrap().ignored, ["sub/new"]);
    let ignoring = |path: &str| VerifyOptions { ignore: vec![path.into()], ..VerifyOptions::default() };
    assert_eq!(stage.verify_with(&ignoring("./sub/new/")).unwrap().ignored, ["sub/new"]);
    for outside in ["/tmp", "../model/sub", "."] {
        let error = stage.verify_with(&ignoring(outside)).unwrap_err();
        assert!(matches!(error, SignatureError::IgnoredNothing { .. }), "{error}");
    }
    // Signed files are verified, also where others are ignored.
    assert_eq!(stage.verify_with(&ignoring("sub")).unwrap().files, 4);
    stage.write("sub/x", b"y");
    assert_eq!(stage.verify_with(&ignoring("sub")).unwrap_err().findings().len(), 1);
    stage.write("sub/x", b"x");
    fs_err::remove_file(stage.path("sub/new")).unwrap();

    fs_err::rename(stage.path("a.json"), stage.path("b.json")).unwrap();
    let renamed = [("a.json".to_owned(), Fault::Missing), ("b.json".to_owned(), Fault::Unlisted)];
    assert_eq!(stage.found(), renamed);
    // A folder in the place of a file.
    stage.write("a.json/b", b"{\"rank\": 2}");
    assert_eq!(stage.found_names(), ["a.json", "a.json/b", "b.json"]);
}

#[test]
fn two_files_that_change_places_are_found() {
    let stage = Stage::new(&[("1", b"one"), ("2", b"two")]).signed();
    stage.write("1", b"two");
    stage.write("2", b"one");
    assert_eq!(stage.found_names(), ["1", "2"]);
}

#[cfg(unix)]
#[test]
fn links_in_the_place_of_files_are_found() {
    use std::os::unix::fs::symlink;
    let stage = Stage::small().signed();
    fs_err::rename(stage.path("a.json"), stage.0.path().join("a.json")).unwrap();
    symlink("../a.json", stage.path("a.json")).unwrap();
    symlink("sub", stage.path("more")).unwrap();
    let links = [("a.json".to_owned(), Fault::Link), ("more".to_owned(), Fault::Link)];
    assert_eq!(stage.found(), links);
    let lenient = VerifyOptions { allow_unlisted: true, ..VerifyOptions::default() };
    assert_eq!(stage.verify_with(&lenient).unwrap_err().findings()[0].fault, Fault::Link);
}
