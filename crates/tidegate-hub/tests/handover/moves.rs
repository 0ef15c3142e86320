//! Handovers that succeed.

use std::{
    sync::{Arc, Mutex},
    thread,
};

use tidegate_hub::{
    block::{AttachOptions, Role, attach as attach_block},
    config::{BufferPolicy, ConsumerConfig, HubConfig},
    consumer::HandoverIterator,
    error::{AcquireError, FollowError, WriteError},
    handover::HandoverOptions,
    layout::SyncPolicy,
    producer::Producer,
};

use crate::{
    all_readers, attach, blocks,
    children::{Child, role, say},
    drain, follow, receive, until,
    world::{LONG, NOW, config, consumer_config, number, place, send, send_all},
};

/// Reads numbers that count up from 0 until the channel is closed, whichever block they are in, and says how many.
fn count_up(task: &crate::children::Task) {
    let mut iterator = HandoverIterator::attach(&task.block, &consumer_config(&task.dir)).unwrap();
    say("attached");
    let mut expected = 0;
    loop {
        match iterator.next(LONG) {
            Ok(slot) => {
                assert_eq!((slot.id().0, number(&slot.to_vec())), (expected, expected));
                expected += 1;
            }
            Err(FollowError::Acquire(AcquireError::Closed { handed_over: false })) => break,
            Err(error) => panic!("after {expected}: {error}"),
        }
    }
    say(format!("read {expected}"));
}

/// A hundred moves between rings of 8 and 16 slots while a thread writes as fast as it can: three processes read every id
/// once, in order. There is no broker: the blocks alone say where the channel goes.
///
/// Rules: DH-219, DH-220, DH-221, DH-224, V-01, V-02.
#[test]
fn a_channel_moves_a_hundred_times_and_nothing_is_lost() {
    if let Some(task) = role("reader") {
        return count_up(&task);
    }
    const MOVES: u32 = 100;
    let dir = place();
    let first = Producer::create(&all_readers(dir.path(), 8)).unwrap();
    let test = "moves::a_channel_moves_a_hundred_times_and_nothing_is_lost";
    let mut readers: Vec<Child> =
        (0..3).map(|_| Child::start(test, "reader", dir.path(), &first.name())).collect();
    readers.iter_mut().for_each(|reader| drop(reader.wait_for("attached")));
    let current = Mutex::new(Arc::new(first));
    let ended = Mutex::new(false);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut next = 0_u64;
            while !*ended.lock().unwrap() {
                let producer = current.lock().unwrap().clone();
                match producer.send(&next.to_le_bytes(), LONG) {
                    Ok(id) => {
                        assert_eq!(id.0, next);
                        next += 1;
                    }
                    Err(WriteError::Acquire(AcquireError::Closed { handed_over: true })) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            next
        });
        for turn in 0..MOVES {
            let old = current.lock().unwrap().clone();
            let before = old.next_id();
            until("something was written", || old.next_id() > before);
            let config = all_readers(dir.path(), if turn % 2 == 0 { 16 } else { 8 });
            let mut handover = old.begin_handover(&config, options()).unwrap();
            *current.lock().unwrap() = Arc::new(handover.cut().unwrap());
        }
        *ended.lock().unwrap() = true;
        writer.join().unwrap()
    });
    let last = Arc::into_inner(current.into_inner().unwrap()).unwrap();
    until("all follow", || last.consumer_count() == 3);
    last.close().unwrap();
    for reader in &mut readers {
        assert_eq!(reader.wait_for("read"), written.to_string());
        reader.succeed();
    }
    until("the old blocks are gone", || blocks(dir.path()).is_empty());
}

/// On a machine that does other things consumers may take their time.
fn options() -> HandoverOptions {
    HandoverOptions { grace: Some(std::time::Duration::from_secs(30)), ..HandoverOptions::default() }
}

/// Nobody is asked: for tests in which the consumers are this thread.
fn unasked() -> HandoverOptions {
    use tidegate_hub::handover::Confirm;
    HandoverOptions { confirm: Confirm::None, ..options() }
}

