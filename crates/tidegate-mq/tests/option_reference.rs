//! The option reference is what the code says.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::fmt::Write;

use tidegate_mq::Options;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guides/messaging/options.md");

/// Set to write the file anew.
const WRITE: &str = "WRITE_OPTION_REFERENCE";

/// Rules: MQ-476.
#[test]
fn the_option_reference_is_what_the_code_says() {
    let expected = reference();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(FILE, &expected).expect("the reference can be written");
    }
    let found = std::fs::read_to_string(FILE).expect("docs/guides/messaging/options.md");
    assert!(
        found == expected,
        "docs/guides/messaging/options.md is stale; run `{WRITE}=1 cargo test -p tidegate-mq --test option_reference`"
    );
}

fn reference() -> String {
    let mut text = String::from(
        "# Options of a socket\n\n\
         Written by a test out of the table in `crates/tidegate-mq/src/options`. *Number* is that of `zmq_setsockopt`, for\n\
         `Socket::set_raw`. *Live* options act on existing connections, the others on binds and connects from then on.\n\
         Security is set by `Options::mechanism`; see [Security](security.md).\n\n\
         | option | default | number | live | |\n|---|---|---|---|---|\n",
    );
    for option in Options::REFERENCE {
        let default = option.default.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        let number = option.number.map_or_else(String::new, |number| number.to_string());
        let live = if option.live { "yes" } else { "" };
        let description =
            option.description.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        writeln!(text, "| `{}` | `{default}` | {number} | {live} | {description} |", option.name)
            .expect("writing to memory");
    }
    text
}
