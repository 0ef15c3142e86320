//! Where the token `unsafe` and the path `std::sync::atomic` may stand.
//!
//! Tokens, not text: comments and strings may speak of both. Attributes such as `#[unsafe(no_mangle)]` contain the
//! token and count. So does lowering the lint `unsafe_code`, which has a purpose only where `unsafe` may be.

use std::path::Path;

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;

use super::Finding;
use crate::workspace::RustSource;

/// Folders and files that may contain `unsafe`.
const UNSAFE_ALLOWED: &[&str] = &["crates/tidegate-shm/", "crates/tidegate-aeron/", "bindings/"];

/// Who may name the standard library's atomics: the shims that the model checker can replace, the wrapper of a counter that C
/// code shares (it stands below the shim), and models that count their own runs.
const ATOMICS_ALLOWED: &[&str] = &[
    "crates/tidegate-shm/src/sync.rs",
    "crates/tidegate-io/src/sync.rs",
    "crates/tidegate-aeron/src/counter.rs",
    "crates/tidegate-hub/src/core/models/mod.rs",
    "crates/tidegate-udf/src/ring/models.rs",
    "crates/tidegate-vertex/src/fence/models.rs",
    "crates/tidegate-shm/tests/loom_commit.rs",
    "crates/tidegate-shm/tests/loom_doorbell.rs",
];

/// Tests that need both although their crate may not: neither a counting `GlobalAlloc` nor a fork can be written otherwise.
const UNSAFE_TESTS: &[&str] = &[
    "crates/tidegate-tensor/tests/allocations/",
    "crates/tidegate-hub/tests/budget.rs",
    "crates/tidegate-hub/tests/channel/forks.rs",
    "crates/tidegate/tests/allocations/",
];

/// Findings in one file.
pub(super) fn check(source: &RustSource) -> Vec<Finding> {
    let mut scan = Scan {
        path: &source.path,
        unsafe_allowed: is_in(&source.path, UNSAFE_ALLOWED) || is_in(&source.path, UNSAFE_TESTS),
        atomics_allowed: is_in(&source.path, ATOMICS_ALLOWED) || is_in(&source.path, UNSAFE_TESTS),
        findings: Vec::new(),
    };
    scan.stream(source.ast.to_token_stream());
    scan.findings
}

fn is_in(path: &Path, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

struct Scan<'a> {
    path: &'a Path,
    unsafe_allowed: bool,
    atomics_allowed: bool,
    findings: Vec<Finding>,
}

impl Scan<'_> {
    fn stream(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        for (index, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => self.stream(group.stream()),
                TokenTree::Ident(ident) if ident == "unsafe" && !self.unsafe_allowed => {
                    self.find(
                        ident,
                        "`unsafe` outside the places that may use it; see CONTRIBUTING.md, Unsafe code",
                    );
                }
                TokenTree::Ident(ident)
                    if ["allow", "expect", "warn"].iter().any(|level| ident == level)
                        && !self.unsafe_allowed
                        && names_unsafe_code(tokens.get(index + 1)) =>
                {
                    self.find(ident, "the lint `unsafe_code` is lowered where `unsafe` must not be used");
                }
                TokenTree::Ident(ident)
                    if ident == "sync"
                        && !self.atomics_allowed
                        && names_atomic(tokens.get(index + 1..).unwrap_or_default()) =>
                {
                    self.find(ident, "`std::sync::atomic` outside the shim; use `tidegate_shm::sync`");
                }
                _ => {}
            }
        }
    }

    fn find(&mut self, ident: &Ident, message: &str) {
        self.findings.push(Finding::new(self.path, ident.span().start().line, message));
    }
}

/// Whether the parentheses behind `allow` hold `unsafe_code`.
fn names_unsafe_code(next: Option<&TokenTree>) -> bool {
    matches!(next, Some(TokenTree::Group(group)) if group
        .stream()
        .into_iter()
        .any(|token| matches!(token, TokenTree::Ident(ident) if ident == "unsafe_code")))
}

