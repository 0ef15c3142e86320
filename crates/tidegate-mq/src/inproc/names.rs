//! The names of in-process endpoints: who is bound, and who waits for what.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Wake,
    time::Instant,
};

use tidegate_io::peer::{Epoch, PeerKey};

use super::link;
use crate::{
    context::ContextInner,
    error::{Error, Result},
    shared::Shared,
    timer::Timer,
};

/// A pipe of a connecting socket, with its stamp. No lock is held from when it is taken off a list until it is linked: by
/// then its key may be another's.
pub(super) type Stamped = (PeerKey, Epoch);

/// The names of a context, and who waits for one.
#[derive(Default)]
pub(crate) struct Names(Mutex<HashMap<Arc<str>, Name>>);

#[derive(Default)]
struct Name {
    bound: Option<Weak<Shared>>,
    /// For the name to be bound.
    waiting: Vec<(Weak<Shared>, Stamped)>,
    /// For a place at the socket that is bound, or at their own: one had none for them.
    turned_away: Vec<TurnedAway>,
    /// Is set to when the first of them tries again.
    alarm: Option<Alarm>,
}

struct TurnedAway {
    socket: Weak<Shared>,
    pipe: Stamped,
    /// When it tries again by itself, if it does (MQ-277).
    due: Option<Instant>,
}

struct Alarm {
    due: Instant,
    /// None until the timer is there, which is asked for without a lock.
    timer: Option<Timer>,
}

/// Lets those who were turned away try again when their time has come.
struct Retry {
    context: Weak<ContextInner>,
    name: Arc<str>,
    due: Instant,
}

impl Wake for Retry {
    fn wake(self: Arc<Self>) {
        if let Some(context) = self.context.upgrade() {
            context.names.retry(&self.name, self.due, &context);
        }
    }
}

impl Names {
    pub(crate) fn bind(&self, name: &str, socket: &Arc<Shared>) -> Result<()> {
        let waiting = {
            let mut names = self.lock();
            let entry = names.entry(name.into()).or_default();
            if entry.is_bound() {
                return Err(Error::AddressInUse(format!("inproc://{name}")));
            }
            entry.bound = Some(Arc::downgrade(socket));
            let mut waiting = std::mem::take(&mut entry.waiting);
            waiting.extend(entry.turned_away.drain(..).map(|TurnedAway { socket, pipe, .. }| (socket, pipe)));
            entry.alarm = None;
            waiting
        };
        for (connecting, pipe) in waiting {
            if let Some(connecting) = connecting.upgrade() {
                link(name, &connecting, pipe, socket);
            }
        }
        Ok(())
    }

    /// The name is free, if it is this socket's.
    pub(crate) fn unbind(&self, name: &str, socket: &Shared) {
        let mut names = self.lock();
        if let Some(entry) = names.get_mut(name)
            && entry.bound.as_ref().is_some_and(|bound| bound.ptr_eq(&socket.weak()))
        {
            entry.bound = None;
            if entry.is_unused() {
                names.remove(name);
            }
        }
    }

    /// Whoever is bound to the name.
    pub(crate) fn bound(&self, name: &str) -> Option<Arc<Shared>> {
        self.lock().get(name)?.bound.as_ref()?.upgrade()
    }

    /// Links the pipe to the name now, or when it is bound.
    pub(crate) fn wait_for(&self, name: &str, socket: &Arc<Shared>, pipe: Stamped) {
        self.wait_for_another(name, socket, pipe, &Weak::new());
    }

    /// The same, but does not count it as bound while `former` is.
    pub(super) fn wait_for_another(
        &self,
        name: &str,
        socket: &Arc<Shared>,
        pipe: Stamped,
        former: &Weak<Shared>,
    ) {
        let bound = {
            let mut names = self.lock();
            let entry = names.entry(name.into()).or_default();
            let bound = entry.bound.as_ref().filter(|bound| !bound.ptr_eq(former)).and_then(Weak::upgrade);
            if bound.is_none() {
                entry.waiting.retain(|(waiting, _)| waiting.strong_count() > 0);
                entry.waiting.push((Arc::downgrade(socket), pipe));
            }
            bound
        };
        match bound {
            Some(bound) => link(name, socket, pipe, &bound),
            None => self.forget_if_gone(name, socket, pipe),
        }
    }

