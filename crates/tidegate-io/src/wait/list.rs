//! See [`Waiters`].

use std::{mem, task::Waker};

use smallvec::SmallVec;

use super::hold;

/// Tasks that wait in line, each for something described by a `T`.
///
/// Lives under the lock of what is waited for. A place in the line is a [`Ticket`]:
///
/// ```text
///            join             grant                 finish (it got what it waited for)
///   (nobody) ----> waiting  <--------->  granted  ------------------------------------> (nobody)
///                     |      wait_again     |
///                     +------ cancel -------+------------------------------------------> (nobody)
/// ```
///
/// - Grants go in the order of the line, to those for whom the caller decides that they can proceed (MQ-061).
/// - A granted task that finds nothing, because someone else was faster, waits again in its old place.
/// - A task that gives up calls [`cancel`](Self::cancel); a grant that it did not use goes to the next one (MQ-076 to
///   MQ-079).
/// - Whoever comes new must not overtake: it may only take what is left beyond [`granted`](Self::granted), or nothing
///   unless the line [is empty](Self::is_empty) where what is left cannot be counted.
///
/// Memory is kept for the largest number of tasks that ever waited; none before the first.
#[derive(Debug)]
pub struct Waiters<T = ()> {
    places: Vec<Place<T>>,
    /// First of the unused places, linked by `next`.
    unused: u32,
    first: u32,
    last: u32,
    len: usize,
    granted: usize,
}

/// A place in the line of [`Waiters`]; given back by [`finish`](Waiters::finish) or [`cancel`](Waiters::cancel).
#[derive(Debug)]
#[must_use = "a place that is not given back blocks those behind it"]
pub struct Ticket(u32);

/// Whether a waiting task can proceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Wake it.
    Grant,
    /// It cannot, but those behind it may.
    Skip,
    /// It cannot, and it must not be overtaken.
    Stop,
}

#[derive(Debug)]
struct Place<T> {
    previous: u32,
    next: u32,
    state: State,
    wanted: Option<T>,
}

#[derive(Debug)]
enum State {
    Unused,
    Waiting(Waker),
    Granted,
}

/// No place.
const NONE: u32 = u32::MAX;

impl<T> Waiters<T> {
    /// Nobody.
    pub const fn new() -> Self {
        Self { places: Vec::new(), unused: NONE, first: NONE, last: NONE, len: 0, granted: 0 }
    }

    /// Whether nobody is in line, neither waiting nor granted.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many were woken and have not yet taken what they waited for.
    #[inline]
    pub fn granted(&self) -> usize {
        self.granted
    }

