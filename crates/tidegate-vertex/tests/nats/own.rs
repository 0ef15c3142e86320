//! Ownership in a real bucket: claims, leases, lost answers, and a store that goes back in time.

use std::{collections::BTreeSet, time::Duration};

use async_nats::jetstream::stream::{Config, RetentionPolicy};
use rustix::process::Signal;
use tidegate_shm::clock::{Nanos, boottime_now, monotonic_now};
use tidegate_udf::wire::ids::{EpochId, Generation, PartitionId, Position};
use tidegate_vertex::nats::{
    Endpoint, Nats, NatsError,
    own::{Bucket, Claimant, Commit, Contender, Intent, Member, OwnError, Owned, Standing, rank},
};
use tidegate_vertex::{
    fence::Fenced,
    own::{Committed, Known},
    sink::Token,
    source::{Identity, Resume},
};

use crate::server::Server;

const PARTITION: PartitionId = PartitionId(3);
const LONG: Nanos = Nanos::from_secs(600);
const SHORT: Nanos = Nanos::from_millis(1);

fn bucket(server: &Server) -> Bucket {
    Bucket::open(server.connect(), "orders-enrich").unwrap()
}

fn contender(owner: &str, lease: Nanos) -> Contender {
    Contender::new(PARTITION, Claimant { uid: 0xaa, owner: owner.to_owned(), lease })
}

fn claim_at(
    server: &Server,
    contender: &mut Contender,
    now: Nanos,
    nonce: u64,
    known: Known,
    accept: bool,
) -> Result<Owned, OwnError> {
    let bucket = bucket(server);
    match contender.look(&bucket, now)? {
        Standing::Free(found) => contender.claim(bucket.clone(), found, nonce, &known, accept),
        Standing::Held { owner, .. } => panic!("held by {owner}"),
    }
}

fn claim(server: &Server, owner: &str, lease: Nanos, nonce: u64) -> Owned {
    claim_at(server, &mut contender(owner, lease), monotonic_now(), nonce, Known::default(), false).unwrap()
}

fn commit(epoch: u64, generation: u64, resume: u64) -> Commit {
    let (digest, identity) = (format!("{epoch:032x}"), String::new());
    Commit { epoch, generation, digest, resume, identity, sinks: Vec::new() }
}

fn intent(epoch: u64, generation: u64) -> Intent {
    Intent { generation, epoch, first: 10, last: 19, count: 10, bounds: None }
}

fn decide(owned: &mut Owned, commit: Commit, next: Option<Intent>) -> Result<(), OwnError> {
    owned.decide(Some(commit), next, || Ok::<_, Fenced>(()))
}

/// What a ledger has that came to this epoch.
fn known(generation: u64, epoch: u64) -> Known {
    let committed = Committed {
        epoch: EpochId(epoch),
        generation: Generation(generation),
        digest: epoch.into(),
        resume: Resume { position: Position(epoch * 10), identity: Identity(vec![7]) },
        tokens: vec![("main".to_owned(), Token(vec![1, 2]))],
    };
    Known {
        generation: Generation(generation),
        committed: Some(committed).filter(|_| epoch > 0),
        ..Known::default()
    }
}

/// Cases: CT-35.
/// Rules: VX-701, VX-710, VX-711, VX-712, VX-713, VX-717.
#[test]
fn a_claim_takes_over_what_was_committed_and_stops_the_owner_before() {
    let server = Server::start();
    let mut old = claim(&server, "a", LONG, 1);
    assert_eq!(old.session().generation, Generation(1));
    decide(&mut old, commit(1, 1, 10), Some(intent(2, 1))).unwrap();
    let mut other = contender("b", LONG);
    let start = monotonic_now();
    let watched = bucket(&server);
    let Standing::Held { owner, free_at } = other.look(&watched, start).unwrap() else { panic!("free") };
    // The lease of the owner and a margin, from when the contender saw it for the first time.
    assert_eq!((owner.as_str(), free_at), ("a", start.saturating_add(Nanos::from_secs(720))));
    // A renewal begins the wait anew.
    old.renew().unwrap();
    let later = start.saturating_add(Nanos::from_secs(719));
    let Standing::Held { free_at, .. } = other.look(&watched, later).unwrap() else { panic!("free") };
    assert_eq!(free_at, later.saturating_add(Nanos::from_secs(720)));
    let mut new = claim_at(&server, &mut other, free_at, 2, Known::default(), false).unwrap();
    assert_eq!(new.session().generation, Generation(2));
    assert_eq!(new.document().committed(), Some((EpochId(1), tidegate_udf::wire::ids::Position(10))));
    assert_eq!(new.document().intent, Some(intent(2, 1)));
    // The owner before can do nothing any more, whatever its clock says.
    assert!(old.deadline() > boottime_now());
    let lost = decide(&mut old, commit(2, 1, 20), None).unwrap_err();
    assert!(matches!(lost, OwnError::Taken { generation: Generation(2), .. }), "{lost}");
    assert!(matches!(old.renew().unwrap_err(), OwnError::Taken { .. }));
    decide(&mut new, commit(2, 2, 20), None).unwrap();
    // What was given away is free at once.
    new.release().unwrap();
    let next = claim(&server, "c", LONG, 3);
    assert_eq!(next.session().generation, Generation(3));
    assert_eq!(next.document().committed().unwrap().0, EpochId(2));
}

