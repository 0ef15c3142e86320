//! Finds the tests that cite rules.
//!
//! A citation is one doc-comment line directly on a `#[test]` function, ids separated by a comma and a space, a full
//! stop at the end:
//!
//! ```text
//! /// Rules: TP-107, TP-108, TC-061.
//! ```
//!
//! `/// Cases: CT-04.` says the same of cases. Several such lines on one test add up. Tests inside `proptest! { ... }` count like others. Everything else that
//! looks like a citation (on a helper, in a module head, in an ordinary comment, badly written) is a finding: it
//! would claim a rule that no test shows. A test with `#[ignore]` shows nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use proc_macro2::{TokenStream, TokenTree};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Attribute, Expr, ExprLit, Ident, Item, Lit, Meta, Token, Visibility};

use super::spec::RuleId;
use crate::workspace::{RustSource, TargetFile, has_attribute};

/// One test and the ids it cites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CitingTest {
    /// Nextest's binary id, then the path inside the binary: `tidegate-shm::fence::tests::refuses_after_revoke`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) line: usize,
    pub(crate) ids: Vec<RuleId>,
    pub(crate) ignored: bool,
}

/// A citation that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BadCitation {
    pub(crate) path: PathBuf,
    pub(crate) line: usize,
    pub(crate) reason: String,
}

/// All citations of a number of files.
#[derive(Debug, Default)]
pub(crate) struct Citations {
    pub(crate) tests: Vec<CitingTest>,
    pub(crate) bad: Vec<BadCitation>,
}

impl Citations {
    /// Adds the citations of one file of the target that nextest calls `binary_id`.
    pub(crate) fn add_file(&mut self, binary_id: &str, file: &TargetFile) {
        let mut prefix = vec![binary_id.to_owned()];
        prefix.extend(file.module_path.iter().cloned());
        let mut scan = Scan { source: &file.source, accepted: BTreeSet::new(), found: self };
        scan.items(&file.source.ast.items, &prefix);
        scan.misplaced();
    }
}

struct Scan<'a> {
    source: &'a RustSource,
    /// Lines of citations on tests, good or bad; whatever else looks like one is misplaced.
    accepted: BTreeSet<usize>,
    found: &'a mut Citations,
}

