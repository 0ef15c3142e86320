//! Texts and tables: Z85, topics, addresses.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_io::index::PrefixTree;
use tidegate_mq::{BindEndpoint, ConnectEndpoint};
use tidegate_zmtp::z85;

/// libzmq: test_base85 (all).
///
/// Rules: MQ-314.
#[test]
fn base85() {
    let pairs: [(&[u8], &str); 4] = [
        (b"", ""),
        (&[0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B], "HelloWorld"),
        (&[0xFF; 4], "%nSc0"),
        (&[0; 4], "00000"),
    ];
    for (binary, text) in pairs {
        assert_eq!(z85::encode(binary).unwrap(), text);
        assert_eq!(z85::decode(text).unwrap(), binary);
    }
    for len in [1, 2, 3, 5, 42, 63] {
        assert!(z85::encode(&vec![0; len]).is_err(), "{len}");
    }
    for text in ["0", "01", "0123", "012345", "01234567"] {
        assert!(z85::decode(text).is_err(), "{text}");
    }
    for text in ["####\0", "####\u{7f}", "Hell,", "Hell ", "\"ello", "'ello", "\\ello"] {
        assert!(z85::decode(text).is_err(), "{text:?}");
    }
    for overflowing in ["%nSc1", "%nSd0", "%nTc0", "%oSc0", "#####"] {
        assert!(z85::decode(overflowing).is_err(), "{overflowing}");
    }
}

/// libzmq: unittest_mtrie, unittest_radix_tree (against an ordered map).
///
/// Rules: MQ-075.
#[test]
fn prefix_tree() {
    let mut tree: PrefixTree<u32> = PrefixTree::default();
    let mut model: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let mut seed = 1_u32;
    let mut draw = |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % below
    };
    for step in 0..20_000 {
        let len = draw(5) as usize;
        let topic: Vec<u8> = (0..len).map(|_| b'a' + draw(3) as u8).collect();
        if draw(2) == 0 {
            *tree.get_or_insert_with(&topic, || step) += 1;
            *model.entry(topic.clone()).or_insert(step) += 1;
        } else {
            assert_eq!(tree.remove(&topic), model.remove(&topic));
        }
        assert_eq!(tree.len(), model.len());
        let subject: Vec<u8> = (0..6).map(|_| b'a' + draw(3) as u8).collect();
        let matches = (0..=subject.len()).any(|len| model.contains_key(&subject[..len]));
        assert_eq!(tree.has_prefix_of(&subject), matches);
    }
    // Every one is visited once.
    let mut seen = BTreeSet::new();
    tree.for_each(|topic, _| assert!(seen.insert(topic.to_vec())));
    assert_eq!(seen, model.into_keys().collect());
}

/// libzmq: unittest_ip_resolver.
///
/// Rules: MQ-252, MQ-253, MQ-254.
#[test]
fn addresses() {
    let both = |text: &str| (text.parse::<BindEndpoint>().is_ok(), text.parse::<ConnectEndpoint>().is_ok());
    for (text, bind, connect) in [
        ("tcp://127.0.0.1:5555", true, true),
        ("tcp://127.0.0.1:*", true, false),
        ("tcp://127.0.0.1:0", true, false),
        ("tcp://*:5555", true, false),
        ("tcp://*:*", true, false),
        ("tcp://[::1]:5555", true, true),
        ("tcp://::1:5555", true, true),
        ("tcp://[::]:5555", true, true),
        ("tcp://[fe80::1%lo]:5555", true, true),
        ("tcp://[::1%]:5555", false, false),
        ("tcp://[::1:5555", false, false),
        ("tcp://[127.0.0.1]:5555", false, false),
        ("tcp://localhost:5555", true, true),
        ("tcp://lo:5555", true, true),
        ("tcp://127.0.0.1", false, false),
        ("tcp://127.0.0.1:", false, false),
        ("tcp://127.0.0.1:65535", true, true),
        ("tcp://127.0.0.1:65536", false, false),
        ("tcp://127.0.0.1:-1", false, false),
        ("tcp://127.0.0.1:+1", false, false),
        ("tcp://127.0.0.1:5555 ", false, false),
        ("tcp://127.0.0.1:55x5", false, false),
        ("tcp://:5555", false, false),
        ("tcp://127.0.0.1:0;127.0.0.1:5555", false, true),
        ("TCP://127.0.0.1:5555", false, false),
        ("://127.0.0.1:5555", false, false),
        ("tcp:/127.0.0.1:5555", false, false),
    ] {
        assert_eq!(both(text), (bind, connect), "{text}");
    }
}
