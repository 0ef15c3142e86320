//! Socket types: their names on the wire and which may talk to which (§4.2).

/// Type of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketType {
    /// Asks, and waits for the answer.
    Req,
    /// Answers.
    Rep,
    /// Asks and answers freely, peers in turn.
    Dealer,
    /// Addresses peers by routing id.
    Router,
    /// Publishes.
    Pub,
    /// Subscribes.
    Sub,
    /// Publishes and sees the subscriptions.
    XPub,
    /// Subscribes by messages.
    XSub,
    /// Hands messages to peers in turn.
    Push,
    /// Takes messages from peers in turn.
    Pull,
    /// Talks to one peer.
    Pair,
}

impl SocketType {
    /// All types.
    pub const ALL: [Self; 11] = [
        Self::Req,
        Self::Rep,
        Self::Dealer,
        Self::Router,
        Self::Pub,
        Self::Sub,
        Self::XPub,
        Self::XSub,
        Self::Push,
        Self::Pull,
        Self::Pair,
    ];

    /// The value of the `Socket-Type` property.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Req => "REQ",
            Self::Rep => "REP",
            Self::Dealer => "DEALER",
            Self::Router => "ROUTER",
            Self::Pub => "PUB",
            Self::Sub => "SUB",
            Self::XPub => "XPUB",
            Self::XSub => "XSUB",
            Self::Push => "PUSH",
            Self::Pull => "PULL",
            Self::Pair => "PAIR",
        }
    }

    /// The type of this name, spelled exactly.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().as_bytes() == name)
    }

    /// Whether a socket of this type may talk to one of type `peer` (MQ-123).
    pub const fn accepts(self, peer: Self) -> bool {
        match self {
            Self::Req => matches!(peer, Self::Rep | Self::Router),
            Self::Rep => matches!(peer, Self::Req | Self::Dealer),
            Self::Dealer => matches!(peer, Self::Rep | Self::Dealer | Self::Router),
            Self::Router => matches!(peer, Self::Req | Self::Dealer | Self::Router),
            Self::Pub | Self::XPub => matches!(peer, Self::Sub | Self::XSub),
            Self::Sub | Self::XSub => matches!(peer, Self::Pub | Self::XPub),
            Self::Push => matches!(peer, Self::Pull),
            Self::Pull => matches!(peer, Self::Push),
            Self::Pair => matches!(peer, Self::Pair),
        }
    }

    /// Whether subscriptions of peers are taken.
    pub const fn takes_subscriptions(self) -> bool {
        matches!(self, Self::Pub | Self::XPub)
    }

    /// Whether the type announces its Identity (MQ-116).
    pub const fn announces_identity(self) -> bool {
        matches!(self, Self::Req | Self::Dealer | Self::Router)
    }
}
