//! See [`RoutingTable`].

use std::collections::{HashMap, hash_map::Entry};

use crate::{
    message::Part,
    peer::{Epoch, PeerKey},
};

/// Which peer has which routing id (MQ-213, state table of MQ section 6.6).
///
/// | state of an id | meaning |
/// |---|---|
/// | absent | nobody has it |
/// | [`Pending`](RouteState::Pending) | belongs to a pipe whose connection is not up; what is sent waits in the pipe |
/// | [`Live`](RouteState::Live) | belongs to this connection |
///
/// Whether a live pipe is full is the pipe's own affair. Looking an id up takes constant expected time and allocates
/// nothing. The hash is keyed, so that peers who choose their ids cannot make it slow.
#[derive(Debug, Default)]
pub struct RoutingTable {
    routes: HashMap<Part, Route>,
    /// The id of each peer, by peer key.
    names: Vec<Option<Name>>,
}

/// To whom a routing id leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The pipe.
    pub key: PeerKey,
    /// Of its connection; of the last one while pending.
    pub epoch: Epoch,
    /// Whether the connection is up.
    pub state: RouteState,
}

/// See [`RoutingTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteState {
    /// The pipe waits for its connection.
    Pending,
    /// The connection is up.
    Live,
}

/// Answer to [`RoutingTable::reserve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The id belongs to the pipe.
    Reserved,
    /// Somebody else has the id.
    InUse,
}

/// Answer to [`RoutingTable::up`].
#[derive(Debug, PartialEq, Eq)]
pub enum Up {
    /// The peer can be reached.
    Live {
        /// By this id.
        id: Part,
        /// The pipe had another id until now: what is queued for that one is to be discarded and counted.
        renamed: bool,
        /// The pipe that had the id until now. If it was live, its connection is to be closed (MQ-209).
        replaced: Option<Route>,
    },
    /// The id belongs to somebody else: the newcomer is to be closed (MQ-208).
    Refused {
        /// Who has it.
        holder: Route,
        /// As in [`Up::Live`].
        renamed: bool,
    },
    /// The table knows a later connection of this pipe.
    Stale,
}

/// Answer to [`RoutingTable::down`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// The id is free: what is queued for it is to be discarded, and those who wait for room are to be told.
    Removed,
    /// The id stays with the pipe.
    Kept,
    /// Not the present connection of the pipe, or the pipe has no id.
    Ignored,
}

#[derive(Debug)]
struct Name {
    id: Part,
    /// Chosen on this side: stays whatever the peer announces (MQ-207).
    assigned: bool,
}

impl RoutingTable {
    /// No ids.
    pub fn new() -> Self {
        Self::default()
    }

    /// To whom `id` leads.
    #[inline]
    pub fn route(&self, id: &[u8]) -> Option<Route> {
        self.routes.get(id).copied()
    }

    /// The id of a pipe.
    #[inline]
    pub fn id(&self, key: PeerKey) -> Option<&Part> {
        self.names.get(key.index())?.as_ref().map(|name| &name.id)
    }

    /// Gives `id` to a pipe that has none and no connection yet (MQ-207).
    pub fn reserve(&mut self, id: Part, key: PeerKey) -> Claim {
        if self.id(key).is_some() {
            return Claim::InUse;
        }
        match self.routes.entry(id.clone()) {
            Entry::Occupied(_) => Claim::InUse,
            Entry::Vacant(entry) => {
                entry.insert(Route { key, epoch: Epoch::ZERO, state: RouteState::Pending });
                self.name(key, Name { id, assigned: true });
                Claim::Reserved
            }
        }
    }

