//! The kept inputs of the fuzz target `hub_schema`: what it checks holds for all of them.

#[path = "../../../../fuzz/fuzz_targets/hub/mod.rs"]
mod hub;

/// Rules: DH-168.
#[test]
fn kept_inputs_hold() {
    let corpus = include_str!("../../../../fuzz/seeds/hub_schema.txt");
    let lines: Vec<_> = corpus.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines.len() >= 30, "{} inputs", lines.len());
    for line in lines {
        let octets = (0..line.len() / 2).map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap());
        let input: Vec<u8> = octets.collect();
        for end in [input.len(), input.len() / 2, input.len() - 1] {
            let run = std::panic::catch_unwind(|| hub::schema(&input[..end]));
            assert!(run.is_ok(), "the first {end} bytes of {line}");
        }
    }
}
