//! Subscriptions to a publisher, as commands and as messages, and the topic index that follows them.

#![no_main]

mod session;

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use session::{compare_splits, established};
use tidegate_io::index::TopicIndex;
use tidegate_io::peer::PeerKey;
use tidegate_zmtp::SocketType;
use tidegate_zmtp::config::Security;

const NULL: Security = Security::Null { authenticate: false };

fuzz_target!(|input: &[u8]| {
    let Some((&choice, octets)) = input.split_first() else { return };
    compare_splits(choice, octets, || established((SocketType::XPub, SocketType::Sub), (NULL, NULL)).0);

    // The same octets as changes of the index: length, topic, and whether it is wanted.
    let mut index = TopicIndex::new();
    let mut model = BTreeSet::new();
    let mut rest = octets;
    while let Some((&head, tail)) = rest.split_first() {
        let (topic, tail) = tail.split_at(tail.len().min(usize::from(head >> 3) % 9));
        rest = tail;
        let peer = PeerKey::new(u32::from(head >> 1 & 3));
        if head & 1 == 1 {
            index.subscribe(topic, peer);
            model.insert((topic.to_vec(), peer));
        } else {
            index.cancel(topic, peer);
            model.remove(&(topic.to_vec(), peer));
        }
        let mut found = Vec::new();
        index.matches(octets, &mut found);
        let found: BTreeSet<_> = found.into_iter().collect();
        let wanted: BTreeSet<_> =
            model.iter().filter(|(topic, _)| octets.starts_with(topic)).map(|(_, peer)| *peer).collect();
        assert_eq!(found, wanted);
    }
});
