//! Sinks that take a part, nothing for a while, or refuse: nothing is given twice to one that has confirmed it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use tidegate_shm::sync::{Arc, Mutex};
use tidegate_udf::wire::ids::{Generation, PartitionId, Position};

use super::*;
use crate::{
    batch::Record,
    fence::FenceTable,
    sink::{Class, Confirms, Held, Rejected, SinkError},
};

/// What a sink does with the next publications; the last is repeated.
#[derive(Debug, Clone, Copy)]
enum Mood {
    TakeAll,
    /// So many, and then no more for a while.
    Take(usize),
    /// Nothing, and no word about when.
    Nothing,
    /// All but this one, which it refuses.
    Refuse(usize),
    /// All but this one, on which it fails.
    FailOn(usize),
    /// It cannot go on.
    Fail,
}

/// A sink that notes the positions that it took.
struct Moody {
    moods: Vec<Mood>,
    took: Arc<Mutex<Vec<u64>>>,
    calls: Arc<Mutex<u32>>,
}

impl Sink for Moody {
    fn class(&self) -> Class {
        Class::C
    }

    fn confirms(&self) -> Confirms {
        Confirms::Nothing
    }

    fn publish(&mut self, delivery: &Delivery<'_>, _: &WriteGuard) -> Result<Published, SinkError> {
        *self.calls.lock().unwrap() += 1;
        let mood = if self.moods.len() > 1 { self.moods.remove(0) } else { self.moods[0] };
        let mut took = self.took.lock().unwrap();
        let mut take = |outputs: &[Output]| took.extend(outputs.iter().map(|output| output.position.0));
        Ok(match mood {
            Mood::TakeAll => {
                take(delivery.outputs);
                Published::all(delivery)
            }
            Mood::Take(count) => {
                take(&delivery.outputs[..count]);
                let held = Held { after: Some(Nanos(10)), doubtful: false, reason: "full".to_owned() };
                Published { through: count, held: Some(held), ..Published::default() }
            }
            Mood::Fail => return Err(SinkError::Stdout { source: std::io::ErrorKind::BrokenPipe.into() }),
            Mood::Nothing => {
                let held = Held { after: None, doubtful: false, reason: "full".to_owned() };
                Published { held: Some(held), ..Published::default() }
            }
            Mood::FailOn(index) => {
                take(&delivery.outputs[..index]);
                take(&delivery.outputs[index + 1..]);
                let failed = vec![Rejected { index, reason: "not now".to_owned() }];
                Published { failed, ..Published::all(delivery) }
            }
            Mood::Refuse(index) => {
                take(&delivery.outputs[..index]);
                take(&delivery.outputs[index + 1..]);
                let rejected = vec![Rejected { index, reason: "no".to_owned() }];
                Published { rejected, ..Published::all(delivery) }
            }
        })
    }
}

type Seen<T> = Arc<Mutex<T>>;

fn end(name: &str, role: &str, moods: &[Mood]) -> (End, Seen<Vec<u64>>, Seen<u32>) {
    let config = format!("name = {name:?}\nrole = {role:?}\nkind = \"blackhole\"");
    let (took, calls) = (Seen::default(), Seen::default());
    let sink = Moody { moods: moods.to_vec(), took: took.clone(), calls: calls.clone() };
    let end = End {
        config: toml::from_str(&config).unwrap(),
        sink: Box::new(sink),
        ids: OutputIds::new(1, name),
        dirty: false,
        state: None,
        late: None,
        meter: SinkMeter::default(),
    };
    (end, took, calls)
}

/// Five inputs with an output for each of the first `sinks` of `ends` sinks.
fn outgoing(ends: usize, sinks: usize) -> Outgoing {
    let output = |position| Output { position: Position(position), number: 0, record: Record::default() };
    let mut outputs = vec![Vec::new(); ends];
    outputs[..sinks].fill((0..5).map(output).collect());
    let range = Range { first: Position(0), last: Position(4), resume: Position(5) };
    let outcomes = Outcomes::default();
    Outgoing::new(Chunk { serial: 0, range, outcomes, outputs, bytes: 0, back: Vec::new() })
}

