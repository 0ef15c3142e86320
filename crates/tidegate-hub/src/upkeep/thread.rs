//! The loop of the thread.

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tidegate_shm::clock::{Nanos, monotonic_now};

use super::{Member, members};
use crate::identity::{Kernel, Liveness, ProcessKey, liveness};

pub(super) fn start(bell: Arc<OwnedFd>) -> io::Result<JoinHandle<()>> {
    Builder::new().name("tidegate-upkeep".into()).spawn(move || Upkeep::new(bell).run())
}

struct Upkeep {
    bell: Arc<OwnedFd>,
    watches: Vec<Watch>,
    /// When to beat.
    next_beat: Nanos,
    /// When to look whether those beat who do it themselves.
    next_reminder: Nanos,
    /// How often cleaning up did not come to an end.
    retries: u32,
}

/// A process whose death matters.
struct Watch {
    key: ProcessKey,
    end: End,
}

/// How its end is noticed.
enum End {
    /// The descriptor becomes readable.
    Descriptor(OwnedFd),
    /// By asking now and then: there is no descriptor to be had.
    Asking,
    /// It has ended.
    Seen,
}

impl Upkeep {
    fn new(bell: Arc<OwnedFd>) -> Self {
        Self { bell, watches: Vec::new(), next_beat: Nanos::ZERO, next_reminder: Nanos::ZERO, retries: 0 }
    }

    fn run(mut self) {
        while let Some(members) = members() {
            // Somebody may wait for what the dead hold; for all the rest there is time.
            let dead = self.find_dead();
            let settled = self.clean_up(&members, &dead);
            self.beat(&members);
            self.look_around(&members);
            drop(members);
            // Who was dead already when he was first looked for is next.
            if self.find_dead().iter().all(|key| dead.contains(key)) {
                self.sleep(settled);
            }
        }
    }

    fn beat(&mut self, members: &[Arc<dyn Member>]) {
        let now = monotonic_now();
        let interval = members.iter().filter_map(|member| member.beat_every()).min();
        if now >= self.next_beat {
            members.iter().filter(|member| member.beat_every().is_some()).for_each(|member| member.beat());
            self.next_beat = interval.map_or(Nanos::MAX, |interval| now.saturating_add(interval));
        } else if let Some(interval) = interval {
            // A handle may have come with a shorter interval.
            self.next_beat = self.next_beat.min(now.saturating_add(interval));
        }
        let reminders = members.iter().filter_map(|member| member.remind(now));
        self.next_reminder = reminders.min().unwrap_or(Nanos::MAX);
    }

    fn look_around(&mut self, members: &[Arc<dyn Member>]) {
        let mut wanted = Vec::new();
        members.iter().for_each(|member| member.watched(&mut wanted));
        self.watches.retain(|watch| wanted.contains(&watch.key));
        for key in wanted {
            if !self.watches.iter().any(|watch| watch.key == key) {
                self.watches.push(Watch { key, end: End::of(key) });
            }
        }
    }

    /// Those who have ended.
    fn find_dead(&mut self) -> Vec<ProcessKey> {
        for watch in &mut self.watches {
            if matches!(watch.end, End::Asking) && liveness(&Kernel, watch.key) == Liveness::Dead {
                watch.end = End::Seen;
            }
        }
        self.watches.iter().filter(|watch| matches!(watch.end, End::Seen)).map(|watch| watch.key).collect()
    }

    /// True if nothing of `dead` is left.
    fn clean_up(&mut self, members: &[Arc<dyn Member>], dead: &[ProcessKey]) -> bool {
        if dead.is_empty() {
            self.retries = 0;
            return true;
        }
        let results: Vec<bool> = members.iter().map(|member| member.clean_up(dead)).collect();
        let settled = results.into_iter().all(|done| done);
        if settled {
            // Whoever still has a dead one somewhere wants it watched again.
            self.watches.retain(|watch| !matches!(watch.end, End::Seen));
            self.retries = 0;
        } else {
            self.retries = self.retries.saturating_add(1);
        }
        settled
    }

    /// Sleeps until somebody rings, dies, or it is time for something.
    fn sleep(&mut self, settled: bool) {
        let mut time = self.next_beat.min(self.next_reminder).saturating_sub(monotonic_now());
        if !settled {
            time = time.min(if self.retries < QUICK_RETRIES { QUICK_RETRY } else { ASKING });
        } else if self.watches.iter().any(|watch| matches!(watch.end, End::Asking)) {
            time = time.min(ASKING);
        }
        let mut fds = vec![PollFd::new(&self.bell, PollFlags::IN)];
        let mut places = Vec::new();
        for (place, watch) in self.watches.iter().enumerate() {
            if let End::Descriptor(fd) = &watch.end {
                fds.push(PollFd::new(fd, PollFlags::IN));
                places.push(place);
            }
        }
        // An error here is a signal, or a kernel short of memory: the next round looks at everything anyway.
        let _ = poll(&mut fds, timespec(time).as_ref());
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let rung = fds.first().is_some_and(ready);
        let ended: Vec<usize> = places
            .into_iter()
            .zip(fds.iter().skip(1))
            .filter(|(_, fd)| ready(fd))
            .map(|(place, _)| place)
            .collect();
        drop(fds);
        if rung {
            let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        }
        for place in ended {
            if let Some(watch) = self.watches.get_mut(place) {
                watch.end = End::Seen;
            }
        }
    }
}

impl End {
    fn of(key: ProcessKey) -> Self {
        let pid = i32::try_from(key.pid()).ok().and_then(Pid::from_raw);
        let descriptor = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        // Asked after opening: if the key lives, the descriptor is that of its process (DH-037).
        match (descriptor, liveness(&Kernel, key)) {
            (_, Liveness::Dead) => Self::Seen,
            (Some(Ok(descriptor)), _) => Self::Descriptor(descriptor),
            _ => Self::Asking,
        }
    }
}

/// None: without end.
fn timespec(time: Nanos) -> Option<Timespec> {
    if time == Nanos::MAX {
        return None;
    }
    // Rounded up, so that a beat is not asked for a moment too early.
    let nanos = time.0.saturating_add(1_000);
    let seconds = i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX);
    Some(Timespec { tv_sec: seconds, tv_nsec: (nanos % 1_000_000_000) as i64 })
}

/// How soon what could not be removed is tried again: the lock is held for moments only.
const QUICK_RETRY: Nanos = Nanos(500_000);
/// How often so soon.
const QUICK_RETRIES: u32 = 100;
/// How often to ask about a process that cannot be watched, and about what could not be removed for long (DH-036).
const ASKING: Nanos = Nanos::from_millis(100);
