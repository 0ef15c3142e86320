//! A process that forks.

use std::{path::Path, time::Instant};

use rustix::process::{Pid, WaitOptions, waitpid};
use tidegate_mq::{Context, Pull, Push};

use crate::support::*;

/// The child lets go of all it has inherited, talks to its parent as any other process would, and exits. The parent's
/// sockets notice nothing: connections, listeners and the socket file stay.
///
/// libzmq: test_fork.
///
/// Rules: MQ-084.
#[test]
fn a_child_that_exits_disturbs_nobody() {
    for transport in ["tcp://127.0.0.1:*", "ipc://*"] {
        let context = context();
        // One that nobody has connected to yet: in the child nothing else holds it.
        let idle = Pull::with_options(&context, options()).unwrap();
        let at_idle = idle.bind_blocking(transport).unwrap();
        let pull = Pull::with_options(&context, options()).unwrap();
        let endpoint = pull.bind_blocking(transport).unwrap();
        let push = Push::with_options(&context, options()).unwrap();
        push.connect(&endpoint).unwrap();
        push.send_blocking("before").unwrap();
        expect(&pull, &[b"before"]);
        wait(push.drained()).unwrap();

        match fork::fork().unwrap() {
            fork::Fork::Child => {
                let child = move || {
                    drop((idle, pull, push));
                    context.term_blocking();
                    drop(context);
                    let context = Context::new();
                    let push = Push::with_options(&context, options()).unwrap();
                    push.connect(&endpoint).unwrap();
                    push.send_blocking("from the child").unwrap();
                    assert_eq!(wait(push.close(Some(PATIENCE))), 0);
                };
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
                std::process::exit(i32::from(outcome.is_err()));
            }
            fork::Fork::Parent(child) => {
                expect(&pull, &[b"from the child"]);
                assert_eq!(status(child), Some(0), "a check failed in the child");
            }
        }
        push.send_blocking("after").unwrap();
        expect(&pull, &[b"after"]);
        for (endpoint, pull) in [(&endpoint, &pull), (&at_idle, &idle)] {
            let newcomer = Push::with_options(&context, options()).unwrap();
            newcomer.connect(endpoint).unwrap();
            newcomer.send_blocking("new").unwrap();
            expect(pull, &[b"new"]);
        }
        if let Some(path) = endpoint.strip_prefix("ipc://") {
            assert!(Path::new(path).exists());
            wait(pull.close(None));
            assert!(!Path::new(path).exists(), "its maker removes it");
        }
    }
}

/// How a child ended.
fn status(child: i32) -> Option<i32> {
    let child = Pid::from_raw(child);
    let end = Instant::now() + PATIENCE;
    loop {
        match waitpid(child, WaitOptions::NOHANG).unwrap() {
            Some((_, status)) => return status.exit_status(),
            None if Instant::now() < end => std::thread::sleep(QUIET / 100),
            None => {
                rustix::process::kill_process(child.unwrap(), rustix::process::Signal::KILL).unwrap();
                panic!("the child does not end");
            }
        }
    }
}
