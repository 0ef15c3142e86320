//! What a broker tells: to logs, to followers of events, to its file.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tidegate::hub::broker::wire::{AttachNack, ChannelName, Fixed, Label, ReadyNotify, Register, U64};
use tidegate::hub::broker::{Discovery, RetryPolicy, Verifier};

use crate::support::{eventually, place, tidegate};
use crate::{SOON, block, hub, registration};

/// A secret, its verifier, and values of requests go through a broker that logs all it can: neither secret nor verifier
/// is in the log or in an event, and the secret is not in the file.
///
/// Rules: DH-164, DH-213, DH-289, M-22.
#[test]
fn no_secret_is_logged_published_or_kept() {
    let place = place();
    let (run, log, file) =
        (place.path().join("run"), place.path().join("log"), place.path().join("registry"));
    let mut command: Command = tidegate();
    command.args(["hub", "broker", "run", "-vvv", "--json", "--runtime-dir"]).arg(&run);
    command.arg("--blocks").arg(place.path()).arg("--persist").arg(&file);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&log).expect("a log"))
        .spawn()
        .expect("a broker");
    let endpoint = format!("ipc://{}/broker.sock", run.display());
    let (producer, consumer) = (hub(&endpoint, "p"), hub(&endpoint, "c"));
    eventually("a broker", || producer.ping(SOON).ok());

    let block = block(place.path(), "secret.channel");
    let channel = ChannelName::new("secret.channel").expect("a name");
    let secret: [u8; 32] = std::array::from_fn(|at| 0x41 + at as u8);
    let verifier = Verifier::derive(&secret, &channel).expect("a verifier");
    let register = Register { key_id: Some(Fixed([9; 8])), key_epoch: Some(1), ..registration(&block) };
    let registered = producer.register(register, Some(verifier.clone()), SOON).expect("registered");
    let answer = registered.registered().expect("an answer");
    let events = consumer.events(answer.events_endpoint.expect("events").as_str(), &channel).expect("events");
    let wrong = Verifier::derive(&[7; 32], &channel).expect("a verifier");
    let look = |verifier: &Verifier| {
        let look = Discovery::of(channel.clone()).verifier(verifier.clone());
        consumer.discover(&look, SOON, RetryPolicy::none())
    };
    look(&verifier).expect("found");
    let refused = look(&wrong).expect_err("another secret").to_string();
    let channel_id = answer.channel_id;
    let mut heard = Vec::new();
    eventually("an event of each kind", || {
        let ready = ReadyNotify { channel_id, epoch: U64(1), commit_index: U64(2) };
        producer.ready_notify(ready, SOON).expect("told");
        let nack = AttachNack {
            channel_id,
            consumer_id: Label::new("c").expect("a label"),
            reason: Label::new("AuthFailed").expect("a label"),
        };
        consumer.attach_nack(nack, SOON).expect("told");
        while let Some(event) = events.recv_with_timeout(Duration::from_millis(50)).expect("events") {
            heard.push(format!("{event:?} {}", serde_json::to_string(&event).expect("JSON")));
        }
        (heard.len() >= 2).then_some(())
    });
    eventually("a kept registry", || {
        fs::read_to_string(&file).ok().filter(|text| text.contains("secret.channel"))
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
    let mut printed = String::new();
    child.stdout.take().expect("output").read_to_string(&mut printed).expect("text");
    assert!(child.wait().expect("an end").success());

    let log = fs::read_to_string(&log).expect("a log");
    let kept = fs::read_to_string(&file).expect("a registry");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // As they are, in hex, and as lists of numbers; the verifier as the registry writes it.
    let as_text = String::from_utf8(secret.to_vec()).expect("ASCII");
    let numbers = format!("{:?}", &secret[..8]).trim_matches(['[', ']']).to_owned();
    let secrets = [as_text, hex(&secret), "QUJDREVGR0hJSktM".to_owned(), numbers];
    let line = kept.lines().nth(1).expect("a snapshot");
    let snapshot: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let verifier =
        snapshot["channels"][0]["register"]["shared_secret_hash"].as_str().expect("kept").to_owned();
    assert_eq!(verifier.len(), 64);
    let told = heard.join("\n");
    for (place, text) in [("log", &log), ("events", &told), ("output", &printed), ("error", &refused)] {
        for canary in secrets.iter().chain([&verifier]) {
            assert!(!text.contains(canary.as_str()), "{canary} in the {place}");
        }
    }
    assert!(secrets.iter().all(|canary| !kept.contains(canary.as_str())), "a secret is kept");
    assert!(!kept.contains("secret_proof"));
}