    /// An endpoint that was given up meanwhile must not take the place of another.
    fn forget_if_gone(&self, name: &str, socket: &Shared, pipe: Stamped) {
        let inner = socket.lock();
        let is_wanted = inner.endpoints.is_inproc_connected(pipe) || inner.endpoints.is_inproc_leaving(pipe);
        drop(inner);
        if !is_wanted {
            self.forget(name, socket, pipe);
        }
    }

    /// The pipe was refused by one of the two sockets. It tries again after the time after which others connect again: the
    /// place may become free at a peer that is not in this process.
    pub(super) fn turned_away(&self, name: &str, socket: &Arc<Shared>, pipe: Stamped) {
        let wait = socket.lock().options.reconnect_ivl.filter(|time| !time.is_zero());
        let due = wait.and_then(|time| Instant::now().checked_add(time));
        {
            let mut names = self.lock();
            let entry = names.entry(name.into()).or_default();
            entry.turned_away.retain(|other| other.socket.strong_count() > 0);
            entry.turned_away.push(TurnedAway { socket: Arc::downgrade(socket), pipe, due });
        }
        self.set_alarm(name, &socket.context);
        self.forget_if_gone(name, socket, pipe);
    }

    /// Sees to it that the first who tries again is woken for it. While nobody is bound that is for who binds.
    fn set_alarm(&self, name: &str, context: &Arc<ContextInner>) {
        let due = {
            let mut names = self.lock();
            let Some(entry) = names.get_mut(name).filter(|entry| entry.is_bound()) else { return };
            let first = entry.turned_away.iter().filter_map(|other| other.due).min();
            let is_new = |due: &Instant| entry.alarm.as_ref().is_none_or(|alarm| *due < alarm.due);
            let Some(due) = first.filter(is_new) else { return };
            entry.alarm = Some(Alarm { due, timer: None });
            due
        };
        let retry = Retry { context: Arc::downgrade(context), name: name.into(), due };
        let timer = context.wake_at(due, &Arc::new(retry).into());
        if let Some(Name { alarm: Some(alarm), .. }) = self.lock().get_mut(name)
            && alarm.due == due
        {
            alarm.timer = Some(timer);
        }
    }

    /// The time has come for which the alarm was set. Before its time this is called when the system has no thread for timers:
    /// then the next who is turned away asks again.
    fn retry(&self, name: &str, due: Instant, context: &Arc<ContextInner>) {
        {
            let mut names = self.lock();
            match names.get_mut(name) {
                Some(entry) if entry.alarm.as_ref().is_some_and(|alarm| alarm.due == due) => {
                    entry.alarm = None
                }
                // It is about others who had the name.
                _ => return,
            }
        }
        let now = Instant::now();
        if due <= now {
            self.readmit_those(name, |other| other.due.is_some_and(|due| due <= now));
            self.set_alarm(name, context);
        }
    }

    /// Lets those who were turned away try again.
    pub(super) fn readmit(&self, name: &str) {
        self.readmit_those(name, |_| true);
    }

    fn readmit_those(&self, name: &str, those: impl Fn(&TurnedAway) -> bool) {
        let Some(bound) = self.bound(name) else { return };
        let trying: Vec<_> = match self.lock().get_mut(name) {
            Some(entry) => entry.turned_away.extract_if(.., |other| those(other)).collect(),
            None => return,
        };
        for TurnedAway { socket, pipe, .. } in trying {
            if let Some(connecting) = socket.upgrade() {
                link(name, &connecting, pipe, &bound);
            }
        }
    }

