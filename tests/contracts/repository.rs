//! What holds for the repository as a whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cargo_metadata::MetadataCommand;
use seedcorn::recipe;

/// Which crate may use which: `kernels <- adapters <- trainer <- tests`, `data <- trainer`, `ptx <- tests`.
const EDGES: [(&str, &[&str]); 6] = [
    ("seedcorn-ptx", &[]),
    ("seedcorn-kernels", &[]),
    ("seedcorn-data", &[]),
    ("seedcorn-adapters", &["seedcorn-kernels"]),
    ("seedcorn", &["seedcorn-kernels", "seedcorn-adapters", "seedcorn-data"]),
    (
        "seedcorn-tests",
        &["seedcorn-ptx", "seedcorn-kernels", "seedcorn-adapters", "seedcorn-data", "seedcorn"],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the repository").to_owned()
}

#[test]
fn dependencies_point_one_way() {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo metadata");
    let members: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(members, EDGES.iter().map(|(name, _)| *name).collect(), "a crate without a place");
    for package in &metadata.packages {
        let allowed = EDGES.iter().find(|(name, _)| *name == package.name.as_str()).expect("a member").1;
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            assert!(
                !members.contains(name) || allowed.contains(&name),
                "`{}` must not use `{name}` ({})",
                package.name,
                dependency.kind,
            );
        }
    }
}

fn toml_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(folder).expect("listed") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            toml_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
}

#[test]
fn every_recipe_is_valid() {
    let (folder, mut found) = (root().join("recipes"), Vec::new());
    if folder.exists() {
        toml_files(&folder, &mut found);
        assert!(!found.is_empty(), "no recipe in `{}`", folder.display());
    }
    for path in found {
        if let Err(error) = recipe::load(&path, &[]) {
            panic!("{error}");
        }
    }
}
