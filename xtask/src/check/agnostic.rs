//! The I/O kernel knows no messaging protocol (MQ-007, MQ-008): nothing in its folder names one, and nothing that
//! implements one or its cryptography is among its dependencies, direct or not, dev-dependencies included.
//!
//! Names are looked for in code, comments and file names alike. What only means something in a protocol when it is sent
//! as bytes (`READY`, `STREAM`) is looked for in the values of literals.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use serde::Deserialize;
use syn::Lit;

use super::Finding;
use crate::error::{Result, XtaskError};
use crate::workspace::Workspace;

const PACKAGE: &str = "tidegate-io";
const FOLDER: &str = "crates/tidegate-io";
const LOCK_FILE: &str = "Cargo.lock";

/// Parts of identifiers and words, compared without case and underscores: the protocol, its peers, mechanisms and
/// options.
const NAMES: &[&str] = &[
    "zmtp",
    "zmq",
    "zeromq",
    "0mq",
    "dealer",
    "xpub",
    "xsub",
    "curve",
    "gssapi",
    "plainserver",
    "plainusername",
    "plainpassword",
    "zapdomain",
    "sndhwm",
    "rcvhwm",
    "routingid",
    "proberouter",
    "routermandatory",
    "routerhandover",
    "reqcorrelate",
    "reqrelaxed",
    "handshakeivl",
    "heartbeativl",
    "invertmatching",
];

/// Socket types and mechanisms as the protocol writes them: whole words in capitals.
const WORDS: &[&str] =
    &["REQ", "REP", "ROUTER", "PUB", "SUB", "PUSH", "PULL", "PAIR", "NULL", "PLAIN", "ZAP"];

/// What has other meanings in code (`Type::STREAM` of a socket), but none in a literal: further socket types, command
/// names, and names of properties.
const LITERALS: &[&str] = &[
    "STREAM",
    "CLIENT",
    "SERVER",
    "RADIO",
    "DISH",
    "SCATTER",
    "GATHER",
    "PEER",
    "CHANNEL",
    "READY",
    "HELLO",
    "WELCOME",
    "INITIATE",
    "SUBSCRIBE",
    "CANCEL",
    "Socket-Type",
    "Identity",
];

/// Packages that only a messaging protocol needs; parts of names.
const PACKAGES: &[&str] =
    &["zmq", "zeromq", "zmtp", "sodium", "crypto_box", "dryoc", "curve25519", "x25519", "salsa20"];

/// Findings in the folder and in the dependencies of the kernel.
///
/// # Errors
/// When a file cannot be read, or `Cargo.lock` is not what cargo writes.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in workspace.files.iter().filter(|file| file.starts_with(FOLDER)) {
        let name = file.strip_prefix(FOLDER).unwrap_or(file).to_string_lossy();
        findings.extend(named_in(&name).map(|found| finding(file, 0, found)));
        if let Some(text) = workspace.text(file)? {
            findings.extend(check_text(file, &text));
        }
    }
    let lock = Path::new(LOCK_FILE);
    if workspace.files.iter().any(|file| file == lock)
        && let Some(text) = workspace.text(lock)?
    {
        findings.extend(check_dependencies(&text)?);
    }
    Ok(findings)
}

fn finding(path: &Path, line: usize, found: &str) -> Finding {
    Finding::new(
        path,
        line,
        format!("`{found}` belongs to a protocol, which {PACKAGE} must not know (MQ-007)"),
    )
}

fn check_text(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        findings.extend(named_in(line).map(|found| finding(path, index + 1, found)));
    }
    if path.extension().is_some_and(|extension| extension == "rs")
        && let Ok(tokens) = text.parse::<TokenStream>()
    {
        check_literals(path, tokens, &mut findings);
    }
    findings
}

/// The forbidden names in a line.
fn named_in(line: &str) -> impl Iterator<Item = &'static str> {
    let words: Vec<&str> = line.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    let plain: Vec<String> = words.iter().map(|word| word.replace('_', "").to_lowercase()).collect();
    let names: Vec<&str> =
        NAMES.iter().copied().filter(|name| plain.iter().any(|word| word.contains(name))).collect();
    let words = WORDS.iter().copied().filter(move |name| words.contains(name)).collect::<Vec<_>>();
    names.into_iter().chain(words)
}

fn check_literals(path: &Path, tokens: TokenStream, findings: &mut Vec<Finding>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => check_literals(path, group.stream(), findings),
            TokenTree::Literal(literal) => {
                let line = literal.span().start().line;
                let value = match Lit::new(literal) {
                    Lit::Str(text) => text.value().into_bytes(),
                    Lit::ByteStr(bytes) => bytes.value(),
                    Lit::CStr(text) => text.value().into_bytes(),
                    _ => continue,
                };
                let words: Vec<&[u8]> =
                    value.split(|byte| !(byte.is_ascii_alphanumeric() || b"_-".contains(byte))).collect();
                let known = WORDS.iter().chain(LITERALS);
                let said = known.filter(|name| words.contains(&name.as_bytes()));
                findings.extend(said.map(|found| finding(path, line, found)));
            }
            _ => {}
        }
    }
}

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<LockedPackage>,
}

#[derive(Deserialize)]
struct LockedPackage {
    name: String,
    /// `name`, `name version` or `name version (source)`.
    #[serde(default)]
    dependencies: Vec<String>,
}