/// Somebody who only learns of the old block after the cut is sent on.
///
/// Rules: DH-227, V-06.
#[test]
fn who_comes_late_is_sent_on() {
    if let Some(task) = role("latecomer") {
        let mut iterator = HandoverIterator::attach(&task.block, &consumer_config(&task.dir)).unwrap();
        let slot = iterator.next(LONG).unwrap();
        say(format!("got {}", slot.id().0));
        return;
    }
    let dir = place();
    let old = Producer::create(&all_readers(dir.path(), 8)).unwrap();
    // Keeps the old block.
    let mut slow = attach(&old);
    send_all(&old, 0..3);
    let new = old.begin_handover(&all_readers(dir.path(), 16), unasked()).unwrap().cut().unwrap();
    let mut late = Child::start("moves::who_comes_late_is_sent_on", "latecomer", dir.path(), &old.name());
    send(&new, 3);
    assert_eq!(late.wait_for("got"), "3");
    late.succeed();
    let ids: Vec<u64> = std::iter::from_fn(|| slow.try_next().ok().map(|slot| slot.id().0)).collect();
    assert_eq!(ids, [0, 1, 2], "the old ids stay readable");
    assert_eq!(slow.try_next().unwrap_err(), AcquireError::Closed { handed_over: true });
}

/// The switch is told, ids go on, and a consumer of the newest value does not read what is left.
///
/// Rules: DH-226, DH-224, N-37.
#[test]
fn the_switch_is_told_and_ids_go_on() {
    let dir = place();
    for (sync, read) in [(SyncPolicy::AllReaders, vec![0, 1, 2]), (SyncPolicy::LatestOnly, vec![2])] {
        let made = HubConfig { sync, ..all_readers(dir.path(), 4) };
        let old = Producer::create(&made).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let of_test = told.clone();
        let switched = move |from: &_, to: &_| of_test.lock().unwrap().push((*from, *to));
        let mut iterator = follow(&old).on_handover(switched);
        send_all(&old, 0..2);
        let new = old.begin_handover(&made, unasked()).unwrap().cut().unwrap();
        let closed = AcquireError::Closed { handed_over: true };
        assert_eq!(old.try_write().unwrap_err(), closed);
        assert_eq!(send(&new, 2), 2);
        assert_eq!(drain(&mut iterator), read);
        assert_eq!(*told.lock().unwrap(), [(old.descriptor().uuid, new.descriptor().uuid)]);
        assert_eq!(new.descriptor().spec.predecessor, Some(old.descriptor().uuid));
    }
}

/// The new ring waits for everybody who was there, and not longer than the grace.
///
/// Rules: DH-219.
#[test]
fn the_new_ring_waits_for_all_who_follow() {
    let dir = place();
    let old = Producer::create(&all_readers(dir.path(), 4)).unwrap();
    let [mut quick, mut slow] = [follow(&old), follow(&old)];
    let new = old.begin_handover(&all_readers(dir.path(), 2), unasked()).unwrap().cut().unwrap();
    send_all(&new, 0..2);
    assert_eq!(drain(&mut quick), [0, 1]);
    assert!(new.send(&[0; 8], NOW).is_err(), "the other one has read nothing");
    assert_eq!(receive(&mut slow), Some(0));
    drain(&mut slow);
    send_all(&new, 2..4);
    assert_eq!((drain(&mut quick), drain(&mut slow)), (vec![2, 3], vec![2, 3]));
    let grace = HandoverOptions { grace: Some(std::time::Duration::from_millis(20)), ..unasked() };
    let last = new.begin_handover(&all_readers(dir.path(), 2), grace).unwrap().cut().unwrap();
    send_all(&last, 4..6);
    assert_eq!(drain(&mut quick), [4, 5]);
    // The wait for room ends with the grace: the other one is late.
    send(&last, 6);
}

