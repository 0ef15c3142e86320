//! Attach requests: table 15.2, evaluated in its order.
//!
//! A request is first judged without touching anything (TP-239). Only then regions are made and a node id is taken, and
//! what was made is removed again when that fails. Tables change last, when nothing can fail any more.

use std::sync::Arc;

use tidegate_sbe::driver::{
    HugepagesPolicy, PublishMode, ResponseCode, Role, ShmAttachRequest, ShmAttachResponse,
};
use tidegate_sbe::{EncodeError, Open};
use tidegate_shm::clock::Nanos;

use super::Driver;
use super::lease::Grant;
use super::outbox::Granted;
use super::shutdown::Phase;
use super::stream::Stream;
use crate::config::Profile;
use crate::ids::{ClientId, CorrelationId, Epoch, NodeId, StreamId};
use crate::layout::LAYOUT_VERSION;
use crate::region::store::{EpochRegions, StoreError};

/// A repeated failure is logged at most this often (TP-468).
const LOG_PERIOD: Nanos = Nanos::from_secs(1);

/// A line of table 15.2 other than OK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    code: ResponseCode,
    text: &'static str,
}

impl Refusal {
    const fn new(code: ResponseCode, text: &'static str) -> Self {
        Self { code, text }
    }

    const fn invalid(text: &'static str) -> Self {
        Self::new(ResponseCode::InvalidParams, text)
    }

    const fn rejected(text: &'static str) -> Self {
        Self::new(ResponseCode::Rejected, text)
    }
}

const UNSUPPORTED_VERSION: Refusal = Refusal::new(ResponseCode::Unsupported, "unsupported schema version");
const INVALID_ROLE: Refusal = Refusal::invalid("invalid role");
const ZERO_CLIENT: Refusal = Refusal::invalid("client_id must be non-zero");
const PUBLISH_MODE: Refusal = Refusal::new(ResponseCode::Unsupported, "unsupported publish_mode");
const HUGEPAGES_POLICY: Refusal = Refusal::invalid("invalid hugepages policy");
const DRAINING: Refusal = Refusal::rejected("driver draining");
const ALREADY_ATTACHED: Refusal = Refusal::rejected("client_id already attached");
const LAYOUT: Refusal = Refusal::rejected("layout version mismatch");
const NOT_PROVISIONED: Refusal = Refusal::rejected("stream not provisioned");
const NO_RANGE: Refusal = Refusal::invalid("stream_id_range not configured");
const RANGE_EXHAUSTED: Refusal = Refusal::invalid("stream_id_range exhausted");
const NO_PROFILE: Refusal = Refusal::invalid("profile not found");
const NO_POOLS: Refusal = Refusal::invalid("stream has no payload pools");
const PRODUCER_ATTACHED: Refusal = Refusal::rejected("producer already attached");
const CONSUMER_LIMIT: Refusal = Refusal::rejected("consumer limit reached");
const NO_HUGEPAGES: Refusal = Refusal::rejected("hugepages not available");
const STANDARD_PAGES: Refusal = Refusal::rejected("standard pages requested");
const NODE_UNAVAILABLE: Refusal = Refusal::rejected("desired node_id unavailable");
const CREATION_FAILED: Refusal = Refusal::new(ResponseCode::InternalError, "shm creation failed");
const NODES_EXHAUSTED: Refusal = Refusal::new(ResponseCode::InternalError, "node_id allocation failed");

/// How a request that passed is to be served.
enum Verdict {
    /// The answer was given before and still holds (row 8).
    Repeat(Granted),
    Serve(Plan),
}

/// A request that passed every row up to 20.
struct Plan {
    client: ClientId,
    role: Role,
    correlation: CorrelationId,
    stream: StreamId,
    /// The stream to be created, with its profile.
    create: Option<Arc<Profile>>,
    desired_node: Option<u32>,
}