/// Whether tokens behind `sync` go on with `::atomic` or `::{.., atomic, ..}`.
fn names_atomic(rest: &[TokenTree]) -> bool {
    let [TokenTree::Punct(first), TokenTree::Punct(second), next, ..] = rest else { return false };
    if first.as_char() != ':' || second.as_char() != ':' {
        return false;
    }
    match next {
        TokenTree::Ident(ident) => ident == "atomic",
        TokenTree::Group(group) => group
            .stream()
            .into_iter()
            .any(|token| matches!(token, TokenTree::Ident(ident) if ident == "atomic")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let source = RustSource::parse(Path::new(path), text.to_owned()).unwrap();
        check(&source).iter().map(|finding| finding.line).collect()
    }

    /// Rules: MQ-014.
    #[test]
    fn unsafe_is_found_in_every_form() {
        let text = "unsafe fn a() {}\nunsafe impl Send for S {}\nfn b() { unsafe { c() } }\n\
                    #[unsafe(no_mangle)]\nfn d() {}\nmacro_rules! m { () => { unsafe {} } }\nm! { unsafe }\n";
        for path in
            ["crates/tidegate-tensor/src/lib.rs", "crates/tidegate-tensor/tests/a.rs", "xtask/src/main.rs"]
        {
            assert_eq!(lines(path, text), [1, 2, 3, 4, 6, 7], "{path}");
        }
    }

    /// Rules: MQ-013, MQ-014, VX-012.
    #[test]
    fn unsafe_is_allowed_only_in_the_named_places() {
        let text = "unsafe fn a() {}";
        for path in ["crates/tidegate-shm/src/map.rs", "bindings/c/src/lib.rs"] {
            assert_eq!(lines(path, text), NONE, "{path}");
        }
        for path in ["crates/tidegate-shm-extra/src/lib.rs", "crates/tidegate-io/src/buffer.rs", "fuzz/a.rs"]
        {
            assert_eq!(lines(path, text), [1], "{path}");
        }
        assert_eq!(lines("crates/tidegate/tests/allocations/main.rs", text), NONE);
        assert_eq!(lines("crates/tidegate/tests/other.rs", text), [1]);
    }

    #[test]
    fn lowering_the_lint_is_found_where_unsafe_is() {
        let text = "#![allow(dead_code, unsafe_code)]\n#[expect(unsafe_code)]\nmod a;\n\
                    #[cfg_attr(test, warn(unsafe_code))]\n#[deny(unsafe_code)]\n#[allow(dead_code)]\nfn b() {}\n";
        assert_eq!(lines("crates/tidegate-io/src/lib.rs", text), [1, 2, 4]);
        assert_eq!(lines("crates/tidegate-shm/src/map.rs", text), NONE);
    }

    #[test]
    fn words_in_comments_strings_and_lints_are_no_unsafe_code() {
        let text = "#![forbid(unsafe_code)]\n//! unsafe\n/// unsafe\nfn a() -> &'static str { \"unsafe\" }";
        assert_eq!(lines("crates/tidegate/src/lib.rs", &text.replace("//! unsafe\n", "")), NONE);
    }

    #[test]
    fn raw_atomics_are_found_in_paths_and_use_trees() {
        let text = "use std::sync::atomic::AtomicU64;\nuse core::sync::{Arc, atomic::Ordering};\n\
                    use std::{fmt, sync::atomic};\nfn a() { std::sync::atomic::fence(o) }\nuse std::sync::Arc;\n\
                    use tidegate_shm::sync::AtomicU64;\n";
        assert_eq!(lines("crates/tidegate-shm/src/ring.rs", text), [1, 2, 3, 4]);
        assert_eq!(lines("crates/tidegate-shm/src/sync.rs", text), NONE);
    }
}
