//! Whether what everybody wrote down fits together.
//!
//! What a process that is killed may leave, and no more:
//!
//! - A producer announces the ids it is about to commit. Killed before it notes them as committed, each of them is data or
//!   a hole; if one reader was given it, it is data for all. An id that was never announced is a hole.
//! - A reader notes an id before it lets it go. Killed then, the ids of its last guard or batch may come again to the
//!   successor where there is one (DH-104); all others never do, and none is passed over.

use crate::{
    journal::{ABORTED, COUNT, ENDED, LAST, LOST, PENDING, PENDING_COUNT, START, Written},
    plan::{BATCH, Kind},
};

/// First and last id of a run.
type Run = (u64, u64);

/// All processes that read in one place, one after the other.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    /// Ids that may be held at once.
    pub(crate) held: u64,
    pub(crate) lives: Vec<Written>,
}

/// What is left of one channel.
pub(crate) struct Remains {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) producers: Vec<Written>,
    pub(crate) readers: Vec<Line>,
    pub(crate) end: End,
}

/// The block when all is over.
#[derive(Debug, Default, Clone)]
pub(crate) struct End {
    pub(crate) write_index: u64,
    pub(crate) commit_index: u64,
    /// Id and whether it is data, of slots that are COMMITTED or FREE and were used.
    pub(crate) ring: Vec<(u64, bool)>,
    /// Slots in any other state, rows that are not FREE, locks that are held, in words.
    pub(crate) stuck: Vec<String>,
    pub(crate) counters: Counters,
    /// Processes that were killed and may have been about to count something.
    pub(crate) kills: u64,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Counters {
    pub(crate) written: u64,
    pub(crate) aborted: u64,
    pub(crate) skipped: u64,
    pub(crate) joined: u64,
    pub(crate) left: u64,
    pub(crate) reaped: u64,
    pub(crate) read: u64,
    pub(crate) lock_takeovers: u64,
    pub(crate) transition_errors: u64,
    pub(crate) validation_failed: u64,
}

/// Everything that does not fit; empty if all is well.
pub(crate) fn judge(remains: &Remains) -> Vec<String> {
    let mut faults = Faults { channel: remains.name, found: Vec::new() };
    let committed = committed(remains, &mut faults);
    for line in &remains.readers {
        judge_line(remains, line, &committed, &mut faults);
    }
    judge_end(remains, &committed, &mut faults);
    faults.found
}

struct Faults {
    channel: &'static str,
    found: Vec<String>,
}

impl Faults {
    fn unless(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.found.push(format!("channel {}: {}", self.channel, what()));
        }
    }
}

/// What is known of the ids.
struct Committed {
    /// Noted as committed, or announced and given to a reader.
    all: Vec<Run>,
    /// Noted as committed.
    noted: u64,
    /// Announced by a producer that died, and not noted.
    open: Vec<u64>,
}

fn committed(remains: &Remains, faults: &mut Faults) -> Committed {
    let mut noted = Vec::new();
    let mut open = Vec::new();
    let mut next = 0;
    for life in &remains.producers {
        let Some(start) = life.words[START].checked_sub(1) else { continue };
        faults.unless(start >= next, || format!("a producer began at {start}, {next} was given away before"));
        for &(first, last) in &life.runs {
            faults.unless(first >= next.max(start) && last >= first, || {
                format!("ids {first} to {last} were committed after {next} was given away")
            });
            next = last + 1;
            noted.push((first, last));
        }
        let announced = life.words[PENDING]..life.words[PENDING] + life.words[PENDING_COUNT];
        open.extend(announced.clone().filter(|id| !contains(&noted, *id)));
        if !announced.is_empty() {
            next = next.max(announced.end);
        }
    }
    let given = |id: &u64| {
        let lives = remains.readers.iter().flat_map(|line| &line.lives);
        lives.into_iter().any(|life| contains(&life.runs, *id) || life.words[LAST] == id + 1)
    };
    let count = noted.iter().copied().map(len).sum();
    let mut all = noted;
    all.extend(open.iter().copied().filter(given).map(|id| (id, id)));
    Committed { all: merged(all), noted: count, open }
}

