//! The tables of 6.7 to 6.10, told naively, against the state machine.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    model::{Pipes, ReceiveLane, Step, Table, run},
    *,
};

const TOPICS: [&str; 4] = ["", "m", "mn", "n"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Subscriptions are this chapter's matter: every second step is one.
    let step = prop_oneof![any::<Step>(), (Just(14_u8), any::<u8>(), any::<u8>())];
    proptest::collection::vec(step, 0..300)
}

fn limits() -> impl Strategy<Value = (usize, usize)> {
    (0_usize..6, 0_usize..6)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500, failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default()
    })]

    /// Rules: MQ-190, MQ-191, MQ-215, MQ-216, MQ-217, MQ-185, MQ-219, MQ-431, MQ-432, MQ-427, MQ-429.
    #[test]
    fn pub_follows_its_table(bits in 0_u8..4, limits in limits(), steps in steps()) {
        run::<Pub>(bits, limits, &steps);
    }

    /// Rules: MQ-191, MQ-224, MQ-225, MQ-226, MQ-228, MQ-430.
    #[test]
    fn xpub_follows_its_table(bits in any::<u8>(), limits in limits(), steps in steps()) {
        run::<XPub>(bits, limits, &steps);
    }

    /// Rules: MQ-191, MQ-230, MQ-231, MQ-232, MQ-233, MQ-235, MQ-065.
    #[test]
    fn sub_follows_its_table(bits in 0_u8..4, limits in limits(), steps in steps()) {
        run::<Sub>(bits, limits, &steps);
    }

    /// Rules: MQ-191, MQ-237, MQ-238, MQ-239, MQ-240.
    #[test]
    fn xsub_follows_its_table(bits in 0_u8..4, limits in limits(), steps in steps()) {
        run::<XSub>(bits, limits, &steps);
    }
}

/// A message of user data, or with changes of subscriptions in it.
fn mixed(a: u8, number: u32) -> Frames {
    let user = format!("mn {number}").into_bytes();
    let change = |mark: u8| [&[mark], TOPICS[usize::from(a / 8 % 4)].as_bytes()].concat();
    match a % 8 {
        0 => vec![change(1)],
        1 => vec![change(0)],
        2 => vec![change(1), user, change(0)],
        3 => vec![user, change(1)],
        4 => vec![Vec::new()],
        _ => vec![user],
    }
}

/// What a peer's message changes, and what is left of it for the user.
fn read_mixed(parts: Frames, only_first: bool) -> (Vec<(bool, String)>, Frames) {
    let mut changes = Vec::new();
    let mut rest = Vec::new();
    for (at, part) in parts.into_iter().enumerate() {
        match part.first() {
            Some(mark @ (0 | 1)) if at == 0 || !only_first => {
                changes.push((*mark == 1, String::from_utf8(part[1..].to_vec()).expect("topics are text")));
            }
            _ => rest.push(part),
        }
    }
    (changes, rest)
}

/// A publication: one of a few subjects.
fn publication(a: u8, number: u32) -> Frames {
    let subject = ["m", "mno", "nothing", ""][usize::from(a % 4)];
    vec![subject.as_bytes().to_vec(), number.to_be_bytes().to_vec()]
}

#[derive(Default)]
struct Pub {
    live: BTreeSet<usize>,
    topics: BTreeSet<(String, usize)>,
}

impl Pub {
    fn matching(&self, pipes: &Pipes, subject: &[u8]) -> BTreeSet<usize> {
        let wants =
            |at: usize| self.topics.iter().any(|(t, by)| *by == at && subject.starts_with(t.as_bytes()));
        self.live.iter().copied().filter(|at| wants(*at) != pipes.settings.invert_matching).collect()
    }

    fn has(&self, topic: &str) -> bool {
        self.topics.iter().any(|(held, _)| held == topic)
    }

    fn leave(&mut self, at: usize) {
        self.live.remove(&at);
        self.topics.retain(|(_, by)| *by != at);
    }