    /// A connection of a pipe came up and announced `identity`, empty for none. `generate` makes ids for the anonymous;
    /// `handover` lets a newcomer take the id of another connection that is up. A pending id that was not reserved
    /// belongs to a connection known dead and is taken without (MQ-208).
    pub fn up(
        &mut self,
        key: PeerKey,
        epoch: Epoch,
        identity: &[u8],
        handover: bool,
        mut generate: impl FnMut() -> Part,
    ) -> Up {
        let mut renamed = false;
        if let Some(Some(name)) = self.names.get(key.index())
            && let Some(route) = self.routes.get_mut(&name.id)
        {
            if epoch < route.epoch {
                return Up::Stale;
            }
            if name.assigned || identity.is_empty() || name.id == identity {
                *route = Route { key, epoch, state: RouteState::Live };
                return Up::Live { id: name.id.clone(), renamed, replaced: None };
            }
            self.forget(key);
            renamed = true;
        }
        let mut id = if identity.is_empty() { generate() } else { Part::copy_from(identity) };
        for _ in 0..GENERATE_TRIES {
            if !identity.is_empty() || !self.routes.contains_key(&id) {
                break;
            }
            id = generate();
        }
        let replaced = match self.routes.get(&id).copied() {
            Some(holder) if !self.yields(&holder, handover && !identity.is_empty()) => {
                return Up::Refused { holder, renamed };
            }
            holder => holder,
        };
        if let Some(holder) = replaced {
            self.forget(holder.key);
        }
        self.routes.insert(id.clone(), Route { key, epoch, state: RouteState::Live });
        self.name(key, Name { id: id.clone(), assigned: false });
        Up::Live { id, renamed, replaced }
    }

    /// Whether [`up`](Self::up) would refuse a peer that announces `identity`.
    pub fn refuses(&self, key: PeerKey, identity: &[u8], handover: bool) -> bool {
        let own = self.names.get(key.index()).and_then(Option::as_ref);
        if identity.is_empty() || own.is_some_and(|name| name.assigned || name.id == identity) {
            return false;
        }
        self.routes.get(identity).is_some_and(|holder| !self.yields(holder, handover))
    }

    /// A connection of a pipe is gone. The pipe keeps its id when `keep` says so, which is for pipes that will connect
    /// again.
    pub fn down(&mut self, key: PeerKey, epoch: Epoch, keep: bool) -> Down {
        let Some(Some(name)) = self.names.get(key.index()) else { return Down::Ignored };
        let Some(route) = self.routes.get_mut(&name.id).filter(|route| route.epoch == epoch) else {
            return Down::Ignored;
        };
        if keep {
            route.state = RouteState::Pending;
            return Down::Kept;
        }
        self.forget(key);
        Down::Removed
    }

    /// The pipe is gone for good: its id is free. Returns the id.
    pub fn forget(&mut self, key: PeerKey) -> Option<Part> {
        let name = self.names.get_mut(key.index())?.take()?;
        self.routes.remove(&name.id);
        Some(name.id)
    }

    /// All ids and where they lead, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&Part, Route)> {
        self.routes.iter().map(|(id, route)| (id, *route))
    }

    fn yields(&self, holder: &Route, handover: bool) -> bool {
        let assigned = matches!(self.names.get(holder.key.index()), Some(Some(name)) if name.assigned);
        handover || (holder.state == RouteState::Pending && !assigned)
    }

    fn name(&mut self, key: PeerKey, name: Name) {
        if self.names.len() <= key.index() {
            self.names.resize_with(key.index() + 1, || None);
        }
        if let Some(place) = self.names.get_mut(key.index()) {
            *place = Some(name);
        }
    }
}