/// Cases: CT-35.
/// Rules: VX-701, VX-710, VX-712.
#[test]
fn of_many_contenders_one_claims_each_generation() {
    contenders(&Server::start());
}

pub(crate) fn contenders(server: &Server) {
    drop(claim(server, "first", Nanos::from_millis(1), 0));
    // Behind every lease and its margin.
    let far = monotonic_now().saturating_add(Nanos(2 * LONG.0));
    let generations: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=4u64)
            .map(|instance| {
                scope.spawn(move || {
                    let mut won = Vec::new();
                    let mut nonce = instance * 1_000_000;
                    while won.len() < 6 {
                        nonce += 1;
                        let mut contender = contender(&instance.to_string(), LONG);
                        let bucket = bucket(server);
                        // Seen first now, and again when every lease is over.
                        contender.look(&bucket, monotonic_now()).unwrap();
                        let Ok(Standing::Free(found)) = contender.look(&bucket, far) else { continue };
                        match contender.claim(bucket, found, nonce, &Known::default(), false) {
                            Ok(owned) => won.push(owned.session().generation.0),
                            Err(OwnError::Taken { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    won
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut sorted = generations;
    sorted.sort_unstable();
    assert_eq!(sorted, (2..26).collect::<Vec<_>>(), "each generation once, none left out");
}

/// Cases: CT-37.
/// Rules: VX-716, VX-719.
#[test]
fn a_store_that_does_not_answer_costs_the_lease_and_nothing_before() {
    let server = Server::start();
    let lease = Nanos::from_secs(2);
    let mut owned = claim(&server, "a", lease, 1);
    assert!(owned.renew().unwrap());
    let deadline = owned.deadline();
    server.signal(Signal::STOP);
    let lost = loop {
        if let Err(lost) = owned.renew() {
            break lost;
        }
    };
    assert!(matches!(lost, OwnError::Expired { .. }), "{lost}");
    assert!(boottime_now() >= deadline, "not before the deadline");
    assert_eq!(owned.deadline(), deadline, "what was not confirmed extends nothing");
    server.signal(Signal::CONT);
    // A confirmation behind the deadline extends nothing either.
    assert!(matches!(owned.renew().unwrap_err(), OwnError::Expired { .. }));
}

/// The write arrives while the answer does not: the key says what became of it.
/// Rules: VX-715.
#[test]
fn a_write_whose_answer_was_lost_is_recognized() {
    let mut server = Server::start();
    let mut owned = claim(&server, "a", LONG, 1);
    decide(&mut owned, commit(1, 1, 10), None).unwrap();
    server.signal(Signal::STOP);
    let pid = std::thread::scope(|scope| {
        let writing = scope.spawn(|| decide(&mut owned, commit(2, 1, 20), None));
        // Longer than a call takes at most.
        std::thread::sleep(Duration::from_secs(6));
        server.signal(Signal::CONT);
        writing.join().unwrap()
    });
    pid.unwrap();
    assert_eq!(owned.document().committed().unwrap().0, EpochId(2));
    // And over a restart of the server.
    server.restart();
    decide(&mut owned, commit(3, 1, 30), None).unwrap();
}

/// The store has it from the first attempt, and others count from when they saw it.
/// Rules: VX-715, VX-716.
#[test]
fn a_renewal_that_was_stored_late_counts_from_when_it_was_sent_first() {
    let server = Server::start();
    let nats =
        Nats::connect_with(&Endpoint::open(&server.url()), "test", Duration::from_millis(200)).unwrap();
    let bucket = Bucket::open(nats, "orders-enrich").unwrap();
    let Standing::Free(found) = contender("a", LONG).look(&bucket, monotonic_now()).unwrap() else {
        panic!()
    };
    let mut owned = contender("a", LONG).claim(bucket, found, 1, &Known::default(), false).unwrap();
    server.signal(Signal::STOP);
    assert!(!owned.renew().unwrap(), "neither the write nor the read is answered");
    let latest = boottime_now().saturating_add(Nanos(LONG.0 / 5 * 4));
    server.signal(Signal::CONT);
    while !owned.renew().unwrap() {}
    assert!(owned.deadline() < latest);
}

/// Cases: CT-36.
/// Rules: VX-701, VX-714.
#[test]
fn a_store_that_went_back_is_refused_until_somebody_says_so() {
    regressions(&Server::start());
}

pub(crate) fn regressions(server: &Server) {
    let ahead = known(9, 4);
    let claim = |known, accept, lease| {
        let now = monotonic_now();
        let mut contender = contender("a", lease);
        contender.look(&bucket(server), now).unwrap();
        claim_at(server, &mut contender, now.saturating_add(LONG), 7, known, accept)
    };
    let refused = claim(ahead.clone(), false, SHORT).unwrap_err();
    assert!(refused.to_string().contains("knows nothing"), "{refused}");
    let owned = claim(ahead.clone(), true, SHORT).unwrap();
    assert_eq!(owned.session().generation, Generation(10), "above everything known");
    let kept = owned.document().commit.as_ref().and_then(Commit::committed);
    assert_eq!(kept, ahead.committed, "what the sinks have confirmed stays committed");
    let refused = claim(known(11, 4), false, SHORT).unwrap_err();
    assert!(refused.to_string().contains("its generation is lower"), "{refused}");
    let refused = claim(known(1, 5), false, SHORT).unwrap_err();
    assert!(refused.to_string().contains("its committed epoch is lower"), "{refused}");
    // Another session with the same generation.
    let nats = server.connect();
    let (stream, _) = nats.stream("KV_tgvx_orders-enrich").unwrap();
    let subject = "$KV.tgvx_orders-enrich.own.3";
    let mut owned = claim(Known::default(), false, LONG).unwrap();
    let last = nats.last_of(&stream, subject).unwrap().unwrap();
    let text = String::from_utf8(last.value).unwrap();
    server.produce(subject, [text.replace("0000000000000007", "00000000000000ff")]);
    let lost = owned.renew().unwrap_err();
    assert!(
        matches!(lost, OwnError::Regressed { what: "another session has the same generation", .. }),
        "{lost}"
    );
    // A delete marker would forget the generation.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    nats.publish(subject, vec![(headers, Vec::new())]);
    let refused = contender("b", LONG).look(&bucket(server), monotonic_now()).unwrap_err();
    assert!(refused.to_string().contains("was deleted"), "{refused}");
}

/// Rules: VX-710.
#[test]
fn a_bucket_that_may_forget_is_refused() {
    let server = Server::start();
    drop(bucket(&server));
    let nats = server.connect();
    let (_, info) = nats.stream("KV_tgvx_orders-enrich").unwrap();
    assert!(!info.config.allow_direct && info.config.deny_purge && info.config.deny_delete);
    assert_eq!((info.config.max_messages_per_subject, info.config.retention), (8, RetentionPolicy::Limits));
    for (config, key) in [
        (Config { allow_direct: true, ..info.config.clone() }, "allow_direct"),
        (Config { max_age: Duration::from_secs(600), ..info.config.clone() }, "max_age"),
    ] {
        let name = format!("KV_tgvx_{key}");
        server.create(Config { name, subjects: vec![format!("$KV.tgvx_{key}.>")], ..config });
        let refused = Bucket::open(server.connect(), key).unwrap_err();
        assert!(matches!(&refused, NatsError::Setting { key: found, .. } if *found == key), "{refused}");
    }
}

/// Rules: VX-718.
#[test]
fn each_partition_has_its_own_order_of_instances() {
    let member = |instance: &str| Member {
        instance: instance.to_owned(),
        pins: None,
        declines: BTreeSet::new(),
        load: 0,
    };
    let instances: Vec<Member> = ["a", "b", "c"].map(member).to_vec();
    let firsts = |instances: &[Member]| -> Vec<String> {
        let first = |partition| {
            let first = instances.iter().find(|own| rank(partition, own, instances) == 0);
            first.unwrap().instance.clone()
        };
        (0..300).map(PartitionId).map(first).collect()
    };
    let before = firsts(&instances);
    for own in &instances {
        let share = before.iter().filter(|first| **first == own.instance).count();
        assert!((60..140).contains(&share), "{own:?}: {share} of 300");
    }
    // One that goes away gives its partitions to the others and moves no other.
    let after = firsts(&instances[..2]);
    assert!(before.iter().zip(&after).all(|(before, after)| before == "c" || before == after));
}