    /// Whether somebody waits who was not granted.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.len > self.granted
    }

    /// Waits at the end of the line for `wanted`.
    pub fn join(&mut self, wanted: T, waker: &Waker) -> Ticket {
        let place = Place {
            previous: self.last,
            next: NONE,
            state: State::Waiting(waker.clone()),
            wanted: Some(wanted),
        };
        let index = match self.places.get_mut(self.unused as usize) {
            Some(unused) => {
                let index = self.unused;
                self.unused = unused.next;
                *unused = place;
                index
            }
            None => {
                self.places.push(place);
                (self.places.len() - 1) as u32
            }
        };
        match self.places.get_mut(self.last as usize) {
            Some(last) => last.next = index,
            None => self.first = index,
        }
        self.last = index;
        self.len += 1;
        Ticket(index)
    }

    /// Whether the ticket was granted. If not, `waker` is the one to be called when it is.
    pub fn is_granted(&mut self, ticket: &Ticket, waker: &Waker) -> bool {
        match self.places.get_mut(ticket.0 as usize).map(|place| &mut place.state) {
            Some(State::Waiting(known)) => {
                known.clone_from(waker);
                false
            }
            _ => true,
        }
    }

    /// A granted task found nothing: it waits on, in the same place. One that still waits has its waker replaced.
    pub fn wait_again(&mut self, ticket: &Ticket, waker: &Waker) {
        let Some(place) = self.places.get_mut(ticket.0 as usize) else { return };
        match &mut place.state {
            State::Waiting(known) => known.clone_from(waker),
            State::Granted => {
                place.state = State::Waiting(waker.clone());
                self.granted -= 1;
            }
            State::Unused => {}
        }
    }

    /// What a task waits for.
    pub fn wanted(&self, ticket: &Ticket) -> Option<&T> {
        self.places.get(ticket.0 as usize)?.wanted.as_ref()
    }

    /// What those wait for who are in line before the ticket, waiting or granted; without a ticket, all.
    pub fn ahead(&self, ticket: Option<&Ticket>) -> impl Iterator<Item = &T> {
        let until = ticket.map(|ticket| ticket.0);
        let mut index = self.first;
        std::iter::from_fn(move || {
            let place = self.places.get(index as usize).filter(|_| Some(index) != until)?;
            index = place.next;
            place.wanted.as_ref()
        })
    }

    /// Goes through the line and wakes whom `decide` lets proceed, until it says [`Decision::Stop`].
    pub fn grant(&mut self, wakes: &mut Wakes, mut decide: impl FnMut(&T) -> Decision) {
        if !self.is_waiting() {
            return;
        }
        let mut index = self.first;
        while let Some(place) = self.places.get_mut(index as usize) {
            index = place.next;
            let (State::Waiting(_), Some(wanted)) = (&place.state, &place.wanted) else { continue };
            match decide(wanted) {
                Decision::Stop => return,
                Decision::Skip => {}
                Decision::Grant => {
                    if let State::Waiting(waker) = mem::replace(&mut place.state, State::Granted) {
                        wakes.push(waker);
                    }
                    self.granted += 1;
                    if !self.is_waiting() {
                        return;
                    }
                }
            }
        }
    }

    /// Wakes up to `count` tasks from the front of the line.
    pub fn grant_many(&mut self, count: usize, wakes: &mut Wakes) {
        let mut left = count;
        self.grant(wakes, |_| match left.checked_sub(1) {
            Some(rest) => {
                left = rest;
                Decision::Grant
            }
            None => Decision::Stop,
        });
    }

    /// Wakes everybody, because what they wait for will never come (MQ-083).
    pub fn grant_all(&mut self, wakes: &mut Wakes) {
        self.grant(wakes, |_| Decision::Grant);
    }

    /// The task got what it waited for, or an error. It leaves the line.
    pub fn finish(&mut self, ticket: Ticket) -> Option<T> {
        self.remove(&ticket)
    }

    /// The task gives up. Those behind it who can proceed, as `decide` says, are granted: it may have been granted and
    /// made no use of it, or stood first and must not have been overtaken.
    pub fn cancel(&mut self, ticket: Ticket, wakes: &mut Wakes, decide: impl FnMut(&T) -> Decision) {
        self.remove(&ticket);
        self.grant(wakes, decide);
    }

    /// Takes a place out of the line.
    fn remove(&mut self, ticket: &Ticket) -> Option<T> {
        let index = ticket.0;
        let place = self.places.get_mut(index as usize)?;
        let was_granted = match mem::replace(&mut place.state, State::Unused) {
            State::Unused => return None,
            State::Waiting(_) => false,
            State::Granted => true,
        };
        let wanted = place.wanted.take();
        let (previous, next) = (place.previous, place.next);
        place.next = self.unused;
        self.unused = index;
        match self.places.get_mut(previous as usize) {
            Some(place) => place.next = next,
            None => self.first = next,
        }
        match self.places.get_mut(next as usize) {
            Some(place) => place.previous = previous,
            None => self.last = previous,
        }
        self.len -= 1;
        self.granted -= usize::from(was_granted);
        wanted
    }
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Wakers collected under a lock, to be called after it was released. Dropping calls them.
///
/// Room for a few is in place; only waking many tasks at once allocates.
#[derive(Debug, Default)]
pub struct Wakes(SmallVec<[Waker; 4]>);

impl Wakes {
    /// None.
    pub const fn new() -> Self {
        Self(SmallVec::new_const())
    }

    /// Adds a waker to call.
    #[inline]
    pub fn push(&mut self, waker: Waker) {
        self.0.push(waker);
    }

