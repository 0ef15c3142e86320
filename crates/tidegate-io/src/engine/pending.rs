//! The streams of a listener, and who of those that are pending must go for a newcomer (MQ-262).
//!
//! It is the oldest, but only when it had its chance: a peer that gets on with its handshake may have messages under way,
//! and those would be lost with its stream. So many clients that come at once are taken in one after another, as the
//! handshakes of those before them are completed, while peers that stay silent only delay newcomers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    task::Waker,
    time::{Duration, Instant},
};

use super::{
    address::StreamAddress,
    control::{DISPLACE, Shared},
    listen::ListenLimits,
    table::Key,
};

/// How long a peer that has not said a word is kept. It loses nothing with its stream: a peer that has not spoken was
/// not answered, and so has sent nothing but what opens a handshake.
const SILENT: Duration = Duration::from_millis(100);

/// How long any other is kept.
const SLOW: Duration = Duration::from_millis(300);

/// The streams of a listener.
#[derive(Default)]
pub(super) struct Members {
    pub(super) task: Option<Key>,
    /// The handle has closed the listener.
    pub(super) stopped: bool,
    /// Number of the next stream; numbers grow with age.
    next: u64,
    pub(super) all: BTreeMap<u64, Member>,
    pending: BTreeSet<u64>,
    per_ip: HashMap<IpAddr, BTreeSet<u64>>,
    /// The listener's task, while it waits for room.
    pub(super) waiting: Option<Waker>,
    /// The listener is closed with its streams, which may take this long.
    pub(super) closed: Option<Option<Duration>>,
}

/// A stream of a listener.
pub(super) struct Member {
    /// Set when the stream has arrived on its worker.
    pub(super) control: Option<Arc<Shared>>,
    peer: StreamAddress,
    since: Instant,
    /// Asked for before it arrived.
    pub(super) requests: u32,
}

/// Whether one more may be pending.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// When this one was displaced.
    After(u64),
    /// Not before this time, unless one of the pending settles.
    Later(Instant),
}

impl Members {
    /// Takes a newcomer in, which is pending; returns its number.
    pub(super) fn add(&mut self, peer: &StreamAddress, now: Instant) -> u64 {
        let id = self.next;
        self.next += 1;
        self.pending.insert(id);
        if let Some(ip) = peer.ip() {
            self.per_ip.entry(ip).or_default().insert(id);
        }
        self.all.insert(id, Member { control: None, peer: peer.clone(), since: now, requests: 0 });
        id
    }

    /// The stream is no longer pending; returns who is to be told that there may be room.
    #[must_use]
    pub(super) fn settle(&mut self, id: u64) -> Option<Waker> {
        self.pending.remove(&id);
        if let Some(ip) = self.all.get(&id).and_then(|member| member.peer.ip())
            && let Some(of_ip) = self.per_ip.get_mut(&ip)
        {
            of_ip.remove(&id);
            if of_ip.is_empty() {
                self.per_ip.remove(&ip);
            }
        }
        self.waiting.take()
    }

    /// Whether one more from `ip` may be pending.
    pub(super) fn room(&self, ip: Option<IpAddr>, limits: &ListenLimits, now: Instant) -> Room {
        let of_ip = ip.and_then(|ip| self.per_ip.get(&ip));
        let oldest = match of_ip {
            Some(of_ip) if of_ip.len() >= limits.pending_per_ip => of_ip.first(),
            _ if self.pending.len() >= limits.pending => self.pending.first(),
            _ => return Room::Free,
        };
        let Some((id, member)) = oldest.and_then(|id| Some((*id, self.all.get(id)?))) else {
            return Room::Free;
        };
        let kept_until = member.since + SILENT;
        if now < kept_until {
            return Room::Later(kept_until);
        }
        let kept_until = member.since + SLOW;
        if now < kept_until && !member.control.as_ref().is_some_and(|control| control.is_silent()) {
            return Room::Later(kept_until);
        }
        Room::After(id)
    }