fn judge_line(remains: &Remains, line: &Line, committed: &Committed, faults: &mut Faults) {
    let name = line.name;
    // First id that no life before this one can have consumed for sure.
    let mut consumed = 0;
    // First id behind all that were read.
    let mut reached = 0;
    for (number, life) in line.lives.iter().enumerate() {
        let Some(start) = life.words[START].checked_sub(1) else { continue };
        let ordered = life.runs.windows(2).all(|pair| pair[0].1 < pair[1].0);
        faults.unless(ordered, || format!("life {number} of {name} read ids twice or out of order"));
        let strange = without(merged(life.runs.clone()).into_iter(), &committed.all).next();
        faults.unless(strange.is_none(), || {
            format!("life {number} of {name} read {}, which was not committed", strange.unwrap_or_default().0)
        });
        let early = life.runs.first().filter(|run| run.0 < start);
        faults
            .unless(early.is_none(), || format!("life {number} of {name} read ids below its start {start}"));
        let ended = life.words[ENDED] == 1;
        let last = life.runs.last().map(|run| run.1 + 1);
        let end = if ended { remains.end.commit_index } else { last.unwrap_or(start) };
        let missed = || missed(&committed.all, &life.runs, start, end);
        match remains.kind {
            Kind::All | Kind::Single => {
                let lost = missed().next();
                faults.unless(lost.is_none(), || {
                    format!(
                        "life {number} of {name}, from {start} to {end}, never read {}",
                        lost.unwrap_or_default().0
                    )
                });
            }
            Kind::Dropping => {
                let (told, lost) = (life.words[LOST], missed().map(len).sum::<u64>());
                faults.unless(lost <= told, || {
                    format!("life {number} of {name} missed {lost} ids and was told of {told}")
                });
            }
            Kind::Newest => {
                let newest = committed.all.last().map_or(0, |run| run.1 + 1);
                let seen = life.words[LAST];
                // Data that nobody was given may be newer than what is noted.
                let fits = seen >= newest || start >= newest;
                faults.unless(!ended || fits, || format!("{name} ended with {seen} and not with {newest}"));
            }
        }
        if remains.kind == Kind::Single {
            faults.unless(start >= consumed, || {
                format!("life {number} of {name} began at {start}; {consumed} was consumed for sure")
            });
            let gap = missed_between(&committed.all, reached, start);
            faults.unless(gap.is_none(), || {
                format!("life {number} of {name} began at {start}: nobody read {}", gap.unwrap_or_default())
            });
        }
        let tail = life.runs.iter().rev().flat_map(|run| (run.0..=run.1).rev()).nth(line.held as usize);
        consumed = consumed.max(tail.map_or(start, |id| id + 1));
        reached = reached.max(start).max(last.unwrap_or(0));
    }
    let ended = line.lives.last().is_some_and(|life| life.words[ENDED] == 1);
    faults.unless(ended, || format!("{name} did not read to the end"));
}

