//! Tables 8.2 and 8.3, row by row, with the rules below them.

mod acceptance;
mod epochs;
mod fallback;
mod leases;
mod liveness;

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