    /// Calls all wakers, in order, unless the thread holds them back for a moment.
    #[inline]
    pub fn fire(&mut self) {
        self.0.drain(..).for_each(hold::wake);
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.fire();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Arc, Mutex},
        task::Wake,
    };

    use proptest::prelude::*;

    use super::*;

    /// Notes in a common list that it was woken.
    struct Woken(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    #[derive(Default)]
    struct Line {
        waiters: Waiters<usize>,
        woken: Arc<Mutex<Vec<usize>>>,
    }

    impl Line {
        fn waker(&self, name: usize) -> Waker {
            Waker::from(Arc::new(Woken(name, self.woken.clone())))
        }

        fn join(&mut self, name: usize) -> Ticket {
            let waker = self.waker(name);
            self.waiters.join(name, &waker)
        }

        fn woken(&self) -> Vec<usize> {
            std::mem::take(&mut self.woken.lock().unwrap())
        }

        fn grant(&mut self, count: usize) -> Vec<usize> {
            let mut wakes = Wakes::new();
            self.waiters.grant_many(count, &mut wakes);
            assert_eq!(self.woken(), [0; 0], "woken before the lock was released");
            wakes.fire();
            self.woken()
        }
    }

    /// Rules: MQ-061.
    #[test]
    fn grants_go_in_the_order_of_the_line() {
        let mut line = Line::default();
        let tickets: Vec<_> = (0..4).map(|name| line.join(name)).collect();
        assert_eq!(line.grant(2), [0, 1]);
        assert_eq!(line.grant(1), [2]);
        assert_eq!((line.waiters.len, line.waiters.granted()), (4, 3));
        let ahead = |ticket| line.waiters.ahead(ticket).copied().collect::<Vec<_>>();
        assert_eq!(
            [ahead(tickets.first()), ahead(tickets.get(2)), ahead(None)],
            [vec![], vec![0, 1], vec![0, 1, 2, 3]]
        );
        for ticket in tickets {
            line.waiters.finish(ticket);
        }
        assert!(line.waiters.is_empty() && line.grant(1).is_empty());
    }

    /// Rules: MQ-061.
    #[test]
    fn only_those_who_can_proceed_are_woken() {
        let mut line = Line::default();
        let _tickets: Vec<_> = (0..6).map(|name| line.join(name)).collect();
        let mut wakes = Wakes::new();
        line.waiters.grant(&mut wakes, |&name| match name {
            4 => Decision::Stop,
            name if name % 2 == 1 => Decision::Grant,
            _ => Decision::Skip,
        });
        drop(wakes);
        assert_eq!(line.woken(), [1, 3]);
        let mut wakes = Wakes::new();
        line.waiters.grant_all(&mut wakes);
        drop(wakes);
        assert_eq!(line.woken(), [0, 2, 4, 5]);
    }

    /// Rules: MQ-061, MQ-077.
    #[test]
    fn an_unused_grant_goes_to_the_next() {
        let mut line = Line::default();
        let [first, second, third] = [0, 1, 2].map(|name| line.join(name));
        assert_eq!(line.grant(1), [0]);
        let mut wakes = Wakes::new();
        let mut once = 1;
        line.waiters.cancel(first, &mut wakes, |_| {
            once -= 1;
            if once >= 0 { Decision::Grant } else { Decision::Stop }
        });
        drop(wakes);
        assert_eq!(line.woken(), [1]);
        let waker = line.waker(3);
        assert!(line.waiters.is_granted(&second, &waker));
        assert!(!line.waiters.is_granted(&third, &waker));
    }

    #[test]
    fn who_finds_nothing_waits_again_in_its_old_place() {
        let mut line = Line::default();
        let [first, second] = [0, 1].map(|name| line.join(name));
        assert_eq!(line.grant(1), [0]);
        let waker = line.waker(10);
        assert!(line.waiters.is_granted(&first, &waker));
        line.waiters.wait_again(&first, &waker);
        assert!(!line.waiters.is_granted(&first, &waker));
        assert_eq!(line.grant(1), [10]);
        assert_eq!(line.waiters.finish(first), Some(0));
        assert_eq!(line.waiters.wanted(&second), Some(&1));
    }

    #[test]
    fn a_new_waker_replaces_the_old_one() {
        let mut line = Line::default();
        let ticket = line.join(0);
        let waker = line.waker(7);
        assert!(!line.waiters.is_granted(&ticket, &waker));
        assert_eq!(line.grant(1), [7]);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Join,
        Grant(usize),
        Finish(usize),
        Leave(usize),
        Again(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Join),
            2 => (0usize..3).prop_map(Step::Grant),
            1 => (0usize..8).prop_map(Step::Finish),
            1 => (0usize..8).prop_map(Step::Leave),
            1 => (0usize..8).prop_map(Step::Again),
        ]
    }

    proptest! {
        /// Against a list of (name, granted).
        ///
        /// Rules: MQ-061.
        #[test]
        fn behaves_as_the_model(steps in prop::collection::vec(step(), 0..200)) {
            let mut line = Line::default();
            let mut model: VecDeque<(usize, bool)> = VecDeque::new();
            let mut tickets: Vec<(usize, Ticket)> = Vec::new();
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Join => {
                        tickets.push((next, line.join(next)));
                        model.push_back((next, false));
                        next += 1;
                    }
                    Step::Grant(count) => {
                        let mut expected = Vec::new();
                        for place in model.iter_mut().filter(|place| !place.1).take(count) {
                            place.1 = true;
                            expected.push(place.0);
                        }
                        prop_assert_eq!(line.grant(count), expected);
                    }
                    Step::Finish(at) | Step::Leave(at) if at < tickets.len() => {
                        let (name, ticket) = tickets.swap_remove(at);
                        let at = model.iter().position(|place| place.0 == name).unwrap();
                        model.remove(at);
                        if matches!(step, Step::Leave(_)) {
                            line.waiters.cancel(ticket, &mut Wakes::new(), |_| Decision::Stop);
                        } else {
                            prop_assert_eq!(line.waiters.finish(ticket), Some(name));
                        }
                    }
                    Step::Again(at) if at < tickets.len() => {
                        let waker = line.waker(tickets[at].0);
                        line.waiters.wait_again(&tickets[at].1, &waker);
                        let name = tickets[at].0;
                        model.iter_mut().filter(|place| place.0 == name).for_each(|place| place.1 = false);
                    }
                    _ => {}
                }
                prop_assert_eq!(line.waiters.len, model.len());
                prop_assert_eq!(line.waiters.granted(), model.iter().filter(|place| place.1).count());
            }
            prop_assert!(line.waiters.places.len() <= next);
        }
    }
}
