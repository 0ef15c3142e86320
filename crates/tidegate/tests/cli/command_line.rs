//! What holds for every command: help, exit codes, errors, logs, and readers that go away.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::support::{finish, run, tidegate};

/// Names under "Commands:" of a help text.
fn subcommands(help: &str) -> Vec<String> {
    let commands = help.split("Commands:\n").nth(1).unwrap_or_default();
    let names = commands.lines().take_while(|line| line.starts_with("  "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn help_of_every_command_has_an_example_and_the_json_option() {
    let mut waiting = vec![Vec::<String>::new()];
    let mut seen = 0;
    while let Some(path) = waiting.pop() {
        let mut args = path.clone();
        args.push("--help".to_owned());
        let help = run(&args);
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{path:?}");
        let called =
            ["tidegate"].into_iter().chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
        let example = help.stdout.split_once("Example").map(|(_, examples)| examples).unwrap_or_default();
        assert!(example.lines().any(|line| line.starts_with("  ") && line.contains(&called)), "{path:?}");
        assert!(help.stdout.contains("--json"), "{path:?}");
        for name in subcommands(&help.stdout) {
            waiting.push([path.as_slice(), &[name]].concat());
        }
        seen += 1;
    }
    assert!(seen >= 6, "only {seen} commands found");
}

#[test]
fn version() {
    let outcome = run(&["--version"]);
    assert_eq!(
        (outcome.code, outcome.stdout),
        (Some(0), format!("tidegate {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in
        [&[][..], &["tensor"], &["tensor", "fly"], &["tensor", "decode"], &["tensor", "decode", "--no"]]
    {
        let outcome = run(args);
        assert_eq!(outcome.code, Some(2), "{args:?}");
        assert!(outcome.stdout.is_empty() && outcome.stderr.contains("Usage: tidegate"), "{outcome:?}");
    }
    let outcome = run(&["--json", "tensor", "decode"]);
    let error = outcome.error();
    assert_eq!((outcome.code, &error["code"], &error["exit"]), (Some(2), &"usage".into(), &2.into()));
    assert!(
        error["message"].as_str().is_some_and(|text| text.starts_with("the following required")),
        "{error}"
    );
    // Behind -- it is an argument.
    assert!(run(&["tensor", "fly", "--", "--json"]).stderr.starts_with("error: "));
}

/// Rules: TP-467.
#[test]
fn the_log_level_comes_from_the_environment_and_the_options() {
    let unknown_key = b"[policies]\nallow_dynamic_streams = true\ncolour = 1\n[profiles.p]\n\
                        payload_pools = [{ pool_id = 1, stride_bytes = 64 }]\n";
    let warned = |level: Option<&str>, options: &[&str]| {
        let mut command = tidegate();
        command.args(["tensor", "config", "dump", "-"]).args(options);
        if let Some(level) = level {
            command.env("TP_LOG_LEVEL", level);
        }
        let outcome = finish(&mut command, unknown_key);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(!outcome.stdout.contains("colour"), "logs do not go to standard output");
        outcome.stderr.contains("WARN") && outcome.stderr.contains("`policies.colour`")
    };
    assert!(warned(None, &[]) && warned(Some("1"), &[]) && warned(Some("4"), &[]));
    assert!(!warned(Some("0"), &[]) && !warned(None, &["--quiet"]));
    assert!(warned(Some("0"), &["-v"]));

    let outcome =
        finish(tidegate().args(["tensor", "config", "dump", "--json"]).env("TP_LOG_LEVEL", "loud"), b"");
    assert_eq!((outcome.code, &outcome.error()["code"]), (Some(2), &"usage".into()));
    assert!(outcome.error()["message"].as_str().is_some_and(|text| text.contains("TP_LOG_LEVEL")));
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let mut child = tidegate()
        .args(["tensor", "decode", "--file", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("standard input");
    let mut stdout = BufReader::new(child.stdout.take().expect("standard output"));

    // A message whose text fills a pipe many times over, were it all read.
    let message = "0900060085030100ffff0000000000000000000000\n";
    stdin.write_all(message.as_bytes()).expect("the first line is read");
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a first result");
    assert!(line.starts_with("driver ShmDriverShutdown"), "{line}");
    drop(stdout);
    while stdin.write_all(message.as_bytes()).is_ok() {}
    drop(stdin);

    let output = child.wait_with_output().expect("the binary ends");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn a_full_disk_is_an_error() {
    let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let outcome =
        finish(tidegate().args(["tensor", "config", "dump", "--json"]).stdout(Stdio::from(full)), b"");
    assert_eq!((outcome.code, &outcome.error()["code"]), (Some(1), &"io".into()));
}

#[test]
fn standard_streams_that_cannot_be_written_do_no_harm() {
    let read_only = || Stdio::from(File::open("/dev/null").expect("/dev/null"));
    let status = tidegate().args(["tensor", "fly"]).stderr(read_only()).status().expect("the binary runs");
    assert_eq!(status.code(), Some(2));
    let status = tidegate().arg("--help").stdout(read_only()).status().expect("the binary runs");
    assert_eq!(status.code(), Some(0));
}
