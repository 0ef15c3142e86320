//! Messages between processes, in every pattern, form and way to end.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Running, tidegate};
use crate::{bound, mq, run};

const ANY: &str = "tcp://127.0.0.1:*";

#[test]
fn push_and_pull_carry_every_line_in_order() {
    let lines: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    let (push, endpoint) = bound(&["push", "--bind", ANY], &lines);
    let pull = run(&["pull", "--connect", &endpoint, "--count", "20000"], "").exits(0);
    assert_eq!(pull.stdout, lines);
    push.finish().exits(0);
}

#[test]
fn a_sender_that_reached_the_end_of_its_input_loses_nothing() {
    let lines: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    let (pull, endpoint) = bound(&["pull", "--bind", ANY, "--count", "20000"], "");
    run(&["push", "--connect", &endpoint], &lines).exits(0);
    assert_eq!(pull.finish().exits(0).stdout, lines);
}

#[test]
fn parts_and_bytes_survive_text_json_and_frames() {
    let message = "a\tb c\\td\t\\xff\\\\\t\n";
    let (pull, endpoint) = bound(&["pull", "--bind", ANY, "--count", "1"], "");
    run(&["push", "--connect", &endpoint], message).exits(0);
    assert_eq!(pull.finish().exits(0).stdout, message);

    let line = json!(["a", "b c\td", { "base64": "/1w=" }, ""]).to_string() + "\n";
    let pull = Running::start(&mut mq(&["pull", "--bind", ANY, "--count", "1", "--json"], ""));
    let told: serde_json::Value = serde_json::from_str(&pull.error_line()).expect("JSON");
    let endpoint = told["bound"].as_str().expect("an endpoint").to_owned();
    run(&["push", "--connect", &endpoint, "--json"], &line).exits(0);
    assert_eq!(pull.finish().exits(0).stdout, line);

    let frames = "\0\0\0\u{2}\0\0\0\u{1}a\0\0\0\u{2}\nb";
    let (pull, endpoint) = bound(&["pull", "--bind", ANY, "--count", "1", "--frames"], "");
    run(&["push", "--connect", &endpoint, "--frames"], frames).exits(0);
    // The line reader of the test helper ends the last line.
    assert_eq!(pull.finish().exits(0).stdout, format!("{frames}\n"));
}

#[test]
fn a_publisher_waits_for_its_subscriber() {
    let (publisher, endpoint) = bound(&["pub", "--bind", ANY], "news\t1\nweather\t2\nnews\t3\n");
    let args = ["sub", "--connect", &endpoint, "--subscribe", "news", "--count", "2"];
    assert_eq!(run(&args, "").exits(0).stdout, "news\t1\nnews\t3\n");
    publisher.finish().exits(0);
}

#[test]
fn requests_are_answered() {
    let (rep, endpoint) = bound(&["rep", "--bind", ANY, "--count", "2"], "");
    assert_eq!(run(&["req", "--connect", &endpoint], "one\ntwo\n").exits(0).stdout, "one\ntwo\n");
    assert_eq!(rep.finish().exits(0).stdout, "one\ntwo\n");

    let (rep, endpoint) = bound(&["rep", "--bind", ANY, "--count", "1", "--reply", "ok"], "");
    assert_eq!(run(&["req", "--connect", &endpoint], "one\n").exits(0).stdout, "ok\n");
    assert_eq!(rep.finish().exits(0).stdout, "one\n");
}

#[test]
fn a_router_talks_to_dealers_by_name() {
    let (router, endpoint) = bound(&["router", "--bind", ANY, "--count", "1"], "");
    let args = ["dealer", "--connect", &endpoint, "--routing-id", "worker-1"];
    let dealer = Running::start(&mut mq(&args, "hello\tyou\n"));
    assert_eq!(router.finish().exits(0).stdout, "worker-1\thello\tyou\n");
    dealer.signal(Signal::TERM);
    dealer.finish().exits(0);
}

#[test]
fn a_pair_talks_both_ways() {
    let place = tempfile::tempdir().expect("a directory");
    let endpoint = format!("ipc://{}/talk", place.path().display());
    let one = Running::start(&mut mq(&["pair", "--bind", &endpoint, "--count", "1"], "from one\n"));
    let two = run(&["pair", "--connect", &endpoint, "--count", "1"], "from two\n").exits(0);
    assert_eq!((two.stdout.as_str(), one.finish().exits(0).stdout.as_str()), ("from one\n", "from two\n"));
}

#[test]
fn xpub_shows_subscriptions_and_xsub_makes_them() {
    let (xpub, endpoint) = bound(&["xpub", "--bind", ANY, "--count", "1"], "");
    let xsub = Running::start(&mut mq(&["xsub", "--connect", &endpoint, "--subscribe", "news"], ""));
    assert_eq!(xpub.finish().exits(0).stdout, "\\x01news\n");
    xsub.signal(Signal::INT);
    xsub.finish().exits(0);
}

#[test]
fn signals_end_a_command_that_waits() {
    for signal in [Signal::INT, Signal::TERM] {
        let (pull, endpoint) = bound(&["pull", "--bind", ANY], "");
        run(&["push", "--connect", &endpoint], "one\n").exits(0);
        assert_eq!(pull.line(), "one");
        pull.signal(signal);
        let outcome = pull.finish().exits(0);
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));

        // Nobody takes what it sends.
        let (push, _) = bound(&["push", "--bind", ANY], "one\n");
        push.signal(signal);
        push.finish().exits(0);
    }
}

#[test]
fn a_receiver_ends_when_nobody_reads_what_it_prints() {
    let mut child = tidegate().args(["mq", "pull", "--bind", ANY]).spawn().expect("the binary starts");
    drop(child.stdout.take());
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0));
}