    /// Who gets a message with this first part, and whether that has to wait.
    fn receivers(&self, pipes: &Pipes, subject: &[u8], only: Option<usize>) -> (BTreeSet<usize>, bool) {
        let mut to = self.matching(pipes, subject);
        to.retain(|at| only.is_none_or(|only| only == *at));
        let waits = pipes.settings.nodrop && to.iter().any(|at| !pipes.all[*at].takes());
        (to, waits)
    }

    fn publish(&mut self, pipes: &mut Pipes, parts: Frames, only: Option<usize>) -> Result<(), SendRefusal> {
        let (to, waits) = self.receivers(pipes, &parts[0], only);
        if waits {
            return Err(SendRefusal::WouldBlock(Awaited::Room));
        }
        for at in to {
            if pipes.all[at].takes() {
                pipes.queue(at, parts.clone());
            }
        }
        Ok(())
    }
}

/// Lets some connected peer subscribe or cancel; answers who, what, and what came back.
fn peer_changes(rig: &mut Rig, pipes: &Pipes, a: u8, b: u8) -> Option<(usize, bool, String, Received)> {
    let able: Vec<usize> =
        (0..pipes.all.len()).filter(|at| pipes.all[*at].up && pipes.all[*at].open).collect();
    let at = *able.get(usize::from(a) % able.len().max(1))?;
    let topic = TOPICS[usize::from(b / 2 % 4)];
    let peer = pipes.all[at].peer;
    let result = if b & 1 == 0 { rig.subscribe(peer, topic) } else { rig.cancel(peer, topic) };
    Some((at, b & 1 == 0, topic.to_owned(), result))
}

impl Table for Pub {
    const KIND: SocketType = SocketType::Pub;

    fn options(settings: &mut Settings, bits: u8) {
        settings.invert_matching = bits & 1 != 0;
        settings.nodrop = bits & 2 != 0;
    }

    fn outgoing(&self, _: &Pipes, a: u8, number: u32) -> Frames {
        publication(a, number)
    }

    fn incoming(&self, a: u8, number: u32) -> Frames {
        mixed(a, number)
    }

    fn opened(&mut self, _: &mut Pipes, _: usize) {}

    fn up(&mut self, _: &mut Pipes, at: usize) -> bool {
        self.live.insert(at);
        true
    }

    fn lost(&mut self, pipes: &mut Pipes, at: usize) {
        self.leave(at);
        pipes.drop_queued(at);
    }

    fn closing(&mut self, _: &mut Pipes, at: usize) {
        self.leave(at);
    }

    fn received(&mut self, _: &mut Pipes, at: usize, parts: Frames) -> Result<(), Violation> {
        for (subscribe, topic) in read_mixed(parts, false).0 {
            if subscribe {
                self.topics.insert((topic, at));
            } else {
                self.topics.remove(&(topic, at));
            }
        }
        Ok(())
    }

    fn special(&mut self, rig: &mut Rig, pipes: &mut Pipes, a: u8, b: u8) {
        let Some((at, subscribe, topic, result)) = peer_changes(rig, pipes, a, b) else { return };
        assert_eq!(result, Received::Taken);
        if subscribe {
            self.topics.insert((topic, at));
        } else {
            self.topics.remove(&(topic, at));
        }
    }

    fn has_to_wait(&self, pipes: &Pipes, parts: &[Vec<u8>]) -> bool {
        self.receivers(pipes, &parts[0], None).1
    }

    fn send(&mut self, pipes: &mut Pipes, parts: Frames) -> Result<(), SendRefusal> {
        self.publish(pipes, parts, None)
    }

    fn check(&mut self, rig: &mut Rig, pipes: &Pipes) {
        let distinct: BTreeSet<&String> = self.topics.iter().map(|(topic, _)| topic).collect();
        assert_eq!(rig.state.topics_count(), Ok(distinct.len()));
        assert_eq!(rig.state.subscribers(b"mn"), Ok(self.matching(pipes, b"mn").len()));
    }
}

#[derive(Default)]
struct XPub {
    publisher: Pub,
    /// Manual mode: what peers asked for.
    asked: BTreeSet<(String, usize)>,
    notices: Vec<(usize, Peer, Frames, bool)>,
    last: Option<usize>,
}

