//! Tables 8.2 and 8.3, row by row, with the rules below them.

use tidegate_sbe::control::{Mode, PayloadPool};
use tidegate_sbe::driver;

use super::*;

const STREAM: u32 = 10_000;
const HEADER: &str = "shm:file?path=/dev/shm/s/header.ring";
const POOLS: [(u16, u32, &str); 2] =
    [(1, 4096, "shm:file?path=/dev/shm/s/1.pool"), (2, 64, "shm:file?path=/dev/shm/s/2.pool")];
const DRIVER: Source = Source { announce_stream: true, session: SessionId::new(1) };
const OTHER_DRIVER: Source = Source { announce_stream: true, session: SessionId::new(2) };
const C_PRODUCER: Source = Source { announce_stream: false, session: SessionId::new(3) };

/// The machine, and a conductor that does what it says on regions the test describes.
struct Bench {
    machine: MappingMachine,
    now: Nanos,
    joined: Nanos,
    realtime: Nanos,
    source: Source,
    driver_mode: bool,
    dead_image: Option<Source>,
    leased: bool,
    /// Regions as they are now.
    mappable: bool,
    unchanged: bool,
    activity: Nanos,
    /// What the machine had done.
    maps: Vec<u64>,
    unmaps: Vec<UnmapReason>,
    renewals: u32,
}

fn announce(epoch: u64, sent: Nanos) -> ShmPoolAnnounce<'static> {
    let pool = |(pool_id, stride_bytes, uri): (u16, u32, &'static str)| PayloadPool {
        pool_id,
        pool_nslots: 8,
        stride_bytes,
        region_uri: uri.into(),
    };
    ShmPoolAnnounce {
        stream_id: STREAM,
        producer_id: 5,
        epoch,
        announce_timestamp_ns: sent.as_u64(),
        announce_clock_domain: ClockDomain::Monotonic,
        layout_version: 1,
        header_nslots: 8,
        header_slot_bytes: 256,
        payload_pools: POOLS.map(pool).to_vec(),
        header_region_uri: HEADER.into(),
    }
}

