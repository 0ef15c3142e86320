//! What holds for packages: which of ours may use which, a description each, and the lint that forbids `unsafe`.

use std::path::Path;

use syn::Meta;

use super::Finding;
use crate::workspace::{Package, RustSource, Target};

/// Every package and those of ours that it may use, in any kind of dependency. A package that is not listed may not
/// exist: adding one is a decision about the layers.
const LAYERS: &[(&str, &[&str])] = &[
    ("tidegate-shm", &[]),
    ("tidegate-io", &[]),
    ("tidegate-aeron", &[]),
    ("tidegate-sbe", &[]),
    ("tidegate-zmtp", &["tidegate-io"]),
    ("tidegate-mq", &["tidegate-zmtp", "tidegate-io"]),
    ("tidegate-udf", &["tidegate-shm"]),
    ("tidegate-tensor", &["tidegate-shm", "tidegate-aeron", "tidegate-sbe"]),
    ("tidegate-hub-derive", &[]),
    ("tidegate-hub", &["tidegate-hub-derive", "tidegate-shm", "tidegate-mq"]),
    ("tidegate-vertex", &["tidegate-shm", "tidegate-udf", "tidegate-hub", "tidegate-tensor", "tidegate-mq"]),
    (
        "tidegate",
        &[
            "tidegate-shm",
            "tidegate-io",
            "tidegate-aeron",
            "tidegate-sbe",
            "tidegate-zmtp",
            "tidegate-mq",
            "tidegate-udf",
            "tidegate-tensor",
            "tidegate-hub",
            "tidegate-vertex",
        ],
    ),
    ("tidegate-python", &["tidegate", "tidegate-udf"]),
    ("tidegate-c", &["tidegate"]),
    ("xtask", &[]),
];

/// Packages with `unsafe` in them, which cannot forbid it as a whole.
const MAY_USE_UNSAFE: &[&str] = &["tidegate-shm", "tidegate-aeron", "tidegate-python", "tidegate-c"];

/// Findings about the manifest of one package.
pub(super) fn check_package(package: &Package) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |message: String| findings.push(Finding::new(Path::new(&package.name), 0, message));
    if package.description.as_deref().is_none_or(|text| text.trim().is_empty()) {
        find("Cargo.toml has no `description`".to_owned());
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == package.name) else {
        find("unknown package; give it a place in LAYERS of xtask/src/check/packages.rs".to_owned());
        return findings;
    };
    for dependency in &package.dependencies {
        let is_known = LAYERS.iter().any(|(name, _)| *name == dependency.name);
        if dependency.path.is_some() && !is_known {
            find(format!(
                "path dependency on `{}`, which has no place in LAYERS of xtask/src/check/packages.rs",
                dependency.name
            ));
        }
        // A package may name itself among its dev-dependencies to switch a feature on for its tests.
        let is_other = dependency.name != package.name;
        if is_known && is_other && !allowed.contains(&dependency.name.as_str()) {
            let kind = dependency.kind.as_deref().map(|kind| format!("{kind}-")).unwrap_or_default();
            find(format!(
                "{kind}dependency on `{}` is against the layers; see LAYERS in xtask/src/check/packages.rs",
                dependency.name
            ));
        }
    }
    findings
}

/// Findings about the root file of a target: libraries and programs forbid `unsafe`, unless the package may use it.
pub(super) fn check_root(package: &Package, target: &Target, source: &RustSource) -> Option<Finding> {
    if !target.is(&["lib", "bin", "proc-macro", "cdylib", "dylib", "rlib", "staticlib"]) {
        return None;
    }
    let name = package.name.as_str();
    (!MAY_USE_UNSAFE.contains(&name) && !forbids_unsafe(source))
        .then(|| Finding::new(&source.path, 1, "crate root without `#![forbid(unsafe_code)]`"))
}