impl XPub {
    fn tell(&mut self, pipes: &Pipes, at: usize, subscribe: bool, topic: &str) {
        let form = |mark: bool| vec![[&[u8::from(mark)], topic.as_bytes()].concat()];
        let terse = !pipes.settings.xpub_manual && pipes.settings.verbosity == Verbosity::Terse;
        let opposite = form(!subscribe);
        let unread = self.notices.iter().position(|(_, _, parts, change)| *change && *parts == opposite);
        match unread {
            Some(unread) if terse => drop(self.notices.remove(unread)),
            _ => self.notices.push((at, pipes.all[at].peer, form(subscribe), true)),
        }
    }

    fn change(&mut self, pipes: &Pipes, at: usize, subscribe: bool, topic: String) {
        let Settings { xpub_manual: manual, verbosity, .. } = pipes.settings;
        let row = (topic.clone(), at);
        let tells = match (manual, subscribe) {
            (true, true) => {
                self.asked.insert(row);
                true
            }
            (true, false) => self.asked.remove(&row),
            (false, true) => {
                let first = !self.publisher.has(&topic);
                self.publisher.topics.insert(row);
                first || verbosity != Verbosity::Terse
            }
            (false, false) => {
                let held = self.publisher.topics.remove(&row);
                held && (verbosity == Verbosity::Verboser || !self.publisher.has(&topic))
            }
        };
        if tells {
            self.tell(pipes, at, subscribe, &topic);
        }
    }

    fn leave(&mut self, pipes: &Pipes, at: usize) {
        let rows = if pipes.settings.xpub_manual { &mut self.asked } else { &mut self.publisher.topics };
        let gone: Vec<(String, usize)> = rows.extract_if(.., |(_, by)| *by == at).collect();
        for (topic, _) in gone {
            let silent = !pipes.settings.xpub_manual && pipes.settings.verbosity != Verbosity::Verboser;
            if !(silent && self.publisher.has(&topic)) {
                self.tell(pipes, at, false, &topic);
            }
        }
        self.publisher.leave(at);
        self.last = self.last.filter(|last| *last != at);
    }
}

impl Table for XPub {
    const KIND: SocketType = SocketType::XPub;

    fn options(settings: &mut Settings, bits: u8) {
        settings.nodrop = bits & 1 != 0;
        settings.only_first_subscribe = bits & 2 != 0;
        match bits / 4 % 5 {
            0 => {}
            1 => settings.set_xpub_verbose(true),
            2 => settings.set_xpub_verboser(true),
            3 => settings.xpub_manual = true,
            _ => (settings.xpub_manual, settings.xpub_last_value) = (true, true),
        }
    }

    fn outgoing(&self, _: &Pipes, a: u8, number: u32) -> Frames {
        publication(a, number)
    }

    fn incoming(&self, a: u8, number: u32) -> Frames {
        mixed(a, number)
    }

    fn opened(&mut self, _: &mut Pipes, _: usize) {}

    fn up(&mut self, _: &mut Pipes, at: usize) -> bool {
        self.publisher.live.insert(at);
        true
    }

    fn lost(&mut self, pipes: &mut Pipes, at: usize) {
        self.leave(pipes, at);
        pipes.drop_queued(at);
    }

    fn closing(&mut self, pipes: &mut Pipes, at: usize) {
        self.leave(pipes, at);
    }

    fn forget_received(&mut self, _: &mut Pipes, at: usize) {
        self.notices.retain(|(by, _, _, change)| *by != at || *change);
    }

    fn received(&mut self, pipes: &mut Pipes, at: usize, parts: Frames) -> Result<(), Violation> {
        let (changes, rest) = read_mixed(parts, pipes.settings.only_first_subscribe);
        for (subscribe, topic) in changes {
            self.change(pipes, at, subscribe, topic);
        }
        if !rest.is_empty() {
            pipes.arrive(at, rest.clone());
            self.notices.push((at, pipes.all[at].peer, rest, false));
        }
        Ok(())
    }