impl Scan<'_> {
    fn items(&mut self, items: &[Item], prefix: &[String]) {
        for item in items {
            match item {
                Item::Fn(function) if has_attribute(&function.attrs, "test") => {
                    self.test(&function.attrs, &function.sig.ident, prefix);
                }
                Item::Mod(module) => {
                    if let Some((_, items)) = &module.content {
                        let mut prefix = prefix.to_vec();
                        prefix.push(module.ident.to_string());
                        self.items(items, &prefix);
                    }
                }
                Item::Macro(item)
                    if item.mac.path.segments.last().is_some_and(|last| last.ident == "proptest") =>
                {
                    // A body that is not a list of functions leaves its citations unaccepted, hence reported.
                    if let Ok(PropertyTests(functions)) = syn::parse2(item.mac.tokens.clone()) {
                        for (attributes, name) in functions {
                            if has_attribute(&attributes, "test") {
                                self.test(&attributes, &name, prefix);
                            }
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn test(&mut self, attributes: &[Attribute], name: &Ident, prefix: &[String]) {
        let mut ids = Vec::new();
        for (line, text) in doc_lines(attributes) {
            let text = text.trim();
            let Some(list) = text.strip_prefix("Rules:").or_else(|| text.strip_prefix("Cases:")) else {
                continue;
            };
            self.accepted.insert(line);
            match parse_list(list) {
                Ok(parsed) => ids.extend(parsed),
                Err(reason) => self.bad(line, reason),
            }
        }
        if !ids.is_empty() {
            self.found.tests.push(CitingTest {
                name: format!("{}::{name}", prefix.join("::")),
                path: self.source.path.clone(),
                line: name.span().start().line,
                ids,
                ignored: has_attribute(attributes, "ignore"),
            });
        }
    }

    /// Comment lines that look like a citation but stand on no test.
    fn misplaced(&mut self) {
        let quoted = lines_inside_literals(&self.source.text);
        for (index, line) in self.source.text.lines().enumerate() {
            let number = index + 1;
            if looks_like_citation(line) && !self.accepted.contains(&number) && !quoted.contains(&number) {
                let reason = "a citation must be a `/// Rules: TP-nnn.` line directly on a #[test] function";
                self.bad(number, reason.to_owned());
            }
        }
    }

    fn bad(&mut self, line: usize, reason: String) {
        self.found.bad.push(BadCitation { path: self.source.path.clone(), line, reason });
    }
}

/// The functions of a `proptest!` body: attributes and name of each.
struct PropertyTests(Vec<(Vec<Attribute>, Ident)>);

impl Parse for PropertyTests {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        input.call(Attribute::parse_inner)?;
        let mut functions = Vec::new();
        while !input.is_empty() {
            let attributes = input.call(Attribute::parse_outer)?;
            input.parse::<Visibility>()?;
            input.parse::<Token![fn]>()?;
            functions.push((attributes, input.parse()?));
            // The arguments (`value in strategy`) are proptest's own syntax: skip to the end of the body.
            while !input.peek(syn::token::Brace) {
                input.parse::<TokenTree>()?;
            }
            input.parse::<TokenTree>()?;
        }
        Ok(Self(functions))
    }
}

/// Text and line number of each doc-comment line.
fn doc_lines(attributes: &[Attribute]) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    for attribute in attributes {
        if let Meta::NameValue(pair) = &attribute.meta
            && pair.path.is_ident("doc")
            && let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &pair.value
        {
            let first = attribute.span().start().line;
            lines.extend(
                text.value().lines().enumerate().map(|(offset, line)| (first + offset, line.to_owned())),
            );
        }
    }
    lines
}

/// The ids of ` TP-107, TP-108.`, the text behind `Rules:`.
fn parse_list(list: &str) -> Result<Vec<RuleId>, String> {
    let Some(inner) = list.strip_suffix('.') else {
        return Err("a citation ends with a full stop: `/// Rules: TP-107, TC-061.`".to_owned());
    };
    let Some(inner) = inner.strip_prefix(' ') else {
        return Err("a citation needs ids after one space: `/// Rules: TP-107, TC-061.`".to_owned());
    };
    let mut ids = Vec::new();
    for part in inner.split(", ") {
        let id = RuleId::parse(part).ok_or_else(|| {
            format!("`{part}` is not a rule id; list each id by itself: `/// Rules: TP-107, TC-061.`")
        })?;
        if ids.contains(&id) {
            return Err(format!("{id} is cited twice"));
        }
        ids.push(id);
    }
    Ok(ids)
}

/// A comment line that begins with `Rules:`, `Cases:` or something close to it and names an id.
fn looks_like_citation(line: &str) -> bool {
    let Some(comment) = line.trim_start().strip_prefix("//") else { return false };
    let text = comment.trim_start_matches(['/', '!']).trim_start();
    let lower = text.to_ascii_lowercase();
    let after = lower
        .strip_prefix("rule")
        .or_else(|| lower.strip_prefix("case"))
        .map(|rest| rest.strip_prefix('s').unwrap_or(rest));
    after.is_some_and(|rest| rest.trim_start().starts_with(':')) && RuleId::all_in(text).next().is_some()
}

/// Lines that are the inside of a string literal, where a comment is not a comment.
fn lines_inside_literals(text: &str) -> BTreeSet<usize> {
    let mut lines = BTreeSet::new();
    if let Ok(tokens) = text.parse::<TokenStream>() {
        add_literal_lines(tokens, &mut lines);
    }
    lines
}

fn add_literal_lines(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => add_literal_lines(group.stream(), lines),
            TokenTree::Literal(literal) => {
                let span = literal.span();
                lines.extend(span.start().line + 1..=span.end().line);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "citations_tests.rs"]
mod tests;