fn judge_end(remains: &Remains, committed: &Committed, faults: &mut Faults) {
    let End { write_index, commit_index, ring, stuck, counters, kills } = &remains.end;
    stuck.iter().for_each(|what| faults.unless(false, || what.clone()));
    faults.unless(write_index == commit_index, || {
        format!("ids up to {write_index} were given away and only those up to {commit_index} are resolved")
    });
    for (id, data) in ring {
        let may_be = contains(&committed.all, *id) || committed.open.contains(id);
        let must_be = contains(&committed.all, *id);
        faults.unless(if *data { may_be } else { !must_be }, || {
            format!("the slot of {id} holds {}", if *data { "data never committed" } else { "nothing" })
        });
    }
    let open = committed.open.len() as u64;
    let within = |found: u64, low: u64, high: u64| (low..=high).contains(&found);
    faults.unless(within(counters.written, committed.noted, committed.noted + open), || {
        format!("{} slots counted as written, {} noted, {open} open", counters.written, committed.noted)
    });
    let aborted: u64 = remains.producers.iter().map(|life| life.words[ABORTED]).sum();
    faults.unless(counters.aborted >= aborted, || {
        format!("{} slots counted as aborted, {aborted} were on purpose", counters.aborted)
    });
    // Every id is data, given up or burnt; whoever is killed may not have counted what it did last.
    let counted = counters.written + counters.aborted + counters.skipped;
    faults.unless(counted.abs_diff(*write_index) <= kills * BATCH, || {
        format!("{counters:?} for {write_index} ids and {kills} kills")
    });
    let gone = counters.left + counters.reaped;
    faults.unless(counters.joined.abs_diff(gone) <= counters.lock_takeovers, || {
        format!("{} consumers came, {gone} are gone: {counters:?}", counters.joined)
    });
    let read: u64 =
        remains.readers.iter().flat_map(|line| &line.lives).map(|life| reads(remains.kind, life)).sum();
    let held: u64 = remains
        .readers
        .iter()
        .map(|line| line.held * line.lives.iter().filter(|life| life.words[ENDED] == 0).count() as u64)
        .sum();
    // Whoever removes a row takes its counters out before it adds them, so dying there loses them.
    let low = if counters.lock_takeovers == 0 { read.saturating_sub(held) } else { 0 };
    faults.unless(within(counters.read, low, read), || {
        format!("{} slots counted as read, {read} noted, {held} may have been held", counters.read)
    });
    faults.unless(counters.transition_errors == 0, || {
        format!("{} transitions that cannot be", counters.transition_errors)
    });
    faults
        .unless(counters.validation_failed == 0, || format!("{} slots changed", counters.validation_failed));
}

fn reads(kind: Kind, life: &Written) -> u64 {
    match kind {
        Kind::Newest => life.words[COUNT],
        _ => life.runs.iter().copied().map(len).sum(),
    }
}

/// Ids of `committed` from `start` up to `end` that are not in `runs`.
fn missed(committed: &[Run], runs: &[Run], start: u64, end: u64) -> impl Iterator<Item = Run> {
    let first = committed.partition_point(|run| run.1 < start);
    let within = committed[first..].iter().take_while(move |run| run.0 < end);
    without(within.map(move |run| (run.0.max(start), run.1.min(end - 1))), runs)
}

fn missed_between(committed: &[Run], from: u64, to: u64) -> Option<u64> {
    let first = committed.get(committed.partition_point(|run| run.1 < from))?.0.max(from);
    (first < to).then_some(first)
}

/// What is in `these` and not in `those`; both in order. In runs, since there are hundreds of millions of ids.
fn without(these: impl Iterator<Item = Run>, those: &[Run]) -> impl Iterator<Item = Run> {
    these.flat_map(move |(first, last)| {
        let place = those.partition_point(|run| run.1 < first);
        let mut from = first;
        let mut gaps = Vec::new();
        for &(start, end) in those[place..].iter().take_while(|run| run.0 <= last) {
            if start > from {
                gaps.push((from, start - 1));
            }
            from = from.max(end + 1);
        }
        if from <= last {
            gaps.push((from, last));
        }
        gaps
    })
}

fn len(run: Run) -> u64 {
    run.1 - run.0 + 1
}

fn contains(runs: &[Run], id: u64) -> bool {
    let place = runs.partition_point(|run| run.1 < id);
    runs.get(place).is_some_and(|run| run.0 <= id)
}

fn merged(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_unstable();
    let mut merged: Vec<Run> = Vec::with_capacity(runs.len());
    for (first, last) in runs {
        match merged.last_mut() {
            Some(run) if first <= run.1 + 1 => run.1 = run.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}
