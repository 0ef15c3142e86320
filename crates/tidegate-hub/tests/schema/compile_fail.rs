//! Structs that must not compile, with what the compiler says about them.

/// Case H-02: each file of `compile_fail` is refused with the words beside it.
///
/// Rules: DH-172, DH-173, DH-174, H-02.
#[test]
fn structs_without_a_text_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/schema/compile_fail/*.rs");
}