/// Publishes at this time; whether everything is confirmed.
fn publish(
    outgoing: &mut Outgoing,
    ends: &mut [End],
    letters: Option<&Letters>,
    now: u64,
) -> Result<bool, VertexError> {
    let mut table = FenceTable::create(1, 1).unwrap();
    let (_, guard) = table.bind(PartitionId(0), Generation(1)).unwrap();
    let session = Session { partition: PartitionId(0), generation: Generation(1), nonce: 1 };
    let way = Way {
        session,
        epoch: EpochId(1),
        source: 0,
        guard: &guard,
        letters,
        leave_out: false,
        sealed: false,
        now: Nanos(now),
    };
    outgoing.publish(ends, &way, &mut Report::default())
}

fn letters(ends: &[End]) -> Letters {
    let text = format!(
        "version = 1\n[pipeline]\nname = \"p\"\ndelivery = \"at_least_once\"\n[source]\nkind = \"generator\"\nrecords = 1\n\
         [udf]\ncommand = [\"x\"]\n{}",
        ends.iter()
            .map(|end| {
                let role = if end.config.name == "dead" { "dlq" } else { "output" };
                format!("[[sink]]\nname = {:?}\nrole = {role:?}\nkind = \"blackhole\"\n", end.config.name)
            })
            .collect::<String>()
    );
    Letters::of(&text.parse().unwrap()).unwrap()
}