impl Driver {
    pub(super) fn on_attach(&mut self, request: &ShmAttachRequest, now: Nanos) {
        match self.judge(request, now) {
            Ok(Verdict::Repeat(granted)) => {
                self.counters.attaches_repeated += 1;
                self.outbox.push_granted(granted);
            }
            Ok(Verdict::Serve(plan)) => {
                if let Err(refusal) = self.serve(plan, now) {
                    self.refuse(request.correlation_id, refusal);
                }
            }
            Err(refusal) => self.refuse(request.correlation_id, refusal),
        }
    }

    /// Row 1: a version we cannot decode (TP-009).
    pub(super) fn refuse_attach_version(&mut self, correlation_id: i64) {
        self.refuse(correlation_id, UNSUPPORTED_VERSION);
    }

    fn refuse(&mut self, correlation_id: i64, refusal: Refusal) {
        self.counters.count_attach(refusal.code);
        self.outbox.push_control(encode_refusal(correlation_id, refusal));
    }

    /// Rows 3 to 20. Changes nothing.
    fn judge(&self, request: &ShmAttachRequest, now: Nanos) -> Result<Verdict, Refusal> {
        let role = request.role.listed().ok_or(INVALID_ROLE)?;
        if request.client_id == 0 {
            return Err(ZERO_CLIENT);
        }
        let create = match request.publish_mode {
            // TP-245: no mode means an existing stream.
            None | Some(Open::Listed(PublishMode::RequireExisting)) => false,
            Some(Open::Listed(PublishMode::ExistingOrCreate)) => true,
            Some(Open::Unlisted(_)) => return Err(PUBLISH_MODE),
        };
        let pages = request.require_hugepages.listed().ok_or(HUGEPAGES_POLICY)?;
        if !matches!(self.phase, Phase::Running) {
            return Err(DRAINING);
        }
        let client = ClientId::new(request.client_id);
        let correlation = CorrelationId::new(request.correlation_id);
        if let Some(lease) = self.leases.of_client(client) {
            if lease.correlation != correlation {
                return Err(ALREADY_ATTACHED);
            }
            return Ok(Verdict::Repeat(Granted {
                correlation,
                lease: lease.id,
                node: lease.node,
                regions: Arc::clone(&lease.regions),
                expires: lease.expires,
            }));
        }
        if !matches!(request.expected_layout_version, 0 | LAYOUT_VERSION) {
            return Err(LAYOUT);
        }
        let wish = StreamId::new(request.stream_id);
        let (stream, new_profile) = match self.streams.get(wish) {
            Some(_) => (wish, None),
            None if create => self.dynamic(wish).map(|(id, profile)| (id, Some(profile)))?,
            None => return Err(NOT_PROVISIONED),
        };
        let known = self.streams.get(stream);
        let profile = new_profile.as_ref().or(known.map(|known| &known.profile));
        if profile.is_none_or(|profile| profile.payload_pools.is_empty()) {
            return Err(NO_POOLS);
        }
        match role {
            Role::Producer if self.leases.producer_of(stream).is_some() => return Err(PRODUCER_ATTACHED),
            Role::Consumer if self.leases.consumers_of(stream) >= self.options.max_consumers_per_stream => {
                return Err(CONSUMER_LIMIT);
            }
            _ => {}
        }
        self.check_pages(pages, known.is_some_and(|known| known.regions.is_some()))?;
        if let Some(id) = request.desired_node_id
            && self.options.assign_node_ids
            && !self.node_ids.is_available(id, now)
        {
            return Err(NODE_UNAVAILABLE);
        }
        Ok(Verdict::Serve(Plan {
            client,
            role,
            correlation,
            stream,
            create: new_profile,
            desired_node: request.desired_node_id,
        }))
    }

