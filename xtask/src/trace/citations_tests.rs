//! Planted citations, good and bad.

use std::path::Path;

use super::*;

fn scan(text: &str) -> Citations {
    let source = RustSource::parse(Path::new("lib.rs"), text.to_owned()).unwrap();
    let file = TargetFile { source, module_path: vec!["fence".to_owned()], test_only: false };
    let mut citations = Citations::default();
    citations.add_file("tidegate-shm", &file);
    citations
}

/// Name, cited ids and whether ignored, of every test found.
fn tests(citations: &Citations) -> Vec<(String, String, bool)> {
    let ids = |test: &CitingTest| test.ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    citations.tests.iter().map(|test| (test.name.clone(), ids(test), test.ignored)).collect()
}

fn bad_lines(text: &str) -> Vec<usize> {
    let citations = scan(text);
    assert!(citations.tests.is_empty(), "{:?}", citations.tests);
    citations.bad.iter().map(|bad| bad.line).collect()
}

#[test]
fn finds_citations_on_tests_at_any_depth_with_path_and_line() {
    let citations = scan(
        "
        /// Rules: TP-001.
        #[test]
        fn top() {}
        mod tests {
            mod inner {
                /// What it shows.
                /// Rules: TP-107, TP-108.
                /// Rules: TC-061.
                #[cfg(loom)]
                #[test]
                fn deep() -> Result<(), Error> { Ok(()) }
            }
            #[test]
            fn cites_nothing() {}
        }",
    );
    let expected = [
        ("tidegate-shm::fence::top", "TP-001", false),
        ("tidegate-shm::fence::tests::inner::deep", "TP-107 TP-108 TC-061", false),
    ];
    assert_eq!(tests(&citations), expected.map(|(name, ids, ignored)| (name.into(), ids.into(), ignored)));
    assert_eq!(citations.tests[0].line, 4);
    assert_eq!(citations.bad, []);
}

#[test]
fn finds_tests_inside_proptest() {
    let citations = scan(
        "proptest! {
            #![proptest_config(Config { cases: 16, ..Config::default() })]

            /// Rules: TP-012.
            #[test]
            fn truncated(length in 0usize..97, bytes in vec(any::<u8>(), 0..8)) { check(length); }

            /// No test, a helper.
            fn helper(x in 0..3) {}

            /// Rules: TP-022.
            #[test]
            fn hostile(Frame { bytes, .. } in frames()) { check(bytes) }
        }",
    );
    let expected = [
        ("tidegate-shm::fence::truncated", "TP-012", false),
        ("tidegate-shm::fence::hostile", "TP-022", false),
    ];
    assert_eq!(tests(&citations), expected.map(|(name, ids, ignored)| (name.into(), ids.into(), ignored)));
    assert_eq!(citations.bad, []);
}

#[test]
fn marks_ignored_tests() {
    for ignore in ["#[ignore]", "#[ignore = \"slow\"]", "#[cfg_attr(not(loom), ignore)]"] {
        let citations = scan(&format!("/// Rules: TP-001.\n#[test]\n{ignore}\nfn slow() {{}}"));
        assert!(citations.tests[0].ignored, "{ignore}");
    }
}

#[test]
fn refuses_citations_on_anything_but_a_test() {
    assert_eq!(bad_lines("\n/// Rules: TP-001.\nfn helper() {}"), [2]);
    assert_eq!(bad_lines("/// Rules: TP-001.\nstruct S;"), [1]);
    assert_eq!(bad_lines("/// Rules: TP-001.\nmod tests {}"), [1]);
    assert_eq!(bad_lines("//! Rules: TP-001."), [1]);
    assert_eq!(bad_lines("struct S;\nimpl S {\n/// Rules: TP-001.\n#[test]\nfn method() {}\n}"), [3]);
    assert_eq!(bad_lines("fn outer() {\n/// Rules: TP-001.\n#[test]\nfn never_run() {}\n}"), [2]);
    assert_eq!(bad_lines("other! {\n/// Rules: TP-001.\n#[test]\nfn a() {}\n}"), [2]);
    assert_eq!(bad_lines("proptest! {\n/// Rules: TP-001.\nfn no_test(x in 0..1) {}\n}"), [2]);
    assert_eq!(bad_lines("proptest! { struct S; \n/// Rules: TP-001.\n#[test] fn a() {} }"), [2]);
}

#[test]
fn refuses_near_misses() {
    assert_eq!(bad_lines("// Rules: TP-001.\n#[test]\nfn plain_comment() {}"), [1]);
    assert_eq!(bad_lines("/// Rule: TP-001.\n#[test]\nfn singular() {}"), [1]);
    assert_eq!(bad_lines("/// rules: TP-001.\n#[test]\nfn lower_case() {}"), [1]);
    assert_eq!(bad_lines("#[test]\nfn inside() {\n    // Rules: TP-001.\n}"), [3]);
}

#[test]
fn refuses_badly_written_lists() {
    for list in
        ["TP-001", "TP-001,TP-002.", "TP-007..TP-013.", "TP-1.", "TP-001 and TP-002.", "TP-001, TP-001.", ""]
    {
        assert_eq!(bad_lines(&format!("/// Rules: {list}\n#[test]\nfn a() {{}}")), [1], "{list}");
    }
}

#[test]
fn prose_and_quoted_sources_are_not_citations() {
    let citations = scan("//! Rules: every slot has one.\nconst S: &str = \"\n/// Rules: TP-001.\n\";");
    assert_eq!(citations.bad, []);
}