/// Cases: CT-51.
/// Rules: VX-631, VX-632.
#[test]
fn only_what_was_not_taken_is_given_again_and_only_to_who_did_not_take_it() {
    let (first, first_took, first_calls) = end("first", "output", &[Mood::TakeAll]);
    let (second, second_took, _) =
        end("second", "output", &[Mood::Take(2), Mood::Take(0), Mood::Take(1), Mood::TakeAll]);
    let mut ends = [first, second];
    let mut outgoing = outgoing(2, 2);
    assert!(!publish(&mut outgoing, &mut ends, None, 100).unwrap());
    assert!(!publish(&mut outgoing, &mut ends, None, 109).unwrap(), "asked before its time");
    assert_eq!(*second_took.lock().unwrap(), [0, 1]);
    assert!(!publish(&mut outgoing, &mut ends, None, 110).unwrap());
    assert!(!publish(&mut outgoing, &mut ends, None, 120).unwrap());
    assert!(publish(&mut outgoing, &mut ends, None, 130).unwrap());
    assert_eq!(*first_took.lock().unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(*second_took.lock().unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(*first_calls.lock().unwrap(), 1, "given again to a sink that has it");
}

/// A sink that no commit waits for, with room for so many parts of five outputs, beside one that has all.
fn beside(moods: &[Mood], parts: u64) -> ([End; 2], Seen<Vec<u64>>) {
    let (main, _, _) = end("main", "output", &[Mood::TakeAll]);
    let (mut late, took, _) = end("late", "output", moods);
    late.late = Some(Backlog::new(parts * 5 * Record::default().len() as u64));
    ([main, late], took)
}

/// Gives the sink what waits for it, while the session that published may write or not.
fn catch_up(end: &mut End, now: u64, may_write: bool) {
    let mut table = FenceTable::create(1, 1).unwrap();
    let (_, guard) = table.bind(PartitionId(0), Generation(1)).unwrap();
    end.catch_up(Nanos(now), |_| may_write.then_some(&guard), &mut Vec::new()).unwrap();
}

fn lost(end: &End) -> u64 {
    end.late.as_ref().unwrap().lost()
}

/// Rules: VX-632.
#[test]
fn nothing_waits_for_a_sink_that_is_not_required_and_it_gets_what_there_is_room_for() {
    let (mut ends, took) = beside(&[Mood::Take(2), Mood::Take(1), Mood::TakeAll], 2);
    for _ in 0..3 {
        assert!(publish(&mut outgoing(2, 2), &mut ends, None, 0).unwrap());
    }
    let late = &mut ends[1];
    assert_eq!((lost(late), took.lock().unwrap().len()), (5, 0), "there is no room for the third");
    catch_up(late, 100, true);
    catch_up(late, 109, true);
    assert_eq!(*took.lock().unwrap(), [0, 1], "asked before its time");
    catch_up(late, 110, true);
    catch_up(late, 120, true);
    assert_eq!(*took.lock().unwrap(), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    assert!(late.late.as_ref().unwrap().is_empty() && lost(late) == 5);
    assert!(publish(&mut outgoing(2, 2), &mut ends, None, 0).unwrap());
    catch_up(&mut ends[1], 130, true);
    assert_eq!(took.lock().unwrap().len(), 15, "the room is free again");
}

/// Rules: VX-632.
#[test]
fn what_a_sink_that_is_not_required_does_not_get_is_counted() {
    // It refuses one.
    let (mut ends, took) = beside(&[Mood::Refuse(2), Mood::Fail, Mood::TakeAll], 9);
    assert!(publish(&mut outgoing(2, 2), &mut ends, None, 0).unwrap());
    catch_up(&mut ends[1], 0, true);
    assert_eq!((lost(&ends[1]), took.lock().unwrap().len()), (1, 4));
    // It fails, and gets nothing more.
    for _ in 0..2 {
        assert!(publish(&mut outgoing(2, 2), &mut ends, None, 0).unwrap());
    }
    catch_up(&mut ends[1], 0, true);
    assert!(publish(&mut outgoing(2, 2), &mut ends, None, 0).unwrap());
    catch_up(&mut ends[1], 0, true);
    assert_eq!((lost(&ends[1]), took.lock().unwrap().len()), (16, 4));
    // The session is over.
    let (mut ends, took) = beside(&[Mood::Take(2), Mood::TakeAll], 9);
    assert!(publish(&mut outgoing(2, 2), &mut ends, None, 0).unwrap());
    catch_up(&mut ends[1], 0, true);
    catch_up(&mut ends[1], 100, false);
    assert_eq!((lost(&ends[1]), took.lock().unwrap().len()), (3, 2));
}

/// Rules: VX-842.
#[test]
fn a_sink_is_given_no_more_at_once_than_it_is_to_have() {
    let one = Record::default().len();
    for (keys, calls) in [
        ("max_records = 2".to_owned(), 3),
        ("max_records = 5".to_owned(), 1),
        (format!("max_bytes = \"{}B\"", 2 * one), 3),
        ("max_bytes = \"1B\"".to_owned(), 5),
    ] {
        let (mut main, took, called) = end("main", "output", &[Mood::TakeAll]);
        main.config = toml::from_str(&format!("name = \"main\"\nkind = \"blackhole\"\n{keys}")).unwrap();
        assert!(publish(&mut outgoing(1, 1), &mut [main], None, 0).unwrap());
        assert_eq!(
            (took.lock().unwrap().as_slice(), *called.lock().unwrap()),
            ([0, 1, 2, 3, 4].as_slice(), calls),
            "{keys}"
        );
    }
    // One that takes no more is not asked for the next part.
    let (mut main, took, called) = end("main", "output", &[Mood::Take(2), Mood::TakeAll]);
    main.config = toml::from_str("name = \"main\"\nkind = \"blackhole\"\nmax_records = 2").unwrap();
    let (mut ends, mut all) = ([main], outgoing(1, 1));
    assert!(!publish(&mut all, &mut ends, None, 0).unwrap());
    assert_eq!((took.lock().unwrap().len(), *called.lock().unwrap()), (2, 1));
    assert!(publish(&mut all, &mut ends, None, 10).unwrap());
    assert_eq!(*took.lock().unwrap(), [0, 1, 2, 3, 4]);
}

/// Of a sink without order: what is behind an output on which it fails goes on, other sinks get theirs, and only that output is
/// given again, less and less often.
/// Rules: VX-601, VX-631, VX-842.
#[test]
fn an_output_on_which_a_sink_fails_holds_up_no_other() {
    let (mut main, took, calls) =
        end("main", "output", &[Mood::FailOn(2), Mood::FailOn(0), Mood::FailOn(0), Mood::TakeAll]);
    main.config.retry = toml::from_str("initial = \"10ms\"\nfactor = 3\ncap = \"1s\"\njitter = 0").unwrap();
    let (other, other_took, _) = end("other", "output", &[Mood::TakeAll]);
    let (mut ends, mut all) = ([main, other], outgoing(2, 2));
    assert!(!publish(&mut all, &mut ends, None, 0).unwrap());
    assert!(all.is_resting());
    assert_eq!(
        (took.lock().unwrap().as_slice(), other_took.lock().unwrap().len()),
        ([0, 1, 3, 4].as_slice(), 5)
    );
    assert_eq!((all.waiting(0), all.waiting(1)), (1, 0));
    let mut now = 0;
    for delay in [10, 30, 90] {
        now += delay * 1_000_000;
        let before = *calls.lock().unwrap();
        assert!(!publish(&mut all, &mut ends, None, now - 1).unwrap());
        assert_eq!(*calls.lock().unwrap(), before, "asked before {delay} ms were over");
        assert_eq!(all.again, Nanos(now));
        let last = delay == 90;
        assert_eq!((publish(&mut all, &mut ends, None, now).unwrap(), all.is_resting()), (last, !last));
    }
    assert_eq!(*took.lock().unwrap(), [0, 1, 3, 4, 2]);
    assert_eq!((*calls.lock().unwrap(), other_took.lock().unwrap().len()), (4, 5));
    assert_eq!((ends[0].meter.outputs, ends[0].meter.retries), (5, 3));
}

/// What one sink waits for is nothing to another: neither to one that had no room for a moment, nor to one that failed as well,
/// whose delays begin with its own first.
/// Rules: VX-601, VX-631, VX-632.
#[test]
fn each_sink_rests_for_itself() {
    let failing = |name, moods: &[Mood], initial: &str| {
        let (mut end, took, calls) = end(name, "output", moods);
        end.config.retry = toml::from_str(&format!("initial = {initial:?}\njitter = 0")).unwrap();
        (end, took, calls)
    };
    let (slow, slow_took, slow_calls) = failing("slow", &[Mood::FailOn(2), Mood::TakeAll], "100ms");
    let moods = [Mood::Take(2), Mood::FailOn(0), Mood::TakeAll];
    let (held, held_took, _) = failing("held", &moods, "10ms");
    let (mut ends, mut all) = ([slow, held], outgoing(2, 2));
    assert!(!publish(&mut all, &mut ends, None, 0).unwrap());
    assert_eq!((all.is_resting(), all.again), (false, Nanos(10)), "the second has not had all of it");
    assert!(!publish(&mut all, &mut ends, None, 10).unwrap());
    assert_eq!(*held_took.lock().unwrap(), [0, 1, 3, 4]);
    assert_eq!((all.is_resting(), all.again), (true, Nanos(10_000_010)));
    assert!(!publish(&mut all, &mut ends, None, 10_000_010).unwrap());
    assert_eq!(*held_took.lock().unwrap(), [0, 1, 3, 4, 2]);
    assert_eq!((*slow_calls.lock().unwrap(), all.again), (1, Nanos(100_000_000)));
    assert!(publish(&mut all, &mut ends, None, 100_000_000).unwrap());
    assert_eq!(*slow_took.lock().unwrap(), [0, 1, 3, 4, 2]);
    assert_eq!(held_took.lock().unwrap().len(), 5, "given again to a sink that has it");
}

/// In parts: each is tried before one is given again.
/// Rules: VX-631, VX-842.
#[test]
fn all_parts_are_tried_before_one_is_given_again() {
    let (mut main, took, calls) = end("main", "output", &[Mood::FailOn(0), Mood::FailOn(1), Mood::TakeAll]);
    main.config =
        toml::from_str("name = \"main\"\nkind = \"blackhole\"\nmax_records = 2\n[retry]\njitter = 0")
            .unwrap();
    let (mut ends, mut all) = ([main], outgoing(1, 1));
    assert!(!publish(&mut all, &mut ends, None, 0).unwrap());
    assert_eq!((took.lock().unwrap().as_slice(), *calls.lock().unwrap()), ([1, 2, 4].as_slice(), 3));
    assert!(publish(&mut all, &mut ends, None, 50_000_000).unwrap());
    assert_eq!((took.lock().unwrap().as_slice(), *calls.lock().unwrap()), ([1, 2, 4, 0, 3].as_slice(), 4));
}

/// Rules: VX-620, VX-630.
#[test]
fn what_a_sink_refuses_goes_to_the_dead_letters_which_come_last() {
    let (dead, dead_took, dead_calls) = end("dead", "dlq", &[Mood::TakeAll]);
    let (main, main_took, _) = end("main", "output", &[Mood::Take(1), Mood::Refuse(2)]);
    let mut ends = [dead, main];
    let letters = letters(&ends);
    let mut outgoing = outgoing(2, 0);
    outgoing.chunk.outputs[1] = self::outgoing(1, 1).chunk.outputs.remove(0);
    assert!(!publish(&mut outgoing, &mut ends, Some(&letters), 0).unwrap());
    assert_eq!(*dead_calls.lock().unwrap(), 0, "before the others have said what they refuse");
    assert!(publish(&mut outgoing, &mut ends, Some(&letters), 10).unwrap());
    assert_eq!(*main_took.lock().unwrap(), [0, 1, 2, 4]);
    assert_eq!(*dead_took.lock().unwrap(), [3]);
}

/// Dead letters of inputs and of outputs are given together: a sink may have one place for an epoch.
/// Rules: VX-620.
#[test]
fn all_letters_of_an_epoch_are_given_at_once() {
    let (dead, dead_took, dead_calls) = end("dead", "dlq", &[Mood::TakeAll]);
    let (main, _, _) = end("main", "output", &[Mood::Refuse(2)]);
    let mut ends = [dead, main];
    let letters = letters(&ends);
    // Both have outputs; those of the first are letters already.
    assert!(publish(&mut outgoing(2, 2), &mut ends, Some(&letters), 0).unwrap());
    assert_eq!(*dead_calls.lock().unwrap(), 1);
    assert_eq!(*dead_took.lock().unwrap(), [0, 1, 2, 3, 4, 2]);
}

/// Rules: VX-601.
#[test]
fn a_sink_that_takes_nothing_is_asked_less_and_less_often() {
    let moods = [
        Mood::Nothing,
        Mood::Nothing,
        Mood::Nothing,
        Mood::Nothing,
        Mood::Take(1),
        Mood::Nothing,
        Mood::TakeAll,
    ];
    let (mut main, _, calls) = end("main", "output", &moods);
    main.config.retry = toml::from_str("initial = \"10ms\"\ncap = \"35ms\"\njitter = 0.0").unwrap();
    let mut ends = [main];
    let mut outgoing = outgoing(1, 1);
    let ms = |time: u64| time * 1_000_000;
    let mut now = 0;
    for delay in [ms(10), ms(20), ms(35), ms(35)] {
        assert!(!publish(&mut outgoing, &mut ends, None, now).unwrap());
        let before = *calls.lock().unwrap();
        assert!(!publish(&mut outgoing, &mut ends, None, now + delay - 1).unwrap());
        assert_eq!(*calls.lock().unwrap(), before, "asked before {delay} ns were over");
        now += delay;
    }
    // It says itself when.
    assert!(!publish(&mut outgoing, &mut ends, None, now).unwrap());
    assert!(!publish(&mut outgoing, &mut ends, None, now + 10).unwrap());
    assert!(publish(&mut outgoing, &mut ends, None, now + 10 + ms(35)).unwrap());
    assert_eq!(*calls.lock().unwrap(), 7);
}

/// Rules: VX-601, VX-623.
#[test]
fn without_dead_letters_a_refusal_stops() {
    let (main, _, _) = end("main", "output", &[Mood::Refuse(4)]);
    let refused = publish(&mut outgoing(1, 1), &mut [main], None, 0);
    assert!(matches!(refused, Err(VertexError::Refused { position: 4, .. })), "{refused:?}");
    // The dead letters themselves.
    let (main, _, _) = end("main", "output", &[Mood::Refuse(0)]);
    let (dead, _, _) = end("dead", "dlq", &[Mood::Refuse(0)]);
    let mut all = [main, dead];
    let letters = letters(&all);
    let refused = publish(&mut outgoing(2, 1), &mut all, Some(&letters), 0);
    assert!(matches!(refused, Err(VertexError::Refused { position: 0, .. })), "{refused:?}");
}