    /// Rows 12 to 15: id and profile of a stream that does not exist yet.
    fn dynamic(&self, wish: StreamId) -> Result<(StreamId, Arc<Profile>), Refusal> {
        if !self.config.policies.allow_dynamic_streams {
            return Err(NOT_PROVISIONED);
        }
        if !self.streams.has_range() {
            return Err(NO_RANGE);
        }
        let id = self.streams.free_id(wish).ok_or(RANGE_EXHAUSTED)?;
        let profile = self.config.default_profile().ok_or(NO_PROFILE)?;
        Ok((id, Arc::new(profile.clone())))
    }

    /// Rows 18 and 19. Without an explicit wish the existing backing of a stream decides, and the policy for a stream
    /// that has none (TP-247).
    fn check_pages(&self, pages: HugepagesPolicy, has_regions: bool) -> Result<(), Refusal> {
        let huge = self.store.is_hugetlbfs();
        match pages {
            HugepagesPolicy::Hugepages if !huge => Err(NO_HUGEPAGES),
            HugepagesPolicy::Standard if huge => Err(STANDARD_PAGES),
            HugepagesPolicy::Unspecified if self.config.shm.require_hugepages && !huge && !has_regions => {
                Err(NO_HUGEPAGES)
            }
            _ => Ok(()),
        }
    }

    /// Rows 21 to 23: makes what is needed, or leaves no trace.
    fn serve(&mut self, plan: Plan, now: Nanos) -> Result<(), Refusal> {
        let known = self.streams.get(plan.stream);
        let last = known.map_or(Epoch::NONE, |stream| stream.last_epoch);
        let profile =
            plan.create.clone().or(known.map(|stream| Arc::clone(&stream.profile))).ok_or(NO_PROFILE)?;
        let current =
            known.and_then(|stream| stream.regions.as_ref()).map(|regions| Arc::clone(regions.spec()));
        // A producer always starts in an epoch of its own; a consumer only needs that there is one (TP-248, TP-261).
        let (regions, fresh) = match current {
            Some(current) if plan.role == Role::Consumer => (current, None),
            _ => {
                let fresh = self.make_epoch(plan.stream, &profile, last, now).map_err(|_| CREATION_FAILED)?;
                (Arc::clone(fresh.spec()), Some(fresh))
            }
        };
        let node = match self.take_node(&plan, now) {
            Ok(node) => node,
            Err(refusal) => {
                if let Some(fresh) = fresh {
                    self.store.discard(fresh);
                }
                return Err(refusal);
            }
        };

        if let Some(profile) = plan.create {
            self.streams.insert(plan.stream, Stream::new(None, profile, true));
        }
        let is_fresh = fresh.is_some();
        if let Some(fresh) = fresh {
            self.install(plan.stream, fresh);
        }
        let expires = now.saturating_add(self.lease_duration);
        let lease = self.leases.insert(Grant {
            stream: plan.stream,
            client: plan.client,
            role: plan.role,
            node,
            correlation: plan.correlation,
            regions: Arc::clone(&regions),
            expires,
        });
        self.counters.count_attach(ResponseCode::Ok);
        tracing::info!(
            %lease, stream = %plan.stream, client = %plan.client, role = ?plan.role, epoch = %regions.epoch(),
            "attached"
        );
        self.outbox.push_granted(Granted { correlation: plan.correlation, lease, node, regions, expires });
        if is_fresh {
            self.announce_change(plan.stream, now);
        }
        if plan.role == Role::Producer {
            self.collect(plan.stream, now);
        }
        Ok(())
    }

    fn take_node(&mut self, plan: &Plan, now: Nanos) -> Result<Option<NodeId>, Refusal> {
        if !self.options.assign_node_ids {
            return Ok(None);
        }
        self.node_ids.allocate(plan.desired_node, plan.client, now).map(Some).ok_or(NODES_EXHAUSTED)
    }

