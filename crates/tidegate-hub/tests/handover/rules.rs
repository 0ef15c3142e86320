//! Handovers that are called off.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use tidegate_hub::{
    consumer::HandoverIterator,
    error::{AcquireError, WriteError},
    handover::{Answers, Confirm, HandoverError, HandoverOptions, OnSilence},
    producer::Producer,
};

use crate::{
    all_readers, blocks,
    children::{Child, role, say},
    drain, follow,
    world::{LONG, consumer_config, place, send, send_all},
};

fn short() -> HandoverOptions {
    HandoverOptions { grace: Some(Duration::from_millis(50)), ..HandoverOptions::default() }
}

/// A consumer that refuses ends the handover; the channel goes on as if nothing had been, and the next attempt counts anew.
///
/// Rules: DH-222, V-03.
#[test]
fn a_refusal_calls_the_handover_off() {
    if let Some(task) = role("reader") {
        let iterator = HandoverIterator::attach(&task.block, &consumer_config(&task.dir)).unwrap();
        let mut attempts = 0;
        let mut iterator = iterator.accept(move |announced| {
            attempts += 1;
            assert_eq!(announced.epoch, attempts);
            attempts > 1
        });
        say("attached");
        for id in 0..4 {
            assert_eq!(iterator.next(LONG).unwrap().id().0, id);
            say(format!("read {id}"));
        }
        return;
    }
    let dir = place();
    let old = Producer::create(&all_readers(dir.path(), 8)).unwrap();
    let test = "rules::a_refusal_calls_the_handover_off";
    let mut reader = Child::start(test, "reader", dir.path(), &old.name());
    reader.wait_for("attached");
    send(&old, 0);
    reader.wait_for("read 0");
    let patient = HandoverOptions { grace: Some(Duration::from_secs(30)), ..HandoverOptions::default() };
    let mut handover = old.begin_handover(&all_readers(dir.path(), 16), patient).unwrap();
    match handover.cut() {
        Err(HandoverError::NotConfirmed(answers)) => {
            assert_eq!(answers, Answers { ready: 0, refused: 1, silent: 0 });
        }
        other => panic!("{other:?}"),
    }
    drop(handover);
    assert_eq!(blocks(dir.path()), [old.name()]);
    send(&old, 1);
    reader.wait_for("read 1");
    let new = old.begin_handover(&all_readers(dir.path(), 16), patient).unwrap().cut().unwrap();
    send_all(&new, 2..4);
    reader.wait_for("read 3");
    reader.succeed();
}

/// What is over cannot be called off, and only one handover is under way at a time.
///
/// Rules: DH-229, V-04.
#[test]
fn what_is_over_cannot_be_cancelled() {
    let dir = place();
    let old = Producer::create(&all_readers(dir.path(), 4)).unwrap();
    let config = all_readers(dir.path(), 8);
    let mut cancelled = old.begin_handover(&config, short()).unwrap();
    assert!(matches!(old.begin_handover(&config, short()), Err(HandoverError::UnderWay)));
    cancelled.cancel().unwrap();
    assert!(matches!(cancelled.cancel(), Err(HandoverError::Over)));
    assert!(matches!(cancelled.cut(), Err(HandoverError::Over)));
    assert_eq!(blocks(dir.path()), [old.name()]);
    send(&old, 0);
    let mut made = old.begin_handover(&config, short()).unwrap();
    let new = made.cut().unwrap();
    let error = made.cancel().unwrap_err();
    assert!(matches!(error, HandoverError::Over));
    assert_eq!(error.code(), 209);
    assert_eq!(send(&new, 1), 1);
    assert!(matches!(
        old.begin_handover(&config, short()),
        Err(HandoverError::Acquire(AcquireError::Closed { handed_over: true }))
    ));
}

/// A slot that is being written holds the cut up; at the deadline the handover is called off, or the slot if that is wanted.
///
/// Rules: DH-223, V-05.
#[test]
fn slots_that_are_being_written_hold_the_cut_up() {
    let dir = place();
    let old = Producer::create(&all_readers(dir.path(), 8)).unwrap();
    let mut iterator = follow(&old);
    let unasked = HandoverOptions { confirm: Confirm::None, ..short() };
    let mut slot = old.write(LONG).unwrap();
    slot.put_bytes(&0_u64.to_le_bytes()).unwrap();
    let mut handover = old.begin_handover(&all_readers(dir.path(), 4), unasked).unwrap();
    assert!(matches!(handover.cut(), Err(HandoverError::Pending)));
    assert_eq!(slot.commit().unwrap().0, 0);
    assert_eq!(blocks(dir.path()), [old.name()]);
    // One that is finished in time is not lost.
    let slow = old.write(LONG).unwrap();
    let patient = HandoverOptions { grace: Some(Duration::from_secs(30)), ..unasked };
    let new = thread::scope(|scope| {
        let mut handover = old.begin_handover(&all_readers(dir.path(), 4), patient).unwrap();
        let cut = scope.spawn(move || handover.cut().unwrap());
        let mut slow = slow;
        slow.put_bytes(&1_u64.to_le_bytes()).unwrap();
        slow.commit().unwrap();
        cut.join().unwrap()
    });
    assert_eq!(drain(&mut iterator), [0, 1]);
    let open = new.write(LONG).unwrap();
    let abort = HandoverOptions { abort_pending: true, ..unasked };
    let last = new.begin_handover(&all_readers(dir.path(), 4), abort).unwrap().cut().unwrap();
    assert!(matches!(open.commit(), Err(WriteError::Acquire(_))));
    assert_eq!(send(&last, 3), 3);
    assert_eq!(drain(&mut iterator), [3], "id 2 is a hole");
}

/// Who does not answer is waited for, and then it is as the producer wants it.
///
/// Rules: DH-222.
#[test]
fn silence_is_judged_as_the_producer_says() {
    let dir = place();
    let old = Producer::create(&all_readers(dir.path(), 8)).unwrap();
    let mut iterator = follow(&old);
    let config = all_readers(dir.path(), 4);
    let mut handover = old.begin_handover(&config, short()).unwrap();
    let silent = Answers { silent: 1, ..Answers::default() };
    assert!(matches!(handover.cut(), Err(HandoverError::NotConfirmed(answers)) if answers == silent));
    drop(handover);
    let any = HandoverOptions { confirm: Confirm::Any, ..short() };
    let seen = Arc::new(Mutex::new(None));
    let of_test = seen.clone();
    iterator = iterator.accept(move |announced| {
        *of_test.lock().unwrap() = Some(announced.name.clone());
        true
    });
    let mut handover = old.begin_handover(&config, any).unwrap();
    assert_eq!(drain(&mut iterator), [0_u64; 0]);
    assert_eq!(handover.answers(), Answers { ready: 1, ..Answers::default() });
    assert_eq!(seen.lock().unwrap().as_deref(), Some(handover.successor().1));
    let new = handover.cut().unwrap();
    drop(handover);
    send(&new, 0);
    assert_eq!(drain(&mut iterator), [0]);
    let proceed = HandoverOptions { on_silence: OnSilence::Proceed, ..short() };
    let last = new.begin_handover(&config, proceed).unwrap().cut().unwrap();
    send(&last, 1);
    assert_eq!(drain(&mut iterator), [1]);
}