/// How often a generated id that is in use is generated anew.
const GENERATE_TRIES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> PeerKey {
        PeerKey::new(index)
    }

    fn epoch(number: u64) -> Epoch {
        (0..number).fold(Epoch::ZERO, |epoch, _| epoch.next())
    }

    fn none() -> Part {
        panic!("an id was generated")
    }

    fn live(id: &str, renamed: bool, replaced: Option<Route>) -> Up {
        Up::Live { id: Part::from(id), renamed, replaced }
    }

    fn route(key: PeerKey, epoch: Epoch, state: RouteState) -> Route {
        Route { key, epoch, state }
    }

    /// Rules: MQ-206, MQ-213.
    #[test]
    fn an_announced_id_leads_to_its_peer() {
        let mut table = RoutingTable::new();
        assert_eq!(table.up(key(3), epoch(1), b"X", false, none), live("X", false, None));
        assert_eq!(table.route(b"X"), Some(route(key(3), epoch(1), RouteState::Live)));
        assert_eq!(table.id(key(3)), Some(&Part::from("X")));
        assert_eq!((table.route(b"Y"), table.id(key(2)), table.routes.len()), (None, None, 1));
    }

    /// Rules: MQ-206.
    #[test]
    fn an_anonymous_peer_gets_an_id_that_is_not_in_use() {
        let mut table = RoutingTable::new();
        let mut ids = ["a", "a", "b"].into_iter();
        let mut generate = || Part::from(ids.next().unwrap());
        assert_eq!(table.up(key(0), epoch(1), b"", false, &mut generate), live("a", false, None));
        assert_eq!(table.up(key(1), epoch(2), b"", false, &mut generate), live("b", false, None));
        let holder = route(key(0), epoch(1), RouteState::Live);
        let same = table.up(key(2), epoch(3), b"", true, || Part::from("a"));
        assert_eq!(same, Up::Refused { holder, renamed: false }, "a generated id never takes one over");
    }

    /// Rules: MQ-207.
    #[test]
    fn a_reserved_id_stays_whatever_the_peer_announces() {
        let mut table = RoutingTable::new();
        assert_eq!(table.reserve("X".into(), key(0)), Claim::Reserved);
        assert_eq!(table.route(b"X").map(|route| route.state), Some(RouteState::Pending));
        assert_eq!(table.reserve("X".into(), key(1)), Claim::InUse);
        for (number, identity) in [(1, "Y"), (2, ""), (3, "X")] {
            let up = table.up(key(0), epoch(number), identity.as_bytes(), false, none);
            assert_eq!(up, live("X", false, None));
            assert_eq!(table.down(key(0), epoch(number), true), Down::Kept);
            assert_eq!(table.route(b"X").map(|route| route.state), Some(RouteState::Pending));
        }
        let holder = route(key(0), epoch(3), RouteState::Pending);
        let newcomer = table.up(key(1), epoch(4), b"X", false, none);
        assert_eq!(newcomer, Up::Refused { holder, renamed: false });
        assert_eq!(table.forget(key(0)), Some("X".into()));
        assert_eq!(table.up(key(1), epoch(5), b"X", false, none), live("X", false, None));
    }

    /// Rules: MQ-208.
    #[test]
    fn a_newcomer_is_refused_while_the_id_is_live() {
        let mut table = RoutingTable::new();
        table.up(key(0), epoch(1), b"X", false, none);
        let holder = route(key(0), epoch(1), RouteState::Live);
        assert_eq!(table.up(key(1), epoch(2), b"X", false, none), Up::Refused { holder, renamed: false });
        assert_eq!(table.route(b"X"), Some(holder));
        assert_eq!(table.down(key(0), epoch(1), false), Down::Removed);
        assert_eq!(table.up(key(1), epoch(3), b"X", false, none), live("X", false, None));
    }

    /// Rules: MQ-208.
    #[test]
    fn a_dead_connection_does_not_block_its_id() {
        let mut table = RoutingTable::new();
        table.up(key(0), epoch(1), b"X", false, none);
        assert_eq!(table.down(key(0), epoch(1), true), Down::Kept);
        let replaced = route(key(0), epoch(1), RouteState::Pending);
        assert_eq!(table.up(key(1), epoch(2), b"X", false, none), live("X", false, Some(replaced)));
        assert_eq!(table.id(key(0)), None);
    }

    /// Rules: MQ-209.
    #[test]
    fn with_handover_the_newcomer_takes_the_id() {
        let mut table = RoutingTable::new();
        table.up(key(0), epoch(1), b"X", true, none);
        let old = route(key(0), epoch(1), RouteState::Live);
        assert_eq!(table.up(key(1), epoch(2), b"X", true, none), live("X", false, Some(old)));
        // The end of the old connection does not touch the new one.
        assert_eq!(table.down(key(0), epoch(1), false), Down::Ignored);
        assert_eq!(table.route(b"X"), Some(route(key(1), epoch(2), RouteState::Live)));
    }

    /// Rules: MQ-210.
    #[test]
    fn a_peer_that_returns_under_another_name_is_renamed() {
        let mut table = RoutingTable::new();
        table.up(key(0), epoch(1), b"X", false, none);
        table.down(key(0), epoch(1), true);
        assert_eq!(table.up(key(0), epoch(2), b"Y", false, none), live("Y", true, None));
        assert_eq!((table.route(b"X"), table.routes.len()), (None, 1));
        // And when that name is taken, it has none.
        table.up(key(1), epoch(3), b"Z", false, none);
        let holder = route(key(1), epoch(3), RouteState::Live);
        assert_eq!(table.up(key(0), epoch(4), b"Z", false, none), Up::Refused { holder, renamed: true });
        assert_eq!(table.id(key(0)), None);
    }

    /// What is asked before is what is answered then.
    ///
    /// Rules: MQ-207, MQ-208, MQ-209.
    #[test]
    fn who_would_be_refused_is_known_before() {
        let (mut refused, mut now) = (0, Epoch::ZERO);
        for number in 0..2592_u32 {
            let mut table = RoutingTable::new();
            let mut bits = number;
            let mut pick = |of: u32| {
                let picked = bits % of;
                bits /= of;
                picked
            };
            for index in 0..2 {
                let id = ["X", "Y", "Z"][pick(3) as usize];
                if pick(2) == 0 {
                    table.reserve(id.into(), key(index));
                } else {
                    now = now.next();
                    table.up(key(index), now, id.as_bytes(), false, none);
                    table.down(key(index), now, pick(2) == 0);
                }
            }
            now = now.next();
            let (key, identity, handover) = (key(pick(3)), ["X", "Y", ""][pick(3) as usize], pick(2) == 0);
            let expected = table.refuses(key, identity.as_bytes(), handover);
            let up = table.up(key, now, identity.as_bytes(), handover, || Part::from("new"));
            assert_eq!(matches!(up, Up::Refused { .. }), expected, "{number}");
            refused += u32::from(expected);
        }
        assert!((100..2000).contains(&refused), "{refused}");
    }

    /// Rules: MQ-068, MQ-069.
    #[test]
    fn late_news_of_a_dead_connection_changes_nothing() {
        let mut table = RoutingTable::new();
        table.up(key(0), epoch(1), b"X", false, none);
        assert_eq!(table.up(key(0), epoch(2), b"X", false, none), live("X", false, None));
        assert_eq!(table.down(key(0), epoch(1), false), Down::Ignored);
        assert_eq!(table.up(key(0), epoch(1), b"X", false, none), Up::Stale);
        assert_eq!(table.route(b"X"), Some(route(key(0), epoch(2), RouteState::Live)));
        assert_eq!(table.down(key(7), epoch(1), false), Down::Ignored);
    }

    /// Rules: MQ-069.
    #[test]
    fn nothing_grows_with_the_number_of_reconnects() {
        let mut table = RoutingTable::new();
        let mut now = Epoch::ZERO;
        for number in 0..100_000_u32 {
            now = now.next();
            let identity = format!("peer {}", number % 7);
            assert!(matches!(
                table.up(key(number % 3), now, identity.as_bytes(), true, none),
                Up::Live { .. }
            ));
            table.down(key(number % 3), now, number % 2 == 0);
        }
        assert!(table.routes.len() <= 3 && table.names.len() <= 3);
        assert!(table.routes.capacity() < 64);
        for (id, route) in table.iter() {
            assert_eq!(table.id(route.key), Some(id));
        }
    }
}
