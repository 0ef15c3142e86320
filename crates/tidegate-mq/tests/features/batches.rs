//! How much is written at once (MQ-052).

use std::{fs, net::TcpListener, process::Command};

use tidegate_mq::{Context, ContextOptions, Push};

use super::{child, peer::Raw, rig::options_with};

/// Messages that wait are written in pieces of about `out_batch_size`, the default of which takes all of these.
/// `strace` counts the system calls.
///
/// Rules: MQ-052, MQ-342.
#[test]
fn small_messages_are_written_in_batches_of_the_given_size() {
    const NAME: &str = "batches::small_messages_are_written_in_batches_of_the_given_size";
    const COUNT: usize = 2000;
    const FRAME: usize = 22;
    if let Some(size) = child::role() {
        let context = Context::with_options(ContextOptions::default());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = options_with(|options| {
            options.sndhwm = 0;
            options.out_batch_size = size.parse().unwrap();
        });
        let push = Push::with_options(&context, options).unwrap();
        push.connect(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
        (0..COUNT).for_each(|_| push.send_blocking(&[7; FRAME - 2]).unwrap());
        let mut peer = Raw::of(listener.accept().unwrap().0);
        peer.shake("PULL", "");
        assert_eq!(peer.take(COUNT * FRAME).len(), COUNT * FRAME);
        context.term_blocking();
        return;
    }
    for driver in ["io_uring", "polling"] {
        let place = tempfile::tempdir().unwrap();
        let writes = |size: usize| {
            let summary = place.path().join(size.to_string());
            let plain = child::command(NAME, &size.to_string());
            let mut command = Command::new("strace");
            command.args(["-f", "-c", "-o"]).arg(&summary).arg(plain.get_program()).args(plain.get_args());
            for (name, value) in plain.get_envs() {
                command.env(name, value.unwrap_or_default());
            }
            let output = command.env("TIDEGATE_MQ_DRIVER", driver).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            sent(&fs::read_to_string(summary).expect("the summary of strace, which `make setup` installs"))
        };
        let (small, large) = (writes(1000), writes(65_536));
        let least = (COUNT * FRAME / 1100) as u64;
        assert!(small >= least, "{driver}: {small} writes of about a thousand bytes");
        assert!(large < least / 2, "{driver}: {large} writes of up to 64 KiB");
    }
}

/// How often something was written to a stream, by a summary of `strace -c`.
fn sent(summary: &str) -> u64 {
    let rows = summary.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let sends = rows.filter(|row| row.len() >= 5 && matches!(row.last(), Some(&("sendto" | "sendmsg"))));
    sends.map(|row| row[3].parse::<u64>().unwrap()).sum()
}
