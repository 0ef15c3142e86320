//! The judge itself: histories that are right, and each kind of wrong ones.

use crate::{
    journal::{ENDED, LOST, PENDING, PENDING_COUNT, START, WORDS, Written},
    judge::{Counters, End, Line, Remains, judge},
    plan::Kind,
};

fn life(words: &[(usize, u64)], runs: &[(u64, u64)]) -> Written {
    let mut life = Written { words: [0; WORDS], runs: runs.to_vec() };
    words.iter().for_each(|(word, value)| life.words[*word] = *value);
    life
}

/// Ids 0 to 4 and 6 to 9 are data; the first producer died with 5 announced. One reader died holding 3.
fn right(kind: Kind) -> Remains {
    Remains {
        name: "test",
        kind,
        producers: vec![
            life(&[(START, 1), (PENDING, 5), (PENDING_COUNT, 1)], &[(0, 4)]),
            life(&[(START, 7), (ENDED, 1), (PENDING, 9), (PENDING_COUNT, 1)], &[(6, 9)]),
        ],
        readers: vec![Line {
            name: "reader",
            held: 1,
            lives: vec![life(&[(START, 1)], &[(0, 3)]), life(&[(START, 4), (ENDED, 1)], &[(3, 4), (6, 9)])],
        }],
        end: End {
            write_index: 10,
            commit_index: 10,
            ring: vec![(8, true), (9, true), (5, false)],
            stuck: Vec::new(),
            counters: Counters {
                written: 9,
                aborted: 1,
                joined: 2,
                left: 1,
                reaped: 1,
                read: 9,
                ..Counters::default()
            },
            kills: 1,
        },
    }
}

#[track_caller]
fn accuses(change: impl Fn(&mut Remains), word: &str) {
    let mut remains = right(Kind::Single);
    change(&mut remains);
    let found = judge(&remains);
    assert!(found.iter().any(|fault| fault.contains(word)), "{found:?} does not speak of {word:?}");
}

#[test]
fn a_history_that_is_right_passes() {
    for kind in [Kind::Single, Kind::All] {
        assert_eq!(judge(&right(kind)), Vec::<String>::new());
    }
    // What was announced may as well be data, for everybody.
    let mut remains = right(Kind::Single);
    remains.readers[0].lives[1].runs = vec![(3, 9)];
    remains.end.ring = vec![(5, true)];
    remains.end.counters = Counters { written: 10, aborted: 0, read: 10, ..remains.end.counters };
    assert_eq!(judge(&remains), Vec::<String>::new());
    // The one that was held may have been let go in time.
    let mut remains = right(Kind::Single);
    remains.readers[0].lives[1] = life(&[(START, 5), (ENDED, 1)], &[(4, 4), (6, 9)]);
    assert_eq!(judge(&remains), Vec::<String>::new());
}

#[test]
fn what_was_lost_or_came_twice_is_found() {
    accuses(|remains| remains.readers[0].lives[1].runs = vec![(3, 4), (7, 9)], "never read 6");
    accuses(|remains| remains.readers[0].lives[1].runs = vec![(3, 4), (6, 8)], "never read 9");
    accuses(
        |remains| remains.readers[0].lives[1] = life(&[(START, 3), (ENDED, 1)], &[(2, 4), (6, 9)]),
        "consumed for sure",
    );
    accuses(
        |remains| remains.readers[0].lives[1] = life(&[(START, 7), (ENDED, 1)], &[(6, 9)]),
        "nobody read 4",
    );
    accuses(|remains| remains.readers[0].lives[1].runs = vec![(3, 4), (4, 4), (6, 9)], "twice");
    accuses(
        |remains| remains.readers[0].lives[1].runs = vec![(3, 4), (6, 10)],
        "read 10, which was not committed",
    );
    accuses(|remains| remains.readers[0].lives[1].words[ENDED] = 0, "did not read to the end");
    accuses(|remains| remains.producers[1] = life(&[(START, 6)], &[(5, 9)]), "given away before");
}

#[test]
fn what_one_reader_was_given_is_data_for_all() {
    let mut remains = right(Kind::All);
    let other = Line { name: "other", held: 1, lives: vec![life(&[(START, 1), (ENDED, 1)], &[(0, 9)])] };
    remains.readers.push(other);
    let found = judge(&remains);
    assert!(found.iter().any(|fault| fault.contains("never read 5")), "{found:?}");
}

#[test]
fn losses_are_told() {
    let mut remains = right(Kind::Dropping);
    remains.readers[0].lives[1].runs = vec![(3, 4), (8, 9)];
    let found = judge(&remains);
    assert!(found.iter().any(|fault| fault.contains("was told of 0")), "{found:?}");
    remains.readers[0].lives[1].words[LOST] = 2;
    assert!(!judge(&remains).iter().any(|fault| fault.contains("told")));
}

#[test]
fn what_is_left_behind_is_found() {
    accuses(|remains| remains.end.commit_index = 9, "only those up to 9");
    accuses(|remains| remains.end.ring.push((7, false)), "holds nothing");
    accuses(|remains| remains.end.stuck.push("slot 1 is WRITING".to_owned()), "slot 1 is WRITING");
    accuses(|remains| remains.end.counters.written = 8, "counted as written");
    accuses(|remains| remains.end.counters.written = 11, "counted as written");
    accuses(|remains| remains.end.counters.reaped = 0, "came");
    accuses(|remains| remains.end.counters.read = 8, "counted as read");
    accuses(|remains| remains.end.counters.aborted = 6, "kills");
}