fn forbids_unsafe(source: &RustSource) -> bool {
    source.ast.attrs.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("forbid") => {
            list.tokens.clone().into_iter().any(|token| token.to_string() == "unsafe_code")
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, description: &str, dependencies: &str) -> Package {
        serde_json::from_str(&format!(
            "{{\"name\":\"{name}\",\"description\":{description},\"targets\":[],\"dependencies\":[{dependencies}]}}"
        ))
        .unwrap()
    }

    fn messages(package: &Package) -> Vec<String> {
        check_package(package).into_iter().map(|finding| finding.message).collect()
    }

    const SHM: &str = r#"{"name":"tidegate-shm","kind":null}"#;

    #[test]
    fn dependencies_that_point_down_pass() {
        let other = r#"{"name":"thiserror","kind":null}"#;
        assert_eq!(
            messages(&package("tidegate-tensor", "\"x\"", &format!("{SHM},{other}"))),
            Vec::<String>::new()
        );
    }

    #[test]
    fn dependencies_that_point_up_or_across_are_found_in_every_kind() {
        for kind in ["null", "\"dev\"", "\"build\""] {
            let up = format!("{{\"name\":\"tidegate-tensor\",\"kind\":{kind}}}");
            for name in ["tidegate-shm", "tidegate-sbe", "tidegate-hub", "xtask"] {
                let found = messages(&package(name, "\"x\"", &up));
                assert!(
                    matches!(&found[..], [one] if one.contains("against the layers")),
                    "{name}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn a_path_to_a_package_without_layer_is_found() {
        let hidden = r#"{"name":"helper","kind":"dev","path":"/elsewhere/helper"}"#;
        let found = messages(&package("tidegate-shm", "\"x\"", hidden));
        assert!(matches!(&found[..], [one] if one.contains("path dependency on `helper`")), "{found:?}");
    }

    #[test]
    fn a_package_may_name_itself() {
        let own = r#"{"name":"tidegate-shm","kind":"dev"}"#;
        assert_eq!(messages(&package("tidegate-shm", "\"x\"", own)), Vec::<String>::new());
    }

    #[test]
    fn unknown_packages_and_missing_descriptions_are_found() {
        let found = messages(&package("tidegate-new", "null", ""));
        assert!(
            found.len() == 2 && found[0].contains("description") && found[1].contains("LAYERS"),
            "{found:?}"
        );
        assert_eq!(messages(&package("tidegate-shm", "\" \"", "")).len(), 1);
    }

    #[test]
    fn the_layers_hold_no_cycle() {
        for (index, (name, allowed)) in LAYERS.iter().enumerate() {
            for used in *allowed {
                let place = LAYERS.iter().position(|(other, _)| other == used);
                assert!(
                    place.is_some_and(|place| place < index),
                    "{name} may use {used}, which is not below it"
                );
            }
        }
    }

    /// Rules: MQ-013, VX-012.
    #[test]
    fn a_root_without_the_lint_is_found_unless_the_package_may_use_unsafe() {
        let root = |package: &str, kind: &str, text: &str| {
            let package = self::package(package, "\"x\"", "");
            let target: Target = serde_json::from_str(&format!(
                "{{\"name\":\"a\",\"kind\":[\"{kind}\"],\"src_path\":\"a\",\"test\":true}}"
            ))
            .unwrap();
            let source = RustSource::parse(Path::new("src/lib.rs"), text.to_owned()).unwrap();
            check_root(&package, &target, &source).is_some()
        };
        assert!(root("tidegate", "lib", "//! A crate."));
        assert!(root("tidegate", "bin", "#![deny(unsafe_code)]"));
        assert!(root("tidegate", "bin", "// #![forbid(unsafe_code)]\nfn main() {}"));
        assert!(!root("tidegate", "bin", "#![forbid(unsafe_code)]"));
        assert!(!root("tidegate", "lib", "//! A crate.\n#![forbid(missing_docs, unsafe_code)]"));
        assert!(!root("tidegate", "test", ""));
        assert!(!root("tidegate-shm", "lib", ""));
        assert!(root("tidegate-io", "lib", "//! A crate."));
        assert!(root("tidegate-io", "lib", "#![deny(unsafe_code)]"));
        assert!(root("tidegate-zmtp", "lib", "#![deny(unsafe_code)]"));
    }
}
