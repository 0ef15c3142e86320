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
    turned_away: Vec<(Weak<Shared>, Stamped)>,
    /// When they try again.
    retry: Option<Instant>,
}

/// Lets those who were turned away try again when the time has come.
struct Retry {
    context: Weak<ContextInner>,
    name: Arc<str>,
    due: Instant,
}

impl Wake for Retry {
    fn wake(self: Arc<Self>) {
        if let Some(context) = self.context.upgrade() {
            context.names.retry(&self.name, self.due);
        }
    }
}

impl Names {
    pub(crate) fn bind(&self, name: &str, socket: &Arc<Shared>) -> Result<()> {
        let waiting = {
            let mut names = self.lock();
            let entry = names.entry(name.into()).or_default();
            if entry.bound.as_ref().is_some_and(|bound| bound.strong_count() > 0) {
                return Err(Error::AddressInUse(format!("inproc://{name}")));
            }
            entry.bound = Some(Arc::downgrade(socket));
            let mut waiting = std::mem::take(&mut entry.waiting);
            waiting.append(&mut entry.turned_away);
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
        let mut names = self.lock();
        let entry = names.entry(name.into()).or_default();
        entry.turned_away.retain(|(waiting, _)| waiting.strong_count() > 0);
        entry.turned_away.push((Arc::downgrade(socket), pipe));
        let is_first = entry.retry.is_none();
        if is_first {
            entry.retry = due;
        }
        drop(names);
        if let Some(due) = due.filter(|_| is_first) {
            let context = Arc::downgrade(&socket.context);
            socket.context.wake_at(due, &Arc::new(Retry { context, name: name.into(), due }).into());
        }
        self.forget_if_gone(name, socket, pipe);
    }

    /// The time has come for which [`turned_away`](Self::turned_away) has asked.
    fn retry(&self, name: &str, due: Instant) {
        let is_due = {
            let mut names = self.lock();
            // Else it is about others who had the name, or was called before its time.
            let entry = names.get_mut(name).filter(|entry| entry.retry == Some(due) && due <= Instant::now());
            entry.is_some_and(|entry| entry.retry.take().is_some())
        };
        if is_due {
            self.readmit(name);
        }
    }

    /// Lets those who were turned away try again.
    pub(super) fn readmit(&self, name: &str) {
        let Some(bound) = self.bound(name) else { return };
        let trying = self.lock().get_mut(name).map(|entry| std::mem::take(&mut entry.turned_away));
        for (connecting, pipe) in trying.unwrap_or_default() {
            if let Some(connecting) = connecting.upgrade() {
                link(name, &connecting, pipe, &bound);
            }
        }
    }

    pub(crate) fn forget(&self, name: &str, socket: &Shared, pipe: Stamped) {
        let mut names = self.lock();
        if let Some(entry) = names.get_mut(name) {
            let this = socket.weak();
            for list in [&mut entry.waiting, &mut entry.turned_away] {
                list.retain(|(waiting, waiting_pipe)| !(waiting.ptr_eq(&this) && *waiting_pipe == pipe));
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
    fn is_unused(&self) -> bool {
        self.bound.is_none() && self.waiting.is_empty() && self.turned_away.is_empty()
    }
}

#[cfg(test)]
mod tests {
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
}
