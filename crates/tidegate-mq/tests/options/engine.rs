//! Options of the engine's threads, and which of them serve a socket. The threads are found by the name that the option
//! gives them.

use std::{fs, path::PathBuf, thread, time::Duration};

use tidegate_mq::{Context, ContextOptions, Error, Pull, Push};

use crate::{
    int,
    rig::{ANYWHERE, options, options_with, until},
};

/// Threads of this process whose names begin so, by name.
fn threads(prefix: &str) -> Vec<(String, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|thread| {
            let path = thread.unwrap().path();
            // One that has just ended is no longer there.
            let name = fs::read_to_string(path.join("comm")).ok()?;
            name.starts_with(prefix).then(|| (name.trim_end().to_owned(), path))
        })
        .collect();
    found.sort();
    found
}

/// A line of a thread's status.
fn status(thread: &(String, PathBuf), field: &str) -> String {
    let text = fs::read_to_string(thread.1.join("status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

fn context(prefix: &str, workers: i32, more: &[(i32, i32)]) -> Context {
    let mut how = ContextOptions::default();
    how.set_raw(9, prefix.as_bytes()).unwrap();
    how.set_raw(1, &int(workers)).unwrap();
    for (number, value) in more {
        how.set_raw(*number, &int(*value)).unwrap();
    }
    Context::with_options(how)
}

/// A PUSH and a PULL over TCP; what is sent has arrived.
fn pair(context: &Context, affinity: u64) -> (Push, Pull) {
    let allowed = options_with(|options| options.set_raw(4, &affinity.to_ne_bytes()).unwrap());
    let pull = Pull::with_options(context, allowed.clone()).unwrap();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    let push = Push::with_options(context, allowed).unwrap();
    push.connect(&endpoint).unwrap();
    push.send_blocking("here").unwrap();
    pull.recv_blocking().unwrap();
    (push, pull)
}

/// Rules: MQ-348, MQ-350, MQ-041.
#[test]
fn as_many_threads_of_the_name_run_as_were_asked_for() {
    for count in [1, 3] {
        let prefix = format!("rb{count}");
        let context = context(&prefix, count, &[]);
        assert!(threads(&prefix).is_empty(), "started when they are needed");
        let _pair = pair(&context, 0);
        assert_eq!(threads(&prefix).len(), count as usize);
    }
}

/// Rules: MQ-350.
#[test]
fn threads_stay_on_their_processors() {
    let allowed = status(&("self".into(), "/proc/self".into()), "Cpus_allowed_list");
    let first: i32 = allowed.split([',', '-']).next().unwrap().parse().unwrap();
    let context = context("cpu", 2, &[(7, first + 1000), (7, first), (8, first + 1000)]);
    let _pair = pair(&context, 0);
    let workers = threads("cpu");
    assert_eq!(workers.len(), 2);
    for worker in workers {
        assert_eq!(status(&worker, "Cpus_allowed_list"), first.to_string());
    }
    let mut how = ContextOptions::default();
    assert_eq!(how.set_raw(8, &int(first)).unwrap_err().errno(), 22, "was not added");
    assert_eq!(how.set_raw(7, &int(-1)).unwrap_err().errno(), 22);
    // Nothing is left to run on: that is an error, and not silently everything.
    how.set_raw(7, &int(1020)).unwrap();
    let context = Context::with_options(how);
    let error = Pull::with_options(&context, options()).unwrap().bind_blocking(ANYWHERE).unwrap_err();
    assert!(matches!(error, Error::System { .. }), "{error}");
}

/// Connections are served by the workers that the option allows: the others sleep through all of it.
///
/// Rules: MQ-288, MQ-041.
#[test]
fn only_allowed_workers_serve_a_socket() {
    let context = context("aff", 3, &[]);
    let mut pairs = vec![pair(&context, 0)];
    // Time on a processor.
    let ran = || -> Vec<u64> {
        let threads = threads("aff");
        let stat = threads.iter().map(|(_, path)| fs::read_to_string(path.join("schedstat")).unwrap());
        stat.map(|stat| stat.split(' ').next().unwrap().parse().unwrap()).collect()
    };
    for allowed in 0..3 {
        let mut before = ran();
        until("all of them sleep", || {
            thread::sleep(Duration::from_millis(20));
            let earlier = std::mem::replace(&mut before, ran());
            earlier == before
        });
        pairs.extend((0..4).map(|_| pair(&context, 1 << allowed)));
        for (worker, (before, after)) in before.into_iter().zip(ran()).enumerate() {
            assert_eq!(after > before, worker == allowed, "worker {worker} when {allowed} is allowed");
        }
    }
    let error = Pull::with_options(&context, options_with(|options| options.affinity = 1 << 9))
        .unwrap()
        .bind_blocking(ANYWHERE)
        .unwrap_err();
    assert!(matches!(error, Error::NoIoThread(_)), "{error}");
}