    /// Has a stream make room; returns whom to tell, if it has arrived on its worker.
    pub(super) fn displace(&mut self, id: u64) -> Option<Arc<Shared>> {
        // Nobody waits: it is the listener's task that asks for room.
        let _ = self.settle(id);
        let member = self.all.get_mut(&id)?;
        member.requests |= DISPLACE;
        member.control.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::SocketAddr, os::unix::net::UnixStream};

    use super::*;
    use crate::engine::{table::Table, worker::Door};

    const LIMITS: ListenLimits = ListenLimits { pending: 3, pending_per_ip: 2, per_second: None };

    fn peer(host: u8) -> StreamAddress {
        StreamAddress::Ip(SocketAddr::from(([10, 0, 0, host], 1)))
    }

    fn room(members: &Members, host: u8, now: Instant) -> Room {
        members.room(peer(host).ip(), &LIMITS, now)
    }

    /// Its stream has arrived on its worker; what is returned is the peer's end.
    fn arrive(members: &mut Members, id: u64) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let door = Arc::new(Door::new(Waker::noop().clone()));
        let mut table = Table::new();
        let key = table.insert(|_| ());
        members.all.get_mut(&id).unwrap().control =
            Some(Arc::new(Shared::new(key, door, Arc::new(ours.into()), None)));
        theirs
    }

    /// The oldest goes: of the newcomer's address if that has reached its limit, else of all.
    ///
    /// Rules: MQ-262.
    #[test]
    fn the_oldest_goes_first() {
        let start = Instant::now();
        let mut members = Members::default();
        let other = members.add(&peer(1), start);
        let first = members.add(&peer(2), start);
        assert_eq!(room(&members, 2, start), Room::Free);
        let second = members.add(&peer(2), start);
        let late = start + SLOW;
        assert_eq!(room(&members, 2, late), Room::After(first));
        assert_eq!(room(&members, 3, late), Room::After(other));
        assert!(members.displace(first).is_none(), "it has not arrived");
        assert_eq!(members.all[&first].requests, DISPLACE);
        assert_eq!(room(&members, 2, late), Room::Free);
        members.add(&peer(2), late);
        assert_eq!(room(&members, 2, late), Room::After(second));
        let _ = members.settle(second);
        assert_eq!(room(&members, 2, late), Room::Free);
    }

    /// A peer is kept until it had its chance, and longer when it has spoken, be that read or not.
    ///
    /// Rules: MQ-262.
    #[test]
    fn who_gets_on_is_not_displaced() {
        let start = Instant::now();
        let just_before = |time| start + time - Duration::from_millis(1);
        let mut members = Members::default();
        let id = members.add(&peer(1), start);
        members.add(&peer(1), start);
        assert_eq!(room(&members, 1, start + SILENT), Room::Later(start + SLOW), "not on its worker yet");
        let mut theirs = arrive(&mut members, id);
        assert_eq!(room(&members, 1, just_before(SILENT)), Room::Later(start + SILENT));
        assert_eq!(room(&members, 1, start + SILENT), Room::After(id), "it is silent");
        theirs.write_all(b"unread").unwrap();
        assert_eq!(room(&members, 1, just_before(SLOW)), Room::Later(start + SLOW));
        assert_eq!(room(&members, 1, start + SLOW), Room::After(id));

        let mut members = Members::default();
        let id = members.add(&peer(1), start);
        members.add(&peer(1), start);
        let _theirs = arrive(&mut members, id);
        members.all[&id].control.as_ref().unwrap().set_received(1);
        assert_eq!(room(&members, 1, just_before(SLOW)), Room::Later(start + SLOW));
    }

    /// Rules: MQ-262.
    #[test]
    fn who_waits_for_room_is_told_when_one_settles() {
        let mut members = Members::default();
        let id = members.add(&peer(1), Instant::now());
        assert!(members.settle(id).is_none());
        members.waiting = Some(Waker::noop().clone());
        assert!(members.settle(id).is_some());
    }
}
