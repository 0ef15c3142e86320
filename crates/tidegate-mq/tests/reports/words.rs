//! What of a peer reaches people, and what must not: the log, events, and everything that can be printed.

use std::{fmt::Debug, sync::Arc};

use tidegate_mq::{
    Context, Dealer, Error, Options, Pull, Push, Router, SecretKey, XPub,
    auth::{Decision, Peer},
    monitor::{Event, EventKind, Monitor},
    new_secret_key,
    options::{CurveOptions, CurvePolicy, Mechanism, PlainOptions},
};

use crate::{
    log::Log,
    peer::{Raw, command, greeting, message, ready},
    rig::{ANYWHERE, options, options_with},
};

/// Turns a terminal red, begins a line of its own, and is not even text.
const EVIL: &str = "\x1b[31m\r\nWARN all is lost\x07\u{202e}";

/// Everything that was told or could be printed.
#[derive(Default)]
struct Heard(Vec<String>);

impl Heard {
    fn print(&mut self, what: &dyn Debug) {
        self.0.push(format!("{what:?}"));
    }

    /// Takes note of events until one that `ends`.
    fn events(&mut self, monitor: &Monitor, ends: impl Fn(&EventKind) -> bool) {
        loop {
            let event: Event = monitor.next_blocking(Some(crate::peer::PATIENCE)).unwrap().unwrap();
            self.print(&event);
            if let EventKind::HandshakeFailed(reason) = &event.kind {
                self.0.push(reason.to_string());
            }
            if ends(&event.kind) {
                return;
            }
        }
    }

    #[track_caller]
    fn has_nothing_raw(&self) {
        for text in &self.0 {
            assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
        }
    }
}

fn is_over(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Disconnected { .. })
}

