//! Proxies and monitors.

use rustix::process::Signal;

use crate::support::{Running, eventually};
use crate::{bound, mq, run};

const ANY: &str = "tcp://127.0.0.1:*";

/// Starts a proxy; tells both endpoints.
fn proxy(kind: &str) -> (Running, String, String) {
    let proxy = Running::start(&mut mq(&["proxy", kind, "--frontend", ANY, "--backend", ANY], ""));
    let endpoint = || proxy.error_line().strip_prefix("bound to ").expect("an endpoint").to_owned();
    let (front, back) = (endpoint(), endpoint());
    (proxy, front, back)
}

#[test]
fn a_queue_carries_requests_and_replies() {
    let (proxy, front, back) = proxy("queue");
    let rep = Running::start(&mut mq(&["rep", "--connect", &back, "--count", "2"], ""));
    assert_eq!(run(&["req", "--connect", &front], "one\ntwo\n").exits(0).stdout, "one\ntwo\n");
    rep.finish().exits(0);
    proxy.signal(Signal::TERM);
    let told = proxy.finish().exits(0).stdout;
    assert!(told.starts_with("front: 6 parts in, 6 out"), "{told}");
}

#[test]
fn a_forwarder_carries_subscriptions_and_messages() {
    let (proxy, front, back) = proxy("forwarder");
    let sub = Running::start(&mut mq(&["sub", "--connect", &back, "--subscribe", "a", "--count", "1"], ""));
    run(&["pub", "--connect", &front, "--timeout", "20s"], "abc\nb\n").exits(0);
    assert_eq!(sub.finish().exits(0).stdout, "abc\n");
    proxy.signal(Signal::INT);
    proxy.finish().exits(0);
}

#[test]
fn a_streamer_carries_tasks() {
    let (_proxy, front, back) = proxy("streamer");
    let pull = Running::start(&mut mq(&["pull", "--connect", &back, "--count", "3"], ""));
    run(&["push", "--connect", &front], "1\n2\n3\n").exits(0);
    assert_eq!(pull.finish().exits(0).stdout, "1\n2\n3\n");
}

/// What is queued for whoever looks on is waited for like everything else, and no longer.
///
/// Rules: MQ-080, MQ-081.
#[test]
fn a_stuck_subscriber_of_copies_does_not_keep_a_proxy() {
    let place = tempfile::tempdir().expect("a directory");
    let copies = format!("ipc://{}", place.path().join("copies").display());
    let args = ["proxy", "streamer", "--frontend", ANY, "--backend", ANY, "--capture", &copies];
    let proxy = Running::start(&mut mq(&args, ""));
    let endpoint = || proxy.error_line().strip_prefix("bound to ").expect("an endpoint").to_owned();
    let (front, back) = (endpoint(), endpoint());
    let pull = Running::start(&mut mq(&["pull", "--connect", &back], ""));
    let sub = Running::start(&mut mq(&["sub", "--connect", &copies, "--subscribe", ""], ""));
    let push = |text: &str| drop(run(&["push", "--connect", &front], text).exits(0));
    eventually("a first copy", || {
        push("first\n");
        sub.line_by_now()
    });
    sub.signal(Signal::STOP);
    // More than the system holds for a reader.
    push(&(format!("{}\n", "x".repeat(100_000)).repeat(100) + "last\n"));
    while pull.line() != "last" {}
    proxy.signal(Signal::TERM);
    let told = proxy.finish().exits(0).stdout;
    assert!(told.starts_with("front: "), "{told}");
}

/// Whoever chooses no port is told which it became, on each side.
#[test]
fn a_proxy_tells_where_it_listens() {
    let args = ["proxy", "streamer", "--frontend", "tcp://127.0.0.1:0", "--backend", ANY, "--capture", ANY];
    let proxy = Running::start(&mut mq(&args, ""));
    let endpoint = || proxy.error_line().strip_prefix("bound to ").expect("an endpoint").to_owned();
    let [front, back, copies] = [(); 3].map(|()| endpoint());
    let pull = Running::start(&mut mq(&["pull", "--connect", &back], ""));
    let sub = Running::start(&mut mq(&["sub", "--connect", &copies, "--subscribe", ""], ""));
    eventually("a copy", || {
        run(&["push", "--connect", &front], "one\n").exits(0);
        assert_eq!(pull.line(), "one");
        sub.line_by_now()
    });
    proxy.signal(Signal::TERM);
    proxy.finish().exits(0);
    let nobody = ["proxy", "streamer", "--frontend", ANY, "--backend", ANY, "--capture", "inproc://copies"];
    assert!(run(&nobody, "").exits(2).stderr.contains("nobody is in this process"));
}

#[test]
fn a_monitor_shows_how_a_connection_comes_and_goes() {
    let (pull, endpoint) = bound(&["pull", "--bind", ANY, "--count", "1"], "");
    let args = ["monitor", "push", "--connect", &endpoint, "--until-up", "--timeout", "10s", "--json"];
    let events = run(&args, "").exits(0).results();
    let names: Vec<_> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(names.last(), Some(&"handshake_succeeded"), "{names:?}");
    assert!(
        names.contains(&"connected") && events.iter().all(|event| event["endpoint"] == endpoint.as_str())
    );
    run(&["push", "--connect", &endpoint], "end\n").exits(0);
    pull.finish().exits(0);
    run(&["monitor", "push", "--connect", &endpoint, "--until-up", "--timeout", "300ms"], "").exits(5);
}
