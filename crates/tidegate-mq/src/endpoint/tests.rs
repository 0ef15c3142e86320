use proptest::prelude::*;

use super::*;

fn bind(text: &str) -> Result<BindEndpoint, EndpointError> {
    text.parse()
}

fn connect(text: &str) -> Result<ConnectEndpoint, EndpointError> {
    text.parse()
}

fn tcp(host: Host, port: u16) -> HostPort {
    HostPort { host, port }
}

fn ip(text: &str) -> Host {
    Host::Address(text.parse().expect("an address"), None)
}

/// Rules: MQ-252.
#[test]
fn schemes() {
    for text in ["", "tcp", "tcp:", "tcp:/", "//x", "://x", "127.0.0.1:5555", "tcp:127.0.0.1:5555"] {
        assert!(matches!(bind(text), Err(EndpointError::NoScheme(_))), "{text}");
        assert!(matches!(connect(text), Err(EndpointError::NoScheme(_))), "{text}");
    }
    for text in ["tcp://", "ipc://", "inproc://"] {
        assert!(matches!(bind(text), Err(EndpointError::BadAddress { .. })), "{text}");
        assert!(matches!(connect(text), Err(EndpointError::BadAddress { .. })), "{text}");
    }
    let unknown =
        ["pgm", "epgm", "norm", "udp", "tipc", "vmci", "vsock", "ws", "wss", "TCP", "Ipc", "invalid", " tcp"];
    for scheme in unknown {
        let text = format!("{scheme}://127.0.0.1:5555");
        assert!(matches!(bind(&text), Err(EndpointError::UnknownScheme { .. })), "{text}");
        assert!(matches!(connect(&text), Err(EndpointError::UnknownScheme { .. })), "{text}");
    }
}

/// Rules: MQ-253.
///
/// libzmq: unittest_ip_resolver.
#[test]
fn addresses_to_bind() {
    let zone = Host::Address("fe80::1".parse().expect("an address"), Some("eth0".into()));
    let cases = [
        ("*:*", tcp(Host::Any, 0)),
        ("*:0", tcp(Host::Any, 0)),
        ("*:1234", tcp(Host::Any, 1234)),
        ("*:65535", tcp(Host::Any, 65535)),
        ("0.0.0.0:0", tcp(ip("0.0.0.0"), 0)),
        ("127.0.0.1:1", tcp(ip("127.0.0.1"), 1)),
        ("127.0.0.1:*", tcp(ip("127.0.0.1"), 0)),
        ("[::1]:1234", tcp(ip("::1"), 1234)),
        ("::1:1234", tcp(ip("::1"), 1234)),
        ("[::]:0", tcp(ip("::"), 0)),
        ("[fe80::1%eth0]:5", tcp(zone.clone(), 5)),
        ("fe80::1%eth0:5", tcp(zone, 5)),
        ("[::ffff:127.0.0.1]:7", tcp(ip("::ffff:127.0.0.1"), 7)),
        ("lo:7", tcp(Host::Name("lo".into()), 7)),
        ("eth0:1:7", tcp(Host::Name("eth0:1".into()), 7)),
        ("host-1.example.org:7", tcp(Host::Name("host-1.example.org".into()), 7)),
    ];
    for (text, expected) in cases {
        assert_eq!(bind(&format!("tcp://{text}")), Ok(BindEndpoint::Tcp(expected)), "{text}");
    }
}

/// Rules: MQ-253.
///
/// libzmq: unittest_ip_resolver.
#[test]
fn addresses_that_cannot_be_bound() {
    let cases = [
        "127.0.0.1",
        ":",
        ":5555",
        "*",
        "*:",
        "*:x",
        "*:-1",
        "*:+1",
        "*: 1",
        "*:1 ",
        "*:65536",
        "*:66000",
        "*:99999999999",
        "*:0x10",
        "*:1.5",
        "*:1:2",
        "[::1]",
        "[::1:5",
        "::1]:5",
        "[127.0.0.1]:5",
        "[lo]:5",
        "[]:5",
        "fe80::1%:5",
        "lo%eth0:5",
        "1:2:3:x:5",
        "a b:5",
        "h\u{e4}user:5",
        "a/b:5",
        "a;b:5",
    ];
    for text in cases {
        let parsed = bind(&format!("tcp://{text}"));
        assert!(matches!(parsed, Err(EndpointError::BadAddress { .. })), "{text}: {parsed:?}");
    }
}