fn config(use_shm: bool, uri: &'static str) -> ConsumerConfig<'static> {
    ConsumerConfig {
        stream_id: STREAM,
        consumer_id: 1,
        use_shm,
        mode: Mode::Stream,
        descriptor_stream_id: 0,
        control_stream_id: 0,
        payload_fallback_uri: uri.into(),
        descriptor_channel: "".into(),
        control_channel: "".into(),
    }
}

fn spec(epoch: u64) -> RegionSpec {
    RegionSpec::from_announce(&announce(epoch, Nanos::ZERO)).unwrap()
}

impl Bench {
    fn new(driver_mode: bool, supports_shm: bool) -> Self {
        let now = Nanos::from_secs(100);
        let stream = StreamId::new(STREAM);
        Self {
            machine: MappingMachine::new(stream, driver_mode, supports_shm, &Context::default(), now),
            now,
            joined: Nanos::from_secs(90),
            realtime: Nanos::from_secs(1_700_000_000),
            source: DRIVER,
            driver_mode,
            dead_image: None,
            leased: driver_mode,
            mappable: true,
            unchanged: true,
            activity: now,
            maps: Vec::new(),
            unmaps: Vec::new(),
            renewals: 0,
        }
    }

    /// Without a driver, mapped by an announce.
    fn announced(epoch: u64) -> Self {
        let mut bench = Self::new(false, true);
        bench.hear(epoch);
        assert_eq!(bench.state(), MappingState::Mapped(Epoch::new(epoch)));
        bench
    }

    /// With a driver, mapped by its grant, and one announce of the same epoch heard.
    fn granted(epoch: u64) -> Self {
        let mut bench = Self::new(true, true);
        bench.grant(epoch);
        bench.pass(10);
        bench.hear(epoch);
        assert_eq!((bench.state(), bench.maps.len()), (MappingState::Mapped(Epoch::new(epoch)), 1));
        bench
    }

    fn state(&self) -> MappingState {
        self.machine.state()
    }

    fn arrival(&self) -> Arrival {
        Arrival { source: self.source, joined: self.joined, monotonic: self.now, realtime: self.realtime }
    }

    fn deliver(&mut self, announce: &ShmPoolAnnounce<'_>) -> Result<(), AnnounceRejection> {
        if self.driver_mode && !self.leased {
            // The conductor hears announces for lease holders only.
            return Ok(());
        }
        let arrival = self.arrival();
        let dead = self.dead_image;
        let command = self.machine.on_announce(announce, arrival, &|source| Some(source) != dead)?;
        self.obey(command);
        Ok(())
    }

    /// An announce sent this instant.
    fn hear(&mut self, epoch: u64) {
        self.deliver(&announce(epoch, self.now)).unwrap();
    }

    fn grant(&mut self, epoch: u64) {
        self.leased = true;
        let command = self.machine.on_grant(&spec(epoch), self.now);
        self.obey(command);
    }

    fn configure(&mut self, use_shm: bool, uri: &'static str) {
        let command = self.machine.on_config(&config(use_shm, uri));
        self.obey(command);
    }

    fn producer_revoked(&mut self) {
        let command = self.machine.on_producer_revoked(self.now.as_u64(), self.now);
        self.obey(command);
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now = self.now.saturating_add(Nanos::from_millis(milliseconds));
        self.realtime = self.realtime.saturating_add(Nanos::from_millis(milliseconds));
        let command = self.machine.tick(self.now, self.leased);
        self.obey(command);
    }

    fn obey(&mut self, command: Option<MappingCommand>) {
        let mut next = command;
        while let Some(command) = next.take() {
            match command {
                MappingCommand::Map(spec) if self.mappable => {
                    self.maps.push(spec.epoch().get());
                    self.machine.mapped(spec, self.now);
                }
                MappingCommand::Map(spec) => self.machine.map_failed(spec.epoch()),
                MappingCommand::MapIfActive(spec, quiet) => {
                    next = (self.activity.as_u64() != quiet).then_some(MappingCommand::Map(spec));
                }
                MappingCommand::Unmap(reason) => self.unmaps.push(reason),
                MappingCommand::Recheck => {
                    let observed = Observed { unchanged: self.unchanged, activity: self.activity.as_u64() };
                    next = self.machine.on_superblocks(observed, self.now);
                }
                MappingCommand::RenewLease => {
                    self.renewals += 1;
                    self.leased = false;
                }
            }
        }
    }
}

const UNMAPPED: MappingState = MappingState::Unmapped;
const FALLBACK: MappingState = MappingState::Fallback;

fn mapped(epoch: u64) -> MappingState {
    MappingState::Mapped(Epoch::new(epoch))
}

fn remapping(epoch: u64) -> MappingState {
    MappingState::Remapping(Epoch::new(epoch))
}

/// Rules: TP-128, TP-151.
#[test]
fn unmapped_maps_on_an_announce_or_a_grant() {
    assert_eq!(Bench::new(false, true).state(), UNMAPPED);
    assert_eq!(Bench::announced(7).maps, [7]);
    assert_eq!(Bench::granted(7).maps, [7]);
}

/// Rules: TP-129, TC-072.
#[test]
fn a_repeated_announce_does_not_map_again() {
    let mut bench = Bench::announced(7);
    for _ in 0..10 {
        bench.pass(1_000);
        bench.activity = bench.now;
        bench.hear(7);
    }
    assert_eq!((bench.state(), &bench.maps[..]), (mapped(7), &[7][..]));
    assert!(bench.unmaps.is_empty());
}

/// Rules: TP-133, TC-073.
#[test]
fn a_higher_epoch_takes_over() {
    let mut bench = Bench::announced(7);
    bench.hear(8);
    assert_eq!((bench.state(), &bench.maps[..]), (mapped(8), &[7, 8][..]));

    let mut vanished = Bench::announced(7);
    vanished.mappable = false;
    vanished.hear(8);
    assert_eq!(vanished.state(), UNMAPPED, "the old epoch is not kept when the new one cannot be mapped");
}

/// A higher epoch wins whoever announces it.
/// Rules: TP-133.
#[test]
fn a_higher_epoch_of_another_source_takes_over_too() {
    let mut bench = Bench::granted(7);
    bench.source = C_PRODUCER;
    bench.hear(8);
    assert_eq!(bench.state(), mapped(8));
}

/// One announce is enough to make its image the authority.
/// Rules: TP-131, TP-483, TC-076.
#[test]
fn a_fresh_lower_epoch_of_the_authority_unmaps() {
    let mut bench = Bench::announced(7);
    bench.pass(10);
    bench.hear(5);
    assert_eq!((bench.state(), &bench.unmaps[..]), (UNMAPPED, &[UnmapReason::EpochRegression][..]));
    bench.pass(10);
    bench.hear(5);
    assert_eq!(bench.state(), mapped(5), "the memory of the highest epoch was cleared");
}

/// Rules: TP-133, TC-077.
#[test]
fn a_lower_epoch_sent_before_the_one_applied_is_ignored() {
    let mut bench = Bench::announced(7);
    let late = announce(5, bench.now.saturating_sub(Nanos(1)));
    bench.pass(10);
    bench.deliver(&late).unwrap();
    assert_eq!((bench.state(), bench.unmaps.len()), (mapped(7), 0));
    // Each accepted announce moves the mark.
    bench.hear(7);
    let late = announce(5, bench.now.saturating_sub(Nanos(1)));
    bench.deliver(&late).unwrap();
    assert_eq!(bench.state(), mapped(7));
}

/// Rules: TP-483, TC-208.
#[test]
fn a_lower_epoch_of_anybody_else_is_ignored() {
    let mut bench = Bench::granted(7);
    for source in [C_PRODUCER, OTHER_DRIVER] {
        bench.pass(10);
        bench.source = source;
        bench.hear(5);
        assert_eq!((bench.state(), bench.unmaps.len()), (mapped(7), 0), "{source:?}");
    }
    let mut without_driver = Bench::announced(7);
    without_driver.source = OTHER_DRIVER;
    without_driver.pass(10);
    without_driver.hear(5);
    assert_eq!(without_driver.state(), mapped(7));
}

/// Beside a driver, an image of the control stream never becomes the authority, however often it announces the epoch.
/// Rules: TP-483.
#[test]
fn beside_a_driver_the_control_stream_has_no_authority() {
    let mut bench = Bench::new(true, true);
    bench.grant(7);
    bench.source = C_PRODUCER;
    for _ in 0..3 {
        bench.pass(10);
        bench.hear(7);
    }
    bench.hear(5);
    assert_eq!(bench.state(), mapped(7));
    bench.source = DRIVER;
    bench.hear(7);
    bench.pass(10);
    bench.hear(5);
    assert_eq!(bench.state(), UNMAPPED);
}

/// Without a driver every image may be the authority, and the first one stays it while it is heard.
/// Rules: TP-483.
#[test]
fn the_first_announcer_keeps_the_authority() {
    let mut bench = Bench::new(false, true);
    bench.source = C_PRODUCER;
    bench.hear(7);
    bench.source = DRIVER;
    for _ in 0..3 {
        bench.pass(10);
        bench.hear(7);
    }
    bench.hear(5);
    assert_eq!(bench.state(), mapped(7), "the second announcer");
    bench.source = C_PRODUCER;
    bench.pass(10);
    bench.hear(5);
    assert_eq!(bench.state(), UNMAPPED, "the first");
}

/// Rules: TP-139, TP-483.
#[test]
fn a_silent_or_dead_authority_is_succeeded() {
    for dies in [false, true] {
        let mut bench = Bench::announced(7);
        bench.source = OTHER_DRIVER;
        if dies {
            bench.dead_image = Some(DRIVER);
            bench.pass(10);
        } else {
            bench.activity = Nanos::from_secs(103);
            bench.pass(3_001);
        }
        bench.hear(7);
        bench.pass(10);
        bench.hear(5);
        assert_eq!(bench.unmaps, [UnmapReason::EpochRegression], "dies: {dies}");
    }
    let mut alive = Bench::announced(7);
    alive.activity = Nanos::from_secs(103);
    alive.source = OTHER_DRIVER;
    alive.pass(3_000);
    alive.hear(7);
    alive.pass(10);
    alive.hear(5);
    assert_eq!(alive.state(), mapped(7), "exactly three periods are not stale");
}

/// Each line of TP-484 that must agree, and what does not count.
/// Rules: TP-484, TC-209.
#[test]
fn two_announces_of_one_epoch_must_say_the_same() {
    type Change = fn(&mut ShmPoolAnnounce<'static>);
    let contradictions: [(&str, Change); 7] = [
        ("slots", |it| {
            it.header_nslots = 16;
            it.payload_pools.iter_mut().for_each(|pool| pool.pool_nslots = 16);
        }),
        ("a pool more", |it| {
            let region_uri = "shm:file?path=/dev/shm/s/3.pool".into();
            it.payload_pools.push(PayloadPool { pool_id: 3, pool_nslots: 8, stride_bytes: 64, region_uri });
        }),
        ("a pool less", |it| it.payload_pools.truncate(1)),
        ("stride", |it| it.payload_pools[0].stride_bytes = 8192),
        ("pool path", |it| it.payload_pools[0].region_uri = "shm:file?path=/dev/shm/s/x.pool".into()),
        ("header path", |it| it.header_region_uri = "shm:file?path=/dev/shm/t/header.ring".into()),
        ("huge pages", |it| {
            it.header_region_uri = "shm:file?path=/dev/shm/s/header.ring|require_hugepages=true".into();
        }),
    ];
    for (what, change) in contradictions {
        let mut bench = Bench::announced(7);
        let mut other = announce(7, bench.now);
        change(&mut other);
        bench.deliver(&other).unwrap();
        assert_eq!(
            (bench.state(), &bench.unmaps[..]),
            (UNMAPPED, &[UnmapReason::Inconsistent][..]),
            "{what}"
        );
    }
    let mut bench = Bench::announced(7);
    bench.pass(10);
    let mut same = announce(7, bench.now);
    same.producer_id = 99;
    same.payload_pools.reverse();
    same.header_region_uri = "shm:file?path=/dev/shm/s/header.ring|require_hugepages=false".into();
    bench.deliver(&same).unwrap();
    assert_eq!((bench.state(), bench.maps.len(), bench.unmaps.len()), (mapped(7), 1, 0));
}

/// Every structural line of table 8.3, while unmapped and while mapped.
/// Rules: TP-005, TP-124, TP-136.
#[test]
fn a_malformed_announce_changes_nothing() {
    type Break = fn(&mut ShmPoolAnnounce<'static>);
    let cases: [(&str, Break); 13] = [
        ("POSIX shared memory", |it| it.header_region_uri = "shm:posix?path=/header".into()),
        ("layout 2", |it| it.layout_version = 2),
        ("slot bytes", |it| it.header_slot_bytes = 128),
        ("6 slots", |it| it.header_nslots = 6),
        ("0 slots", |it| it.header_nslots = 0),
        ("no pools", |it| it.payload_pools.clear()),
        ("pool id twice", |it| it.payload_pools[1].pool_id = 1),
        ("pool slots", |it| it.payload_pools[1].pool_nslots = 4),
        ("stride 32", |it| it.payload_pools[1].stride_bytes = 32),
        ("stride 100", |it| it.payload_pools[1].stride_bytes = 100),
        ("empty pool URI", |it| it.payload_pools[1].region_uri = "".into()),
        ("empty header URI", |it| it.header_region_uri = "".into()),
        ("epoch 0", |it| it.epoch = 0),
    ];
    for (what, break_it) in cases {
        let mut unmapped = Bench::new(false, true);
        let mut bad = announce(8, unmapped.now);
        break_it(&mut bad);
        assert!(matches!(unmapped.deliver(&bad), Err(AnnounceRejection::Structure(_))), "{what}");
        assert_eq!(unmapped.state(), UNMAPPED, "{what}");
        let mut bench = Bench::announced(7);
        assert!(bench.deliver(&bad).is_err(), "{what}");
        assert_eq!((bench.state(), bench.unmaps.len()), (mapped(7), 0), "{what}");
    }
}

/// Rules: TP-036.
#[test]
fn an_announce_of_another_stream_is_not_ours() {
    let mut bench = Bench::new(false, true);
    let other = ShmPoolAnnounce { stream_id: STREAM + 1, ..announce(8, bench.now) };
    assert_eq!(bench.deliver(&other), Err(AnnounceRejection::OtherStream));
    assert_eq!(bench.state(), UNMAPPED);
}

/// Rules: TP-025, TP-136, TC-079.
#[test]
fn an_announce_must_be_fresh() {
    for (age, expected) in [(2_900, Ok(())), (3_000, Ok(())), (3_001, Err(AnnounceRejection::Stale))] {
        let mut bench = Bench::new(false, true);
        let sent = bench.now.saturating_sub(Nanos::from_millis(age));
        assert_eq!(bench.deliver(&announce(7, sent)), expected, "{age} ms old");
    }
    for (ahead, expected) in [(3_000, Ok(())), (3_001, Err(AnnounceRejection::Future))] {
        let mut bench = Bench::new(false, true);
        let sent = bench.now.saturating_add(Nanos::from_millis(ahead));
        assert_eq!(bench.deliver(&announce(7, sent)), expected, "{ahead} ms ahead");
    }
}

/// The join rule is for MONOTONIC; REALTIME_SYNCED is held against the real-time clock.
/// Rules: TP-025, TP-026, TP-137, TP-138, TC-080.
#[test]
fn an_announce_from_before_the_join_is_dropped() {
    let mut bench = Bench::new(false, true);
    bench.joined = bench.now.saturating_sub(Nanos::from_millis(100));
    let before = announce(7, bench.joined.saturating_sub(Nanos(1)));
    assert_eq!(bench.deliver(&before), Err(AnnounceRejection::BeforeJoin));
    assert_eq!(bench.state(), UNMAPPED);
    assert_eq!(bench.deliver(&announce(7, bench.joined)), Ok(()), "not older than the join");

    let realtime =
        |sent| ShmPoolAnnounce { announce_clock_domain: ClockDomain::RealtimeSynced, ..announce(7, sent) };
    let mut bench = Bench::new(false, true);
    bench.joined = bench.now;
    bench.realtime = Nanos::from_secs(50);
    let sent = bench.realtime.saturating_sub(Nanos::from_millis(2_900));
    assert_eq!(
        bench.deliver(&realtime(sent)),
        Ok(()),
        "sent before the join, and on a clock of lower numbers"
    );
    let mut bench = Bench::new(false, true);
    let sent = bench.realtime.saturating_sub(Nanos::from_millis(3_100));
    assert_eq!(bench.deliver(&realtime(sent)), Err(AnnounceRejection::Stale));
    let sent = bench.now;
    assert_eq!(
        bench.deliver(&realtime(sent)),
        Err(AnnounceRejection::Stale),
        "a monotonic time is no real time"
    );
    let sent = bench.realtime;
    assert_eq!(bench.deliver(&announce(7, sent)), Err(AnnounceRejection::Future), "nor the other way");
}

/// Rules: TP-132, TC-078.
#[test]
fn a_step_back_in_sequence_unmaps_until_the_next_announce() {
    let mut bench = Bench::announced(7);
    let command = bench.machine.on_seq_regression(Epoch::new(6));
    assert_eq!(command, None, "of an epoch that is not mapped any more");
    let command = bench.machine.on_seq_regression(Epoch::new(7));
    bench.obey(command);
    assert_eq!((bench.state(), &bench.unmaps[..]), (UNMAPPED, &[UnmapReason::SeqRegression][..]));
    bench.hear(7);
    assert_eq!(bench.state(), mapped(7));
}

/// Rules: TP-081, TP-134, TC-083, TC-084.
#[test]
fn a_changed_superblock_unmaps_and_the_epoch_is_not_trusted_again() {
    let mut bench = Bench::announced(7);
    bench.unchanged = false;
    bench.hear(7);
    assert_eq!((bench.state(), &bench.unmaps[..]), (UNMAPPED, &[UnmapReason::SuperblockChanged][..]));
    bench.unchanged = true;
    bench.hear(7);
    assert_eq!(bench.state(), UNMAPPED);
    bench.hear(8);
    assert_eq!(bench.state(), mapped(8));

    let mut quiet = Bench::announced(7);
    quiet.unchanged = false;
    quiet.pass(1_000);
    assert_eq!(quiet.state(), UNMAPPED, "also without an announce, once per period");
}

/// Activity is looked at once per period, with or without announces, after a grace of three periods.
/// Rules: TP-141, TP-142, TC-081, TC-082.
#[test]
fn frozen_activity_unmaps_after_the_grace() {
    let mut bench = Bench::announced(7);
    bench.activity = bench.now.saturating_sub(Nanos::from_secs(2));
    for _ in 0..3 {
        bench.pass(1_000);
        assert_eq!(bench.state(), mapped(7), "grace");
    }
    bench.pass(1_000);
    assert_eq!((bench.state(), &bench.unmaps[..]), (UNMAPPED, &[UnmapReason::ActivityStale][..]));

    let mut alive = Bench::announced(7);
    for _ in 0..10 {
        // 2.9 s old when it is looked at.
        alive.activity = alive.now.saturating_sub(Nanos::from_millis(1_900));
        alive.pass(1_000);
    }
    assert_eq!(alive.state(), mapped(7));
    alive.activity = alive.now;
    alive.pass(3_000);
    assert_eq!(alive.state(), mapped(7), "exactly three periods");
    alive.pass(1_000);
    assert_eq!(alive.state(), UNMAPPED);
}

/// Rules: TP-143.
#[test]
fn activity_in_the_future_is_stale() {
    for (ahead, expected) in [(3_000, mapped(7)), (3_001, UNMAPPED)] {
        let mut bench = Bench::announced(7);
        bench.now = bench.now.saturating_add(Nanos::from_millis(4_000));
        bench.activity = bench.now.saturating_add(Nanos::from_millis(ahead));
        bench.pass(0);
        assert_eq!(bench.state(), expected, "{ahead} ms ahead");
    }
}

/// Rules: TP-142, TP-485, TC-207.
#[test]
fn a_quiet_epoch_is_mapped_again_only_when_it_moved() {
    for activity in [Nanos(1), Nanos::from_secs(100).saturating_sub(Nanos::from_secs(3_600))] {
        let mut bench = Bench::new(false, true);
        bench.activity = activity;
        bench.hear(7);
        assert_eq!(bench.state(), mapped(7), "activity is no condition for mapping");
        for _ in 0..4 {
            bench.pass(1_000);
        }
        assert_eq!(bench.unmaps, [UnmapReason::ActivityStale]);
        for _ in 0..5 {
            bench.pass(1_000);
            bench.hear(7);
            assert_eq!((bench.state(), bench.maps.len()), (UNMAPPED, 1));
        }
        let mut higher = Bench { machine: bench.machine, ..bench };
        higher.activity = Nanos(activity.as_u64() + 1);
        higher.hear(7);
        assert_eq!((higher.state(), higher.maps.len()), (mapped(7), 2), "it moved");
    }
    let mut bench = Bench::new(false, true);
    bench.activity = Nanos(1);
    bench.hear(7);
    bench.pass(4_000);
    bench.hear(8);
    assert_eq!(bench.state(), mapped(8), "another epoch is mapped as usual");
}

/// The authority of a mapping made after a quiet time is its announcer as well.
/// Rules: TP-483, TP-485.
#[test]
fn an_epoch_mapped_after_quiet_has_its_announcer_as_authority() {
    let mut bench = Bench::new(false, true);
    bench.activity = Nanos(1);
    bench.hear(7);
    bench.pass(4_000);
    bench.activity = Nanos(2);
    bench.hear(7);
    assert_eq!((bench.state(), bench.maps.len()), (mapped(7), 2));
    bench.pass(10);
    bench.hear(6);
    assert_eq!(bench.state(), UNMAPPED);
}

/// Rules: TP-297, TP-128.
#[test]
fn the_own_lease_takes_the_mapping_with_it() {
    let mut bench = Bench::granted(7);
    let command = bench.machine.on_lease_lost();
    bench.obey(command);
    assert_eq!((bench.state(), &bench.unmaps[..]), (UNMAPPED, &[UnmapReason::LeaseLost][..]));
    bench.grant(7);
    assert_eq!(bench.state(), mapped(7), "a new lease may be on the same epoch");

    let mut waiting = Bench::granted(7);
    waiting.producer_revoked();
    let command = waiting.machine.on_lease_lost();
    waiting.obey(command);
    assert_eq!(waiting.state(), UNMAPPED);
}

/// Rules: TP-128, TP-299, TP-303, TC-090.
#[test]
fn a_revoked_producer_leads_to_remapping_and_its_successor_to_the_next_mapping() {
    let mut bench = Bench::granted(7);
    bench.pass(10);
    bench.producer_revoked();
    assert_eq!((bench.state(), &bench.unmaps[..]), (remapping(7), &[UnmapReason::ProducerRevoked][..]));
    bench.producer_revoked();
    bench.hear(7);
    bench.hear(6);
    assert_eq!((bench.state(), bench.maps.len()), (remapping(7), 1), "only a strictly higher epoch will do");
    bench.hear(8);
    assert_eq!((bench.state(), bench.renewals), (mapped(8), 0));
}

/// Rules: TP-303, TP-493, TC-117.
#[test]
fn remapping_with_announces_of_the_old_epoch_keeps_the_lease() {
    let mut bench = Bench::granted(7);
    bench.pass(10);
    bench.producer_revoked();
    for _ in 0..10 {
        bench.pass(1_000);
        bench.hear(7);
    }
    assert_eq!((bench.state(), bench.renewals, bench.maps.len()), (UNMAPPED, 0, 1));
    bench.hear(8);
    assert_eq!(bench.state(), mapped(8));
}

/// Rules: TP-303, TP-493, TC-117.
#[test]
fn remapping_without_any_announce_gives_the_lease_back() {
    let mut bench = Bench::granted(7);
    bench.pass(10);
    bench.producer_revoked();
    bench.pass(2_989);
    assert_eq!((bench.state(), bench.renewals), (remapping(7), 0));
    for _ in 0..5 {
        bench.pass(10);
    }
    assert_eq!((bench.state(), bench.renewals), (UNMAPPED, 1), "once");
}

/// Announces of C programs on the control stream say nothing about the driver (IP-77).
/// Rules: TP-305.
#[test]
fn announces_of_others_do_not_stand_in_for_the_drivers() {
    let mut bench = Bench::granted(7);
    bench.source = C_PRODUCER;
    for _ in 0..4 {
        bench.pass(1_000);
        bench.activity = bench.now;
        bench.hear(7);
    }
    assert_eq!((bench.state(), bench.renewals), (UNMAPPED, 1));
    let mut remapping = Bench::granted(7);
    remapping.pass(10);
    remapping.producer_revoked();
    remapping.source = C_PRODUCER;
    for _ in 0..4 {
        remapping.pass(1_000);
        remapping.hear(7);
    }
    assert_eq!(remapping.renewals, 1);
}

/// Rules: TP-305.
#[test]
fn a_silent_driver_is_given_up() {
    let mut bench = Bench::granted(7);
    bench.activity = bench.now.saturating_add(Nanos::from_secs(3));
    bench.pass(3_000);
    assert_eq!((bench.state(), bench.renewals), (mapped(7), 0));
    bench.pass(1);
    assert_eq!((bench.state(), bench.renewals), (UNMAPPED, 1));
    bench.pass(60_000);
    assert_eq!(bench.renewals, 1, "there is no lease to renew");

    let mut without_driver = Bench::announced(7);
    for _ in 0..10 {
        without_driver.pass(1_000);
        without_driver.activity = without_driver.now;
    }
    assert_eq!(without_driver.state(), mapped(7), "a producer on its own is judged by its activity");
}

/// Control and announce are separate streams, so the notice may come after the epoch that followed it, also when driver
/// sent both at the same instant.
/// Rules: TP-299.
#[test]
fn a_notice_older_than_the_mapped_epoch_is_ignored() {
    for (ago, expected) in [(1, mapped(8)), (0, mapped(8))] {
        let mut bench = Bench::granted(7);
        bench.pass(500);
        let bumped = bench.now;
        bench.hear(8);
        bench.pass(20);
        let sent = bumped.saturating_sub(Nanos(ago));
        let command = bench.machine.on_producer_revoked(sent.as_u64(), bench.now);
        bench.obey(command);
        assert_eq!(bench.state(), expected, "sent {ago} ns before the announce");
        bench.pass(100);
        bench.producer_revoked();
        assert_eq!(bench.state(), remapping(8), "but not the next one");
    }
    let mut granted = Bench::granted(7);
    let command = granted.machine.on_producer_revoked(Nanos::from_secs(99).as_u64(), granted.now);
    granted.obey(command);
    assert_eq!(granted.state(), mapped(7), "sent before the lease was granted");
}

#[test]
fn a_notice_without_a_mapping_changes_nothing() {
    let mut bench = Bench::new(true, true);
    bench.producer_revoked();
    assert_eq!(bench.state(), UNMAPPED);
    bench.grant(7);
    assert_eq!(bench.state(), mapped(7));
}

/// Rules: TP-182, TP-183, TP-185, TP-128, TC-085.
#[test]
fn a_configuration_without_shared_memory_leads_to_fallback_until_it_is_taken_back() {
    let mut bench = Bench::announced(7);
    bench.configure(false, "bridge://b1");
    assert_eq!((bench.state(), &bench.unmaps[..]), (FALLBACK, &[UnmapReason::Config][..]));
    let uri = FallbackUri::parse(b"bridge://b1");
    assert!(uri.is_some());
    assert_eq!(bench.machine.fallback_uri(), uri.as_ref());
    for epoch in [7, 8] {
        bench.pass(10);
        bench.hear(epoch);
    }
    assert_eq!((bench.state(), bench.maps.len()), (FALLBACK, 1), "announces do not map");
    bench.configure(true, "");
    assert_eq!(bench.state(), FALLBACK, "until something is mapped");
    assert_eq!(bench.machine.fallback_uri(), uri.as_ref());
    bench.hear(8);
    assert_eq!((bench.state(), bench.machine.fallback_uri()), (mapped(8), None));
}

/// Rules: TP-182, TP-183.
#[test]
fn fallback_by_configuration_also_holds_against_a_grant() {
    let mut bench = Bench::granted(7);
    bench.pass(10);
    bench.producer_revoked();
    bench.configure(false, "");
    assert_eq!((bench.state(), bench.machine.fallback_uri()), (FALLBACK, None));
    bench.grant(8);
    assert_eq!((bench.state(), bench.maps.len()), (FALLBACK, 1));
}

/// Rules: TP-183, TP-184, TP-185.
#[test]
fn a_failed_mapping_with_a_known_uri_is_tried_again_with_each_new_epoch() {
    let mut bench = Bench::announced(7);
    bench.configure(false, "bridge://b1");
    bench.configure(true, "");
    bench.mappable = false;
    bench.pass(10);
    bench.hear(7);
    assert_eq!(bench.state(), FALLBACK);
    assert!(bench.machine.fallback_uri().is_some());
    bench.mappable = true;
    bench.pass(10);
    bench.hear(7);
    assert_eq!(bench.state(), FALLBACK, "the same epoch is not tried again");
    bench.hear(8);
    assert_eq!((bench.state(), bench.machine.fallback_uri()), (mapped(8), None));
}

/// Rules: TP-184, TC-087.
#[test]
fn a_failed_mapping_without_a_uri_stays_unmapped() {
    let mut bench = Bench::new(false, true);
    bench.mappable = false;
    bench.hear(7);
    assert_eq!(bench.state(), UNMAPPED);
    bench.mappable = true;
    bench.pass(1_000);
    bench.hear(7);
    assert_eq!(bench.state(), mapped(7), "a file may have been late (IP-88)");
}

/// Rules: TP-186.
#[test]
fn a_consumer_without_shared_memory_never_maps() {
    let mut bench = Bench::new(true, false);
    assert_eq!((bench.state(), bench.machine.fallback_uri()), (FALLBACK, None));
    bench.grant(7);
    bench.hear(7);
    bench.configure(false, "bridge://b1");
    assert!(bench.machine.fallback_uri().is_some());
    bench.configure(true, "");
    bench.hear(7);
    bench.hear(8);
    bench.grant(9);
    assert_eq!((bench.state(), bench.maps.len()), (FALLBACK, 0));
}

/// A URI of a scheme that is not supported is no URI.
/// Rules: TC-086.
#[test]
fn an_unsupported_fallback_uri_is_ignored() {
    let mut bench = Bench::announced(7);
    bench.configure(false, "http://x");
    assert_eq!((bench.state(), bench.machine.fallback_uri()), (FALLBACK, None));
}

/// The structural checks of an attach response are those of an announce.
#[test]
fn a_grant_and_an_announce_of_the_same_regions_agree() {
    let pools = announce(7, Nanos::ZERO).payload_pools;
    let response = driver::ShmAttachResponse {
        correlation_id: 1,
        code: driver::ResponseCode::Ok,
        lease_id: Some(1),
        lease_expiry_timestamp_ns: None,
        stream_id: Some(STREAM),
        epoch: Some(7),
        layout_version: Some(1),
        header_nslots: Some(8),
        header_slot_bytes: Some(256),
        node_id: None,
        payload_pools: pools
            .iter()
            .rev()
            .map(|pool| driver::PayloadPool {
                pool_id: pool.pool_id,
                pool_nslots: pool.pool_nslots,
                stride_bytes: pool.stride_bytes,
                region_uri: pool.region_uri,
            })
            .collect(),
        header_region_uri: HEADER.into(),
        error_message: "".into(),
    };
    assert_eq!(RegionSpec::from_attach_response(&response).unwrap(), spec(7));
}