    pub(crate) fn forget(&self, name: &str, socket: &Shared, pipe: Stamped) {
        let mut names = self.lock();
        if let Some(entry) = names.get_mut(name) {
            let this = socket.weak();
            let is_other = |waiting: &Weak<Shared>, its: &Stamped| !waiting.ptr_eq(&this) || *its != pipe;
            entry.waiting.retain(|(socket, pipe)| is_other(socket, pipe));
            entry.turned_away.retain(|TurnedAway { socket, pipe, .. }| is_other(socket, pipe));
            if entry.turned_away.is_empty() {
                entry.alarm = None;
            }
            if entry.is_unused() {
                names.remove(name);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Name>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Name {
    fn is_bound(&self) -> bool {
        self.bound.as_ref().is_some_and(|bound| bound.strong_count() > 0)
    }

    fn is_unused(&self) -> bool {
        self.bound.is_none() && self.waiting.is_empty() && self.turned_away.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_io::message::Message;

    use super::*;
    use crate::{Context, options::Options, shared::wait, state::SocketType};

    /// An endpoint that another thread gave up while it was on its way to a list of those who wait is in none of them
    /// afterwards: whoever has the key of its pipe by then would be linked in its place.
    ///
    /// Rules: MQ-268, MQ-276.
    #[test]
    fn who_was_given_up_waits_for_no_name() {
        let context = Context::new();
        let socket = Shared::new(&context, SocketType::Push, Options::default()).unwrap();
        let given_up = {
            let mut inner = socket.lock();
            let key = inner.state.open_pipe(None).unwrap();
            (key, inner.state.born(key))
        };
        let names = &context.inner().names;
        names.wait_for("a", &socket, given_up);
        assert!(names.lock().is_empty(), "it waits for the name");
        names.turned_away("a", &socket, given_up);
        assert!(names.lock().is_empty(), "it waits for a place");

        socket.connect("inproc://a").unwrap();
        assert_eq!(names.lock()["a"].waiting.len(), 1);
        names.wait_for("a", &socket, given_up);
        assert_eq!(names.lock()["a"].waiting.len(), 1, "only who is wanted waits");
    }

    /// A binding thread has taken a pipe off the list of those who wait; meanwhile its endpoint is given up, and its key
    /// goes to the pipe of another endpoint. That one is left alone, with what is queued on it.
    ///
    /// Rules: MQ-068, MQ-268, MQ-276.
    #[test]
    fn whoever_has_the_key_by_then_is_not_linked() {
        let place = tempfile::tempdir().unwrap();
        let elsewhere = format!("ipc://{}", place.path().join("b").display());
        let context = Context::new();
        let names = &context.inner().names;
        let [push, pull] = [SocketType::Push, SocketType::Pull]
            .map(|kind| Shared::new(&context, kind, Options::default()).unwrap());
        push.connect("inproc://a").unwrap();
        let (_, taken) = names.lock()["a"].waiting[0].clone();
        push.disconnect("inproc://a").unwrap();
        push.connect("inproc://a").unwrap();
        assert_eq!(names.lock()["a"].waiting[0].1.0, taken.0, "the key is another's");
        names.forget("a", &push, taken);
        assert_eq!(names.lock()["a"].waiting.len(), 1, "whoever waits under the key has not lost its place");
        push.disconnect("inproc://a").unwrap();
        push.connect(&elsewhere).unwrap();
        let heir = push.lock().state.born(taken.0);
        assert!(heir != taken.1 && heir != Epoch::ZERO, "the key is a third one's");
        push.try_send("for b").unwrap();
        link("a", &push, taken, &pull);
        assert!(matches!(pull.try_recv::<Message>(), Err(Error::WouldBlock)));
        assert!(pull.lock().state.links().next().is_none());
        let other = Shared::new(&context, SocketType::Pull, Options::default()).unwrap();
        wait(other.bind(&elsewhere)).unwrap();
        assert_eq!(other.recv_message_blocking().unwrap().parts(), ["for b"]);
    }

    /// A socket that waits for a place at a PAIR, with the others that are not to go meanwhile.
    fn waits_for_a_place(context: &Context) -> [Arc<Shared>; 3] {
        let mut options = Options::default();
        options.reconnect_ivl = Some(Duration::from_secs(3600));
        let sockets = [(); 3].map(|()| Shared::new(context, SocketType::Pair, options.clone()).unwrap());
        wait(sockets[0].bind("inproc://a")).unwrap();
        sockets[1..].iter().for_each(|socket| socket.connect("inproc://a").unwrap());
        assert_eq!(context.inner().names.lock()["a"].turned_away.len(), 1);
        sockets
    }

    /// A thread that could not be had is asked for again by the next who is turned away.
    ///
    /// Rules: MQ-277.
    #[test]
    fn an_alarm_that_could_not_be_set_is_none() {
        let context = Context::without_timer_thread();
        let _sockets = waits_for_a_place(&context);
        assert!(context.inner().names.lock()["a"].alarm.is_none());
        assert_eq!(context.inner().timers.pending(), 0);
    }

    /// Rules: MQ-042, MQ-276.
    #[test]
    fn nobody_is_woken_for_who_was_given_up() {
        let context = Context::new();
        let [_bound, _partner, waits] = waits_for_a_place(&context);
        assert_eq!(context.inner().timers.pending(), 1);
        waits.disconnect("inproc://a").unwrap();
        assert_eq!(context.inner().timers.pending(), 0);
    }
}