/// Rules: MQ-253, MQ-254.
///
/// libzmq: unittest_ip_resolver.
#[test]
fn addresses_to_connect_to() {
    let target = |source, host, port| ConnectEndpoint::Tcp { source, target: tcp(host, port) };
    let name = |name: &str| Host::Name(name.into());
    let cases = [
        ("127.0.0.1:1", target(None, ip("127.0.0.1"), 1)),
        ("localhost:65535", target(None, name("localhost"), 65535)),
        ("[::1]:5", target(None, ip("::1"), 5)),
        ("::1:5", target(None, ip("::1"), 5)),
        ("under_score:5", target(None, name("under_score"), 5)),
        ("*:0;localhost:5", target(Some(tcp(Host::Any, 0)), name("localhost"), 5)),
        ("lo:*;localhost:5", target(Some(tcp(name("lo"), 0)), name("localhost"), 5)),
        ("127.0.0.1:9;127.0.0.1:5", target(Some(tcp(ip("127.0.0.1"), 9)), ip("127.0.0.1"), 5)),
        ("[::1]:0;[::1]:5", target(Some(tcp(ip("::1"), 0)), ip("::1"), 5)),
    ];
    for (text, expected) in cases {
        assert_eq!(connect(&format!("tcp://{text}")), Ok(expected), "{text}");
    }
    let refused = [
        "localhost",
        "localhost:",
        ":5",
        "*:5",
        "localhost:*",
        "localhost:0",
        "localhost:65536",
        "localhost:66000",
        "localhost:-5",
        "local host:5",
        "localhost:5 ",
        " localhost:5",
        "local$host:5",
        "localhost/:5",
        "local,host:5",
        "a:1;b:2;c:3",
        ";localhost:5",
        "a:1;",
        "a;localhost:5",
        "*:0;*:5",
        "[::1:5",
        "\u{e4}:5",
    ];
    for text in refused {
        let parsed = connect(&format!("tcp://{text}"));
        assert!(matches!(parsed, Err(EndpointError::BadAddress { .. })), "{text}: {parsed:?}");
    }
}

/// Rules: MQ-264.
#[test]
fn local_names() {
    let long = |count| "x".repeat(count);
    assert_eq!(bind("ipc://*"), Ok(BindEndpoint::Ipc(LocalName::Any)));
    assert!(matches!(connect("ipc://*"), Err(EndpointError::BadAddress { .. })));
    for text in ["/tmp/a", "relative", "./*", "a b", "\u{e4}"] {
        let name = LocalName::Path(text.into());
        assert_eq!(bind(&format!("ipc://{text}")), Ok(BindEndpoint::Ipc(name.clone())), "{text}");
        assert_eq!(connect(&format!("ipc://{text}")), Ok(ConnectEndpoint::Ipc(name)), "{text}");
    }
    let name = LocalName::Abstract(b"name".to_vec());
    assert_eq!(bind("ipc://@name"), Ok(BindEndpoint::Ipc(name)));
    assert!(matches!(bind("ipc://@"), Err(EndpointError::BadAddress { .. })));
    assert!(matches!(bind("ipc:///a\0b"), Err(EndpointError::BadAddress { .. })));
    assert!(bind(&format!("ipc://{}", long(107))).is_ok());
    assert!(bind(&format!("ipc://@{}", long(107))).is_ok());
    for text in [format!("ipc://{}", long(108)), format!("ipc://@{}", long(108))] {
        assert!(matches!(bind(&text), Err(EndpointError::NameTooLong(_))), "{text}");
        assert!(matches!(connect(&text), Err(EndpointError::NameTooLong(_))), "{text}");
    }
}

/// Rules: MQ-268.
#[test]
fn names_in_process() {
    for name in ["a", " ", "a://b", "\u{e4}", &"x".repeat(256)] {
        assert_eq!(bind(&format!("inproc://{name}")), Ok(BindEndpoint::Inproc(name.to_owned())));
        assert_eq!(connect(&format!("inproc://{name}")), Ok(ConnectEndpoint::Inproc(name.to_owned())));
    }
    for name in ["a\nb", "\u{0}", "\u{7f}", &"x".repeat(257)] {
        assert!(
            matches!(bind(&format!("inproc://{name}")), Err(EndpointError::BadAddress { .. })),
            "{name:?}"
        );
    }
}

proptest! {
    /// Whatever the text, there is an answer; and a numeric endpoint comes back as it was written.
    ///
    /// Rules: MQ-253.
    #[test]
    fn any_text_is_answered(text in "(tcp://|ipc://|inproc://|)[\\[\\]:;%*.0-9a-z@/ -]{0,40}") {
        if let Ok(BindEndpoint::Tcp(HostPort { host: host @ Host::Address(..), port })) = bind(&text) {
            let again = format!("tcp://{host}:{port}");
            prop_assert_eq!(bind(&again), bind(&text));
        }
        let _ = connect(&text);
    }
}