    /// A peer subscribes or cancels, or the application does for the last one.
    fn special(&mut self, rig: &mut Rig, pipes: &mut Pipes, a: u8, b: u8) {
        if !a.is_multiple_of(3) {
            let Some((at, subscribe, topic, result)) = peer_changes(rig, pipes, a, b) else { return };
            self.change(pipes, at, subscribe, topic);
            let full = pipes.all[at].inbound_full;
            assert_eq!(result, if full { Received::Full } else { Received::Taken });
            pipes.all[at].stopped |= full;
            return;
        }
        let topic = Bytes::from_static(TOPICS[usize::from(b / 2 % 4)].as_bytes());
        let text = String::from_utf8(topic.to_vec()).expect("topics are text");
        let subscribe = b & 1 == 0;
        let result = if subscribe { rig.state.subscribe(topic) } else { rig.state.unsubscribe(topic) };
        match (pipes.settings.xpub_manual, self.last) {
            (false, _) => assert_eq!(result, Err(NotSupported)),
            (true, Some(last)) if subscribe => drop(self.publisher.topics.insert((text, last))),
            (true, Some(last)) => drop(self.publisher.topics.remove(&(text, last))),
            (true, None) => assert_eq!(result, Ok(())),
        }
    }

    fn has_to_wait(&self, pipes: &Pipes, parts: &[Vec<u8>]) -> bool {
        let only = self.last.filter(|_| pipes.settings.xpub_last_value);
        self.publisher.receivers(pipes, &parts[0], only).1
    }

    fn send(&mut self, pipes: &mut Pipes, parts: Frames) -> Result<(), SendRefusal> {
        let only = self.last.filter(|_| pipes.settings.xpub_last_value);
        self.publisher.publish(pipes, parts, only)?;
        if only.is_some() {
            self.last = None;
        }
        Ok(())
    }

    fn recv(&mut self, pipes: &mut Pipes) -> Result<Frames, RecvRefusal> {
        if self.notices.is_empty() {
            return Err(RecvRefusal::WouldBlock);
        }
        let (at, peer, parts, change) = self.notices.remove(0);
        if change {
            let pipe = &pipes.all[at];
            self.last = (pipe.up && pipe.open && pipe.peer == peer).then_some(at);
        } else if !pipes.all[at].inbound.is_empty() {
            pipes.read(at);
        }
        Ok(parts)
    }

    fn check(&mut self, rig: &mut Rig, pipes: &Pipes) {
        self.publisher.check(rig, pipes);
    }
}

/// Topics with counts, and what each publisher was or is to be told.
#[derive(Default)]
struct Sub {
    counts: BTreeMap<String, usize>,
    live: BTreeMap<usize, Vec<Command>>,
    incoming: ReceiveLane,
}

fn command(subscribe: bool, topic: &str) -> Command {
    let topic = Bytes::copy_from_slice(topic.as_bytes());
    if subscribe { Command::Subscribe(topic) } else { Command::Cancel(topic) }
}

impl Sub {
    fn change(&mut self, subscribe: bool, topic: &str, repeat: bool, always: bool) {
        let count = self.counts.entry(topic.to_owned()).or_default();
        let tells = match (subscribe, *count) {
            (true, 0) => true,
            (true, _) => repeat,
            (false, 1) => true,
            (false, _) => always,
        };
        *count = if subscribe { *count + 1 } else { count.saturating_sub(1) };
        self.counts.retain(|_, count| *count > 0);
        if tells {
            for told in self.live.values_mut() {
                told.push(command(subscribe, topic));
            }
        }
    }
}

impl Table for Sub {
    const KIND: SocketType = SocketType::Sub;

    fn options(settings: &mut Settings, bits: u8) {
        settings.invert_matching = bits & 1 != 0;
        settings.forward_duplicates = bits & 2 != 0;
    }

    fn incoming(&self, a: u8, number: u32) -> Frames {
        publication(a, number)
    }

    fn opened(&mut self, _: &mut Pipes, _: usize) {}

    fn up(&mut self, _: &mut Pipes, at: usize) -> bool {
        let held = self.counts.keys().map(|topic| command(true, topic)).collect();
        self.live.insert(at, held);
        true
    }

