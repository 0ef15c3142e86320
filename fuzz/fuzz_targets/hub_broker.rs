//! Requests to the broker: any bytes, from two clients, then one that is good. Every reply is one that a client accepts.

#![no_main]

use std::time::Duration;

use tidegate_hub::broker::{
    host::{HostView, Inspection, Liveness},
    machine::{Machine, Now, Origin, Output, Settings},
    wire::{Label, ProcessKey, Reply, Request, ShmName, Status},
};

struct Nothing;

impl HostView for Nothing {
    fn domain(&self) -> &str {
        "here"
    }

    fn liveness(&self, _: ProcessKey) -> Liveness {
        Liveness::Unknown
    }

    fn inspect(&self, _: &ShmName) -> Inspection {
        Inspection::Unreadable
    }
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(request) = Request::decode(input) {
        assert_eq!(Request::decode(&request.encode()), Ok(request), "what was read is written the same");
    }
    let Ok(epoch) = Label::new("e") else { return };
    let mut machine = Machine::new(Settings::default(), epoch);
    let mut now = Now { monotonic: Duration::from_secs(1), wall_ms: 1_770_459_330_000 };
    let mut ask = |client: &[u8], body: &[u8]| {
        now.monotonic += Duration::from_secs(1);
        machine.tick(now, &Nothing);
        let outputs = machine.handle(Origin { routing_id: client, key: None }, body, now, &Nothing);
        for output in &outputs {
            if let Output::Reply { body, .. } = output {
                assert!(Reply::decode(body).is_some(), "a reply that no client reads");
            }
        }
        outputs
    };
    // Several requests, one a line.
    for body in input.split(|byte| *byte == b'\n') {
        ask(b"p", body);
        ask(b"c", body);
    }
    let ping = br#"{"type":"PING","proto":1,"msg_id":"last","client_id":"z","ts_ms":0}"#;
    let outputs = ask(b"z", ping);
    let [Output::Reply { body, .. }] = &outputs[..] else { panic!("no reply to a good request") };
    assert!(Reply::decode(body).is_some_and(|reply| reply.status == Status::Ok));
});