    /// Makes the files of a new epoch; when that fails, collects everywhere and tries once more (TP-281).
    pub(super) fn make_epoch(
        &mut self,
        stream: StreamId,
        profile: &Profile,
        last: Epoch,
        now: Nanos,
    ) -> Result<EpochRegions, StoreError> {
        if let Ok(regions) = self.store.create_epoch(stream, profile, last, now) {
            return Ok(self.count_created(regions));
        }
        self.collect_all(now);
        match self.store.create_epoch(stream, profile, last, now) {
            Ok(regions) => Ok(self.count_created(regions)),
            Err(error) => {
                self.counters.epochs_failed += 1;
                // Clients ask again several times per second.
                if self.failure_logged.is_none_or(|last| now.saturating_sub(last) >= LOG_PERIOD) {
                    self.failure_logged = Some(now);
                    tracing::error!(%stream, %error, "regions could not be made, also after collecting old epochs");
                }
                Err(error)
            }
        }
    }

    fn count_created(&mut self, regions: EpochRegions) -> EpochRegions {
        self.counters.epochs_created += 1;
        regions
    }
}

/// An answer with every optional field null (TP-243).
fn encode_refusal(correlation_id: i64, refusal: Refusal) -> Result<Vec<u8>, EncodeError> {
    ShmAttachResponse {
        correlation_id,
        code: refusal.code,
        lease_id: None,
        lease_expiry_timestamp_ns: None,
        stream_id: None,
        epoch: None,
        layout_version: None,
        header_nslots: None,
        header_slot_bytes: None,
        node_id: None,
        payload_pools: Vec::new(),
        header_region_uri: "".into(),
        error_message: refusal.text.into(),
    }
    .to_vec()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tidegate_sbe::driver::Message;

    use super::*;
    use crate::config::{DriverConfig, StreamEntry};
    use crate::driver::DriverOptions;

    const NOW: Nanos = Nanos::from_secs(1);

    fn driver() -> (TempDir, Driver) {
        let base = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut config = DriverConfig::default_node();
        config.shm.base_dir = base.path().to_owned();
        config.shm.allowed_base_dirs = vec![base.path().to_owned()];
        let profile = config.profiles[0].name.clone();
        config.streams = vec![StreamEntry { name: "cam".to_owned(), stream_id: StreamId::new(10), profile }];
        let driver = Driver::new(config, DriverOptions::new(2), NOW).unwrap();
        (base, driver)
    }

    fn ask(driver: &mut Driver, stream_id: u32) -> (ResponseCode, String) {
        let request = ShmAttachRequest {
            correlation_id: 1,
            stream_id,
            client_id: 5,
            role: Role::Consumer.into(),
            expected_layout_version: 0,
            publish_mode: Some(PublishMode::ExistingOrCreate.into()),
            require_hugepages: HugepagesPolicy::Unspecified.into(),
            desired_node_id: None,
        };
        driver.on_control(&request.to_vec().unwrap(), NOW);
        let answer = driver.pop_outgoing(NOW).unwrap();
        let Ok(Message::ShmAttachResponse(answer)) = Message::decode(&answer.bytes) else { panic!() };
        (answer.code, answer.error_message.as_str().unwrap().to_owned())
    }

    /// A loaded configuration has no such holes, so they are made in the running driver.
    ///
    /// Rules: TP-239, TC-101, TC-104.
    #[test]
    fn profiles_that_are_missing_or_empty_at_run_time_are_refused() {
        let (_base, mut driver) = driver();
        driver.config.policies.default_profile = Some("gone".to_owned());
        let missing = (ResponseCode::InvalidParams, "profile not found".to_owned());
        assert_eq!(ask(&mut driver, 0), missing);

        driver.config.policies.default_profile = None;
        driver.config.profiles[0].payload_pools.clear();
        let empty = (ResponseCode::InvalidParams, "stream has no payload pools".to_owned());
        assert_eq!(ask(&mut driver, 0), empty);
        if let Some(stream) = driver.streams.get_mut(StreamId::new(10)) {
            stream.profile = Arc::new(driver.config.profiles[0].clone());
        }
        assert_eq!(ask(&mut driver, 10), empty);
        assert_eq!(driver.streams.iter().count(), 1);
    }
}
