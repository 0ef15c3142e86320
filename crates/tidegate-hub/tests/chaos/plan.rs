//! Who takes part: four channels, three producers that take them over from each other, eight readers.

use std::{num::NonZeroU32, path::Path, time::Duration};

use tidegate_hub::{
    config::{BufferPolicy, ConsumerConfig, HubConfig, IfExists},
    core::Start,
    layout::{BlockUuid, ChannelName, Orphan, Overflow, SyncPolicy},
};

/// Bytes of a slot.
pub(crate) const SLOT: usize = 256;
/// Most ids that are committed, or held by a reader, at once.
pub(crate) const BATCH: u64 = 4;

/// How a channel promises what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Every id to every reader from its start on.
    All,
    /// Every id once, whoever reads.
    Single,
    /// In order, with losses that are told.
    Dropping,
    /// The newest value.
    Newest,
}

pub(crate) struct Channel {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    slots: u32,
}

pub(crate) const CHANNELS: [Channel; 4] = [
    Channel { name: "all", kind: Kind::All, slots: 64 },
    Channel { name: "single", kind: Kind::Single, slots: 32 },
    Channel { name: "dropping", kind: Kind::Dropping, slots: 16 },
    Channel { name: "newest", kind: Kind::Newest, slots: 4 },
];

pub(crate) struct ReaderPlan {
    pub(crate) name: &'static str,
    /// Index in [`CHANNELS`].
    pub(crate) channel: usize,
    start: Option<Start>,
    /// Slots held at a time.
    pub(crate) held: u64,
}

const fn reader(name: &'static str, channel: usize, start: Option<Start>, held: u64) -> ReaderPlan {
    ReaderPlan { name, channel, start, held }
}

pub(crate) const READERS: [ReaderPlan; 8] = [
    reader("all-latest", 0, Some(Start::Latest), 1),
    reader("all-oldest", 0, Some(Start::Oldest), 1),
    reader("all-batches", 0, Some(Start::Oldest), BATCH),
    reader("single", 1, Some(Start::Resume), BATCH),
    reader("dropping", 2, Some(Start::Oldest), 1),
    reader("dropping-late", 2, Some(Start::Latest), 1),
    reader("newest", 3, None, 1),
    reader("newest-too", 3, None, 1),
];

/// Each wants all channels, and has those whose producer died when it came.
pub(crate) const PRODUCERS: [&str; 3] = ["producer", "producer-too", "producer-as-well"];

impl Channel {
    pub(crate) fn index(&self) -> u64 {
        CHANNELS.iter().position(|channel| channel.name == self.name).unwrap() as u64
    }

    pub(crate) fn file_name(&self) -> String {
        self.channel_name().file_name(&self.uuid())
    }

    fn channel_name(&self) -> ChannelName {
        ChannelName::new(format!("chaos.{}", self.name)).unwrap()
    }

    fn uuid(&self) -> BlockUuid {
        BlockUuid::new([self.index() as u8 + 1; 16]).unwrap()
    }

    pub(crate) fn config(&self, dir: &Path) -> HubConfig {
        let policy = BufferPolicy::RingBuffer(NonZeroU32::new(self.slots).unwrap());
        let new = HubConfig::new(self.channel_name(), policy, SLOT as u64);
        HubConfig {
            sync: match self.kind {
                Kind::All | Kind::Dropping => SyncPolicy::AllReaders,
                Kind::Single => SyncPolicy::SingleReader,
                Kind::Newest => SyncPolicy::LatestOnly,
            },
            overflow: if self.kind == Kind::Dropping { Overflow::DropOldest } else { Overflow::Block },
            orphan: Orphan::Retain,
            dir: dir.to_owned(),
            uuid: Some(self.uuid()),
            if_exists: IfExists::Adopt,
            // The judge looks at what is left.
            unlink_on_close: false,
            ..new
        }
    }
}

impl ReaderPlan {
    pub(crate) fn channel(&self) -> &'static Channel {
        &CHANNELS[self.channel]
    }

    pub(crate) fn config(&self, dir: &Path) -> ConsumerConfig {
        ConsumerConfig {
            dir: dir.to_owned(),
            start: self.start,
            max_held: self.held as u32,
            name: self.name.to_owned(),
            ..ConsumerConfig::default()
        }
    }
}

/// Longest wait of one call of a process.
pub(crate) const CALL: Duration = Duration::from_millis(200);