/// A silent consumer keeps nobody: the old name goes. It reads on in its mapping, follows, and is told once what it missed.
///
/// Rules: DH-228, V-07.
#[test]
fn a_silent_consumer_is_left_behind_and_told() {
    use tidegate_hub::layout::Orphan;
    let dir = place();
    let old = Producer::create(&all_readers(dir.path(), 4)).unwrap();
    let mut silent = follow(&old);
    send_all(&old, 0..2);
    let grace = HandoverOptions { grace: Some(std::time::Duration::from_millis(20)), ..unasked() };
    let kept = HubConfig { orphan: Orphan::Advance, ..all_readers(dir.path(), 2) };
    let new = old.begin_handover(&kept, grace).unwrap().cut().unwrap();
    until("the old name is gone", || blocks(dir.path()) == [new.name()]);
    send_all(&new, 2..6);
    assert_eq!((receive(&mut silent), receive(&mut silent)), (Some(0), Some(1)));
    match silent.try_next() {
        Err(FollowError::Acquire(AcquireError::Lapped { lost })) => assert_eq!(lost, 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(drain(&mut silent), [4, 5]);
}

/// Who ends a channel leaves no name of it behind, wherever its consumers are: nobody would be there to remove it later.
///
/// Rules: DH-239.
#[test]
fn old_names_go_with_the_channel() {
    let dir = place();
    let first = Producer::create(&all_readers(dir.path(), 4)).unwrap();
    let mut slow = attach(&first);
    send_all(&first, 0..2);
    let second = first.begin_handover(&all_readers(dir.path(), 8), unasked()).unwrap().cut().unwrap();
    let _other = attach(&second);
    let third = second.begin_handover(&all_readers(dir.path(), 4), unasked()).unwrap().cut().unwrap();
    drop(second);
    assert_eq!(blocks(dir.path()).len(), 3, "both old blocks have a reader");
    drop(third);
    assert_eq!(blocks(dir.path()), [""; 0]);
    let ids: Vec<u64> = std::iter::from_fn(|| slow.try_next().ok().map(|slot| slot.id().0)).collect();
    assert_eq!(ids, [0, 1], "the mapping stays");
    assert_eq!(slow.try_next().unwrap_err(), AcquireError::Closed { handed_over: true });
}

/// A new key comes with a new block: whoever has it follows, the old one opens nothing any more.
///
/// Rules: DH-166, V-10.
#[test]
fn keys_are_changed_by_a_handover() {
    use tidegate_hub::layout::Secret;
    if let Some(task) = role("reader") {
        let [old, new] = [1, 2].map(|byte| Secret::new(&[byte; 32]).unwrap());
        let config = ConsumerConfig { secret: Some(old), ..consumer_config(&task.dir) };
        let mut iterator = HandoverIterator::attach(&task.block, &config).unwrap().with_secret(new);
        say("attached");
        (0..4).for_each(|id| assert_eq!(iterator.next(LONG).unwrap().id().0, id));
        say("read");
        return;
    }
    let dir = place();
    let [first, second] = [1, 2].map(|byte| Secret::new(&[byte; 32]).unwrap());
    let with = |secret: &Secret| all_readers(dir.path(), 8).with_secret(secret.clone());
    let old = Producer::create(&with(&first)).unwrap();
    let mut reader = Child::start("moves::keys_are_changed_by_a_handover", "reader", dir.path(), &old.name());
    reader.wait_for("attached");
    let keyed = ConsumerConfig { secret: Some(first.clone()), ..consumer_config(dir.path()) };
    let mut without = HandoverIterator::attach(&old.name(), &keyed).unwrap();
    send_all(&old, 0..2);
    let new = old.begin_handover(&with(&second), unasked()).unwrap().cut().unwrap();
    assert_ne!(new.descriptor().key_id, old.descriptor().key_id);
    send_all(&new, 2..4);
    reader.wait_for("read");
    reader.succeed();
    assert_eq!((receive(&mut without), receive(&mut without)), (Some(0), Some(1)));
    assert!(matches!(without.try_next(), Err(FollowError::Successor(_))));
    let options = AttachOptions {
        dir: dir.path().to_owned(),
        secret: Some(&first),
        ..AttachOptions::new(Role::Consumer)
    };
    assert!(attach_block(&new.name(), &options).is_err());
}

/// A block of one slot is moved before anything was written.
///
/// Rules: DH-219.
#[test]
fn an_empty_channel_moves() {
    let dir = place();
    let old = Producer::create(&config(dir.path(), BufferPolicy::Single)).unwrap();
    let mut iterator = follow(&old);
    let new = old
        .begin_handover(&config(dir.path(), BufferPolicy::DoubleBuffer), unasked())
        .unwrap()
        .cut()
        .unwrap();
    assert_eq!(send(&new, 7), 0);
    assert_eq!(drain(&mut iterator), [7]);
}