    fn lost(&mut self, _: &mut Pipes, at: usize) {
        self.live.remove(&at);
    }

    fn closing(&mut self, _: &mut Pipes, at: usize) {
        self.live.remove(&at);
    }

    fn forget_received(&mut self, _: &mut Pipes, at: usize) {
        self.incoming.0.leave(at);
    }

    fn received(&mut self, pipes: &mut Pipes, at: usize, parts: Frames) -> Result<(), Violation> {
        let wanted = self.counts.keys().any(|topic| parts[0].starts_with(topic.as_bytes()));
        if wanted != pipes.settings.invert_matching {
            self.incoming.arrive(pipes, at, parts);
        }
        Ok(())
    }

    fn recv(&mut self, pipes: &mut Pipes) -> Result<Frames, RecvRefusal> {
        self.incoming.next(pipes).map(|(_, parts)| parts).ok_or(RecvRefusal::WouldBlock)
    }

    fn special(&mut self, rig: &mut Rig, pipes: &mut Pipes, a: u8, b: u8) {
        let (subscribe, topic) = (b & 1 == 0, TOPICS[usize::from(a % 4)]);
        let bytes = Bytes::from_static(topic.as_bytes());
        let result = if subscribe { rig.state.subscribe(bytes) } else { rig.state.unsubscribe(bytes) };
        assert_eq!(result, Ok(()));
        self.change(subscribe, topic, pipes.settings.forward_duplicates, false);
    }

    fn commands(&mut self, _: &Pipes, at: usize, taken: Vec<Command>) {
        let expected = self.live.get_mut(&at).map(std::mem::take).unwrap_or_default();
        assert_eq!(taken, expected, "changes of subscriptions");
    }

    fn check(&mut self, rig: &mut Rig, _: &Pipes) {
        assert_eq!(rig.state.topics_count(), Ok(self.counts.len()));
    }
}

#[derive(Default)]
struct XSub(Sub);

impl Table for XSub {
    const KIND: SocketType = SocketType::XSub;

    fn options(settings: &mut Settings, bits: u8) {
        settings.verbose_unsubscribe = bits & 1 != 0;
        settings.only_first_subscribe = bits & 2 != 0;
    }

    fn outgoing(&self, _: &Pipes, a: u8, number: u32) -> Frames {
        mixed(a, number)
    }

    fn opened(&mut self, _: &mut Pipes, _: usize) {}

    fn up(&mut self, pipes: &mut Pipes, at: usize) -> bool {
        self.0.up(pipes, at)
    }

    fn lost(&mut self, pipes: &mut Pipes, at: usize) {
        self.0.lost(pipes, at);
        pipes.drop_queued(at);
    }

    fn closing(&mut self, pipes: &mut Pipes, at: usize) {
        self.0.closing(pipes, at);
    }

    fn forget_received(&mut self, pipes: &mut Pipes, at: usize) {
        self.0.forget_received(pipes, at);
    }

    fn received(&mut self, pipes: &mut Pipes, at: usize, parts: Frames) -> Result<(), Violation> {
        self.0.incoming.arrive(pipes, at, parts);
        Ok(())
    }

    fn send(&mut self, pipes: &mut Pipes, parts: Frames) -> Result<(), SendRefusal> {
        let (changes, rest) = read_mixed(parts, pipes.settings.only_first_subscribe);
        for (subscribe, topic) in changes {
            self.0.change(subscribe, &topic, true, pipes.settings.verbose_unsubscribe);
        }
        let live: Vec<usize> = self.0.live.keys().copied().collect();
        for at in live.into_iter().filter(|_| !rest.is_empty()) {
            if pipes.all[at].takes() {
                pipes.queue(at, rest.clone());
            }
        }
        Ok(())
    }

    fn recv(&mut self, pipes: &mut Pipes) -> Result<Frames, RecvRefusal> {
        self.0.recv(pipes)
    }

    fn commands(&mut self, pipes: &Pipes, at: usize, taken: Vec<Command>) {
        self.0.commands(pipes, at, taken);
    }

    fn check(&mut self, rig: &mut Rig, pipes: &Pipes) {
        self.0.check(rig, pipes);
    }
}
