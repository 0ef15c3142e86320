//! Plays recorded conversations of libzmq releases to a session, which must answer octet for octet as the recording
//! does; `conformance/vectors/messaging/README.md` describes the files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use bytes::BytesMut;
use tidegate_io::{
    batch::WriteBatch,
    buffer::{Slab, SlabOptions},
    message::Message,
};
use tidegate_zmtp::{
    auth::{PlainCredentials, Verdict},
    close::CloseReason,
    config::{Security, SessionConfig},
    greeting::Version,
    mechanism::curve::{CurveClient, CurveServer, SecretKey},
    session::{Event, Session},
    socket_type::SocketType,
};

const RELEASES: [&str; 5] = ["4.1.6", "4.2.5", "4.3.2", "4.3.4", "4.3.5"];

/// How received octets are cut before the session gets them.
#[derive(Clone, Copy, Debug)]
enum Cut {
    AsRecorded,
    Octets,
    /// Into pieces of pseudo-random sizes.
    Pieces,
}

/// Rules: MQ-087, MQ-088, MQ-089, MQ-509.
#[test]
fn sessions_answer_every_release_as_recorded() {
    for release in RELEASES {
        let recordings = recordings(release);
        for mechanism in ["null-", "plain-", "curve-", "subscriptions-"] {
            assert!(recordings.keys().any(|name| name.starts_with(mechanism)), "{release} {mechanism}");
        }
        for kind in SocketType::ALL {
            let name = format!("null-{}.txt", kind.name().to_lowercase());
            assert!(recordings.contains_key(&name), "{release} {name}");
        }
        for (name, text) in recordings {
            for cut in [Cut::AsRecorded, Cut::Octets, Cut::Pieces] {
                let place = format!("{release}/{name} {cut:?}");
                Replay::new(&text).run(&text, cut, &place);
            }
        }
    }
}

/// libzmq puts a PING between the parts of a message; the message arrives whole, and the PING is answered.
///
/// Rules: MQ-109, MQ-167, MQ-509.
#[test]
fn pings_between_the_parts_of_a_message_are_answered() {
    for release in ["4.2.5", "4.3.5"] {
        let text = &recordings(release)["ping-between-parts.txt"];
        let sent: Vec<u8> = text.lines().filter_map(|line| line.strip_prefix("< ")).flat_map(hex).collect();
        let (first, last) = (position(&sent, b"000."), position(&sent, b"047."));
        let between = position(&sent, b"\x04\x07\x04PING");
        assert!(first < between && between < last, "{release}: the recording shows the case");

        let replay = Replay::new(text).run(text, Cut::AsRecorded, release);
        position(&replay.output, b"\x04\x05\x04PONG");
    }
}

fn position(octets: &[u8], wanted: &[u8]) -> usize {
    octets.windows(wanted.len()).position(|window| window == wanted).expect("the octets are there")
}

fn recordings(release: &str) -> BTreeMap<String, String> {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/vectors/messaging").join(release);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).unwrap())
    };
    files.map(|file| read(file.unwrap().path())).collect()
}

struct Replay {
    session: Session,
    slab: Slab,
    events: VecDeque<String>,
    output: Vec<u8>,
    now: Instant,
}

impl Replay {
    fn new(text: &str) -> Self {
        let line = text.lines().find_map(|line| line.strip_prefix("= session ")).expect("a session line");
        let words: Vec<_> = line.split(' ').collect();
        let (security, draws) = security(&words[1..]);
        let mut config = SessionConfig::new(SocketType::from_name(words[0].as_bytes()).unwrap());
        config.security = security;
        let mut draws = VecDeque::from(draws);
        let mut random =
            move |bytes: &mut [u8]| bytes.copy_from_slice(&draws.pop_front().expect("no more is drawn"));
        let now = Instant::now();
        Self {
            session: Session::new(Arc::new(config), &mut random, now),
            slab: Slab::new(SlabOptions::default()),
            events: VecDeque::new(),
            output: Vec::new(),
            now,
        }
    }