/// Findings in everything that the kernel depends on according to `Cargo.lock`, whatever the features and the target.
fn check_dependencies(lock: &str) -> Result<Vec<Finding>> {
    let lock: Lock = toml::from_str(lock)
        .map_err(|source| XtaskError::Toml { path: PathBuf::from(LOCK_FILE), source: Box::new(source) })?;
    let mut dependencies: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in &lock.package {
        let names = package.dependencies.iter().filter_map(|entry| entry.split(' ').next());
        dependencies.entry(&package.name).or_default().extend(names);
    }
    let mut reached = BTreeSet::new();
    let mut left = vec![PACKAGE];
    while let Some(package) = left.pop() {
        if reached.insert(package) {
            left.extend(dependencies.get(package).into_iter().flatten());
        }
    }
    reached.remove(PACKAGE);
    let is_forbidden = |name: &&str| {
        name.starts_with("tidegate") || PACKAGES.iter().any(|part| name.to_lowercase().contains(part))
    };
    let message = |name| format!("{PACKAGE} depends on `{name}`, of which it must not know (MQ-007)");
    let findings = reached.into_iter().filter(is_forbidden);
    Ok(findings.map(|name| Finding::new(Path::new(LOCK_FILE), 0, message(name))).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What `check` finds in a tree of these files: path and line.
    fn found(files: &[(&str, &str)]) -> Vec<(String, usize)> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let files = files.iter().map(|(name, _)| PathBuf::from(name)).collect();
        let workspace = Workspace { root: dir.path().to_owned(), packages: Vec::new(), files };
        let found = check(&workspace).unwrap().into_iter();
        found.map(|finding| (finding.path.to_string_lossy().into_owned(), finding.line)).collect()
    }

    fn lines(text: &str) -> Vec<usize> {
        found(&[("crates/tidegate-io/src/pipe.rs", text)]).into_iter().map(|(_, line)| line).collect()
    }

    const KERNEL: &str = "//! Pipes: a queue to a subscriber, pushed and pulled, null when closed.\n\
        use rustix::net::SocketType;\n\
        pub fn publish(router: &Router, peer: Peer) -> SocketType { SocketType::STREAM }\n\
        const NAMES: [&str; 2] = [\"streamed data\", \"not-ready\"]; // plain text, a pair, subscription index\n";

    /// Rules: MQ-007.
    #[test]
    fn a_kernel_without_protocol_passes_and_others_may_name_it() {
        let lock = "[[package]]\nname = \"tidegate-io\"\ndependencies = [\"bytes\", \"compio 0.1.0\"]\n\
            [[package]]\nname = \"tidegate-zmtp\"\ndependencies = [\"crypto_box\", \"tidegate-io\"]\n";
        let files = [
            ("crates/tidegate-io/src/pipe.rs", KERNEL),
            ("crates/tidegate-zmtp/src/lib.rs", "//! ZMTP\nconst REQ: &[u8] = b\"REQ\";"),
            ("crates/tidegate-io-extra/src/lib.rs", "//! ZMTP"),
            ("Cargo.lock", lock),
        ];
        assert_eq!(found(&files), []);
    }

    /// Rules: MQ-007.
    #[test]
    fn names_are_found_in_code_comments_and_any_writing() {
        let text = "//! For ZMTP\nstruct ZmtpCodec;\nfn zmq_poll() {}\n/* libzmq does */\nuse ZeroMQ;\n\
            const SND_HWM: u32 = 1;\nfn set_routing_id() {}\nstruct RoutingId;\n// a DEALER\nmod curve_client;\n\
            #[cfg(feature = \"xpub\")]\n";
        assert_eq!(lines(text), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(lines("// REQ\n// to PUB and\n\nconst PAIR: u8 = 1;\n// (NULL)\n"), [1, 2, 4, 5]);
        assert_eq!(lines("const REQUEST: u8 = 1; // PUBLISH SUB_COUNT Rep\n"), [0; 0]);
    }

    /// Rules: MQ-007.
    #[test]
    fn bytes_of_the_protocol_are_found_in_literals_of_every_form() {
        let text = "const A: &[u8] = b\"\\x05READY\";\nconst B: &str = \"STREAM\";\nf!(c\"WELCOME\");\n\
            const D: &[u8] = br#\"Socket-Type\"#;\nconst E: &[u8] = b\"\\x04PLAIN\\0\";\nconst F: &str = \"READYING\";\n";
        assert_eq!(lines(text), [1, 2, 3, 4, 5]);
    }

    /// Rules: MQ-007.
    #[test]
    fn file_names_and_manifests_count() {
        let files = [
            ("crates/tidegate-io/src/zmtp/mod.rs", ""),
            ("crates/tidegate-io/tests/xsub.rs", ""),
            ("crates/tidegate-io/Cargo.toml", "[dev-dependencies]\nzeromq = \"1\"\n"),
        ];
        let expected = [(files[0].0, 0), (files[1].0, 0), (files[2].0, 2)];
        assert_eq!(found(&files), expected.map(|(path, line)| (path.to_owned(), line)));
    }

    /// Rules: MQ-007, MQ-008.
    #[test]
    fn dependencies_are_followed_to_the_end() {
        let package = |name: &str, dependencies: &str| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\ndependencies = [{dependencies}]\n")
        };
        let lock = [
            package("tidegate-io", "\"a 1.0.0\", \"b\""),
            package("a", "\"c 1.0.0 (registry+https://example.org)\", \"a\""),
            package("b", ""),
            package("c", "\"libsodium-sys\", \"tidegate-zmtp\""),
            package("other", "\"zmq\""),
        ]
        .concat();
        let names: Vec<String> =
            check_dependencies(&lock).unwrap().into_iter().map(|finding| finding.message).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[0].contains("`libsodium-sys`") && names[1].contains("`tidegate-zmtp`"), "{names:?}");
        assert!(check_dependencies("package = 1").is_err());
    }
}