/// A peer puts what it likes into its name, its properties, its topics, its messages and its last words. All of it is
/// there for those who ask for the octets, and nothing of it is printed as it came.
///
/// Rules: MQ-374.
#[test]
fn nothing_of_a_peer_is_printed_as_it_came() {
    let log = Log::of_all_threads();
    let mut heard = Heard::default();
    let context = Context::new();

    let router = Router::with_options(&context, options()).unwrap();
    let monitor = router.monitor();
    let endpoint = router.bind_blocking(ANYWHERE).unwrap();
    let mut peer = Raw::connect(&endpoint);
    let mut words = ready("DEALER", EVIL);
    let rest = [&b"\x03X-a"[..], &(EVIL.len() as u32).to_be_bytes(), EVIL.as_bytes()].concat();
    words[1] += rest.len() as u8;
    words.extend(rest);
    peer.send(&[greeting("NULL"), words, message(&[EVIL.as_bytes()])].concat());
    let (message, from) = router.recv_with_peer_blocking().unwrap();
    assert_eq!(message.parts(), [EVIL, EVIL]);
    let from = from.unwrap();
    assert_eq!(from.property("X-a"), Some(EVIL.as_bytes()));
    heard.print(&message);
    heard.print(&from);
    heard.print(&router.peers());
    heard.print(&router);
    heard.print(&router.options());
    let mut second = Raw::connect(&endpoint);
    second.send(&[greeting("NULL"), ready("DEALER", EVIL)].concat());
    heard.events(&monitor, |kind| matches!(kind, EventKind::RoutingIdInUse));
    peer.send(&command("ERROR", &[&[EVIL.len() as u8], EVIL.as_bytes()].concat()));
    heard.events(&monitor, is_over);
    heard.events(&monitor, is_over);
    assert!(heard.0.iter().any(|text| text.contains("all is lost")), "its last words are reported");

    // Reasons of a refusal, to a client.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dealer = Dealer::with_options(&context, options()).unwrap();
    let monitor = dealer.monitor();
    dealer.connect(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
    let mut peer = Raw::of(listener.accept().unwrap().0);
    let refusal = command("ERROR", &[&[EVIL.len() as u8], EVIL.as_bytes()].concat());
    peer.send(&[greeting("NULL"), refusal].concat());
    heard.events(&monitor, is_over);

    // Topics, and a mechanism that does not exist.
    let publisher = XPub::with_options(&context, options()).unwrap();
    let monitor = publisher.monitor();
    let endpoint = publisher.bind_blocking(ANYWHERE).unwrap();
    let mut peer = Raw::up(&endpoint, "SUB", "");
    peer.send(&command("SUBSCRIBE", EVIL.as_bytes()));
    heard.print(&publisher.recv_event_blocking());
    let mut odd = Raw::connect(&endpoint);
    odd.send(&greeting("\x1b[31m\r\n"));
    heard.events(&monitor, is_over);

    heard.has_nothing_raw();
    for line in log.lines() {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

/// Keys and passwords are in nothing that can be printed.
///
/// Rules: MQ-374.
#[test]
fn secrets_are_never_printed() {
    let log = Log::of_all_threads();
    let mut heard = Heard::default();
    let context = Context::new();
    const PASSWORD: &str = "correct horse battery staple";
    let plain = |password: &str| {
        Mechanism::Plain(PlainOptions::Client { username: "user".into(), password: password.into() })
    };
    let shown = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = shown.clone();
    let ask = move |peer: Peer| {
        seen.lock().unwrap().push(format!("{peer:?}"));
        Decision::Refuse
    };
    let refusing = Mechanism::Plain(PlainOptions::Server { authenticator: Some(Arc::new(ask)) });
    let keys: [SecretKey; 2] = [new_secret_key(), new_secret_key()];
    let curve_server =
        Mechanism::Curve(CurveOptions::Server { secret_key: keys[0].clone(), policy: CurvePolicy::Zap });
    let curve_client = Mechanism::Curve(CurveOptions::Client {
        server_key: keys[0].public_key(),
        secret_key: keys[1].clone(),
    });
    for (server, client) in [(refusing, plain(PASSWORD)), (curve_server, curve_client)] {
        let server: Options = options_with(|options| options.mechanism = server);
        let client: Options = options_with(|options| options.mechanism = client);
        heard.print(&server);
        heard.print(&client);
        let pull = Pull::with_options(&context, server).unwrap();
        let monitor = pull.monitor();
        let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
        let push = Push::with_options(&context, client).unwrap();
        let dialing = push.monitor();
        push.connect(&endpoint).unwrap();
        heard.events(&monitor, is_over);
        heard.events(&dialing, is_over);
        heard.print(&push);
        heard.print(&pull.peers());
    }
    heard.print(&keys);
    heard.print(&context);
    let wrong: Result<SecretKey, _> = SecretKey::parse(PASSWORD.as_bytes());
    heard.print(&wrong.map_err(|error| error.to_string()));
    let mut by_number = Options::default();
    by_number.set_raw(45, b"user").unwrap();
    by_number.set_raw(46, PASSWORD.as_bytes()).unwrap();
    heard.print(&by_number);
    by_number.set_raw(49, keys[0].expose()).unwrap();
    heard.print(&by_number);
    let error: Error = Options::default().set_raw(49, &PASSWORD.as_bytes()[..20]).unwrap_err();
    heard.print(&error);
    heard.0.push(error.to_string());
    heard.0.extend(shown.lock().unwrap().drain(..));
    heard.0.extend(log.lines());

    assert!(heard.0.iter().any(|text| text.contains("user")), "what is no secret is printed");
    for text in &heard.0 {
        assert!(!text.contains("horse"), "{text}");
        for key in &keys {
            assert!(!text.contains(&*key.expose_z85()), "{text}");
            let octets = format!("{:?}", key.expose());
            assert!(!text.contains(octets.trim_matches(['[', ']'])), "{text}");
            let hex: String = key.expose().iter().map(|octet| format!("{octet:02x}")).collect();
            assert!(!text.to_lowercase().contains(&hex), "{text}");
        }
    }
}