    fn run(mut self, text: &str, cut: Cut, place: &str) -> Self {
        let mut expected = Vec::new();
        let mut state = 1u32;
        for (number, line) in (1..).zip(text.lines()) {
            let place = format!("{place}, line {number}");
            let Some((kind, rest)) = line.split_once(' ') else { panic!("{place}: {line}") };
            match kind {
                "#" | "=" => {}
                "<" => {
                    let octets = hex(rest);
                    let mut octets = octets.as_slice();
                    while !octets.is_empty() {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let len = match cut {
                            Cut::AsRecorded => octets.len(),
                            Cut::Octets => 1,
                            Cut::Pieces => 1 + (state >> 24) as usize,
                        };
                        let (piece, rest) = octets.split_at(len.min(octets.len()));
                        self.session.receive(BytesMut::from(piece), self.now);
                        self.collect();
                        octets = rest;
                    }
                }
                ">" => {
                    self.collect();
                    expected.extend(hex(rest));
                    let same =
                        self.output.iter().zip(&expected).take_while(|(ours, theirs)| ours == theirs).count();
                    assert!(
                        same == expected.len(),
                        "{place}: {} octets are sent, {} as recorded",
                        self.output.len(),
                        same
                    );
                }
                "!" => self.act(rest),
                "?" => assert_eq!(self.events.pop_front().as_deref(), Some(rest), "{place}"),
                _ => panic!("{place}: {line}"),
            }
        }
        assert_eq!(self.output.len(), expected.len(), "{place}: more is sent than recorded");
        assert_eq!(self.events, [] as [String; 0], "{place}: more is reported than recorded");
        self
    }

    fn act(&mut self, action: &str) {
        let mut words = action.split(' ');
        match (words.next(), words.map(hex).collect::<Vec<_>>()) {
            (Some("send"), parts) => {
                let mut batch = WriteBatch::new(65_536);
                self.session.encode(&parts.into_iter().collect::<Message>(), &mut batch);
                self.output.extend(batch.segments().iter().flatten());
            }
            (Some("subscribe"), topic) => self.session.subscribe(&topic[0]),
            (Some("cancel"), topic) => self.session.cancel(&topic[0]),
            _ => panic!("{action}"),
        }
        self.collect();
    }

    /// Takes events and output of the session, and answers its questions.
    fn collect(&mut self) {
        while let Some(event) = self.session.next_event(&mut self.slab) {
            self.events.push_back(match event {
                Event::Authenticate(_) => {
                    self.session.verdict(Verdict::accept(), self.now);
                    "authenticate".into()
                }
                Event::Up(peer) => {
                    let version = if peer.version == Version::V3_0 { "3.0" } else { "3.1" };
                    format!("up {} {version}", peer.socket_type.unwrap().name())
                }
                Event::Message(message) => {
                    let parts: Vec<_> = message.parts().iter().map(|part| digits(part)).collect();
                    format!("message {}", parts.join(" "))
                }
                Event::Subscribe(topic) => format!("subscribe {}", digits(&topic)),
                Event::Cancel(topic) => format!("cancel {}", digits(&topic)),
                Event::Closed(CloseReason::AuthFailed(code)) => {
                    format!("closed AuthFailed {}", code.status())
                }
                Event::Closed(reason) => format!("closed {reason:?}"),
                event => panic!("{event:?}"),
            });
        }
        let mut batch = WriteBatch::new(65_536);
        self.session.fill(&mut batch);
        self.output.extend(batch.segments().iter().flatten());
    }
}

/// Mechanism and role of a recording, and what is drawn.
fn security(words: &[&str]) -> (Security, Vec<Vec<u8>>) {
    let key = |first: u8| (first..first + 32).collect::<Vec<u8>>();
    let secret = |first: u8| SecretKey::parse(&key(first)).unwrap();
    match words {
        ["NULL"] => (Security::Null { authenticate: false }, vec![]),
        ["PLAIN", "server"] => (Security::PlainServer, vec![]),
        ["PLAIN", "client", user, password] => {
            let credentials = PlainCredentials::new(user.as_bytes(), password.as_bytes()).unwrap();
            (Security::PlainClient(credentials), vec![])
        }
        ["CURVE", "server"] => {
            let draws = vec![key(0xC1), vec![0x55; 32], vec![0x22; 16], vec![0x11; 16]];
            (Security::CurveServer(CurveServer { secret: secret(0x41) }), draws)
        }
        ["CURVE", "client"] => {
            let keys = CurveClient { secret: secret(0x01), server: secret(0x41).public_key() };
            (Security::CurveClient(keys), vec![key(0x81), vec![0x33; 16]])
        }
        _ => panic!("{words:?}"),
    }
}

fn hex(digits: &str) -> Vec<u8> {
    if digits == "-" {
        return Vec::new();
    }
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn digits(octets: &[u8]) -> String {
    if octets.is_empty() { "-".into() } else { octets.iter().map(|octet| format!("{octet:02x}")).collect() }
}
