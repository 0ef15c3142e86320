//! The matrix of chapter 16, one test for each cell.
//!
//! The macro makes most of them. One of each column is a function that can be seen to cite what the column shows.

use tidegate_mq::SocketType;

use crate::{
    cell::{Cell, Transport},
    security::Mechanism,
};

/// Releases that speak protocol 3.1.
const NEW: &[&str] = &["4.3.5", "4.3.4"];
/// Releases that speak protocol 3.0.
const OLD: &[&str] = &["4.3.2", "4.2.5", "4.1.6"];

/// What the cells of a column have in common.
#[derive(Clone, Copy)]
struct Column {
    transport: Transport,
    mechanism: Mechanism,
    versions: &'static [&'static str],
}

impl Column {
    const fn new(transport: Transport, mechanism: Mechanism, versions: &'static [&'static str]) -> Self {
        Self { transport, mechanism, versions }
    }

    fn run(self, ours: SocketType, theirs: SocketType) {
        let Self { transport, mechanism, versions } = self;
        Cell { ours, theirs, transport, mechanism }.run(versions);
    }
}

const TCP_NULL: Column = Column::new(Transport::Tcp, Mechanism::Null, NEW);
const TCP_PLAIN: Column = Column::new(Transport::Tcp, Mechanism::Plain, NEW);
const TCP_CURVE: Column = Column::new(Transport::Tcp, Mechanism::Curve, NEW);
const IPC_PATH: Column = Column::new(Transport::IpcPath, Mechanism::Null, NEW);
const IPC_ABSTRACT: Column = Column::new(Transport::IpcAbstract, Mechanism::Null, NEW);
const IPC_CURVE: Column = Column::new(Transport::IpcPath, Mechanism::Curve, NEW);
const OLD_PEER: Column = Column::new(Transport::Tcp, Mechanism::Null, OLD);

macro_rules! cells {
    ($column:ident, $($row:ident $ours:ident $theirs:ident,)+) => {
        $(
            #[test]
            fn $row() {
                $column.run(SocketType::$ours, SocketType::$theirs);
            }
        )+
    };
}

mod tcp_null {
    use super::*;

    /// Rules: MQ-129, MQ-507.
    #[test]
    fn dealer_router() {
        TCP_NULL.run(SocketType::Dealer, SocketType::Router);
    }

    cells! { TCP_NULL,
        req_rep Req Rep,
        rep_req Rep Req,
        req_router Req Router,
        router_req Router Req,
        dealer_rep Dealer Rep,
        rep_dealer Rep Dealer,
        router_dealer Router Dealer,
        dealer_dealer Dealer Dealer,
        router_router Router Router,
        pub_sub Pub Sub,
        sub_pub Sub Pub,
        pub_xsub Pub XSub,
        xsub_pub XSub Pub,
        xpub_sub XPub Sub,
        sub_xpub Sub XPub,
        xpub_xsub XPub XSub,
        xsub_xpub XSub XPub,
        push_pull Push Pull,
        pull_push Pull Push,
        pair_pair Pair Pair,
    }
}

mod tcp_plain {
    use super::*;

    /// Rules: MQ-133, MQ-507, MQ-538.
    #[test]
    fn req_rep() {
        TCP_PLAIN.run(SocketType::Req, SocketType::Rep);
    }

    cells! { TCP_PLAIN,
        rep_req Rep Req,
        req_router Req Router,
        router_req Router Req,
        dealer_rep Dealer Rep,
        rep_dealer Rep Dealer,
        dealer_router Dealer Router,
        router_dealer Router Dealer,
        pub_sub Pub Sub,
        sub_pub Sub Pub,
        pub_xsub Pub XSub,
        xsub_pub XSub Pub,
        xpub_sub XPub Sub,
        sub_xpub Sub XPub,
        push_pull Push Pull,
        pull_push Pull Push,
        pair_pair Pair Pair,
    }
}

mod tcp_curve {
    use super::*;

    /// Rules: MQ-143, MQ-145, MQ-507, MQ-538.
    #[test]
    fn req_rep() {
        TCP_CURVE.run(SocketType::Req, SocketType::Rep);
    }

    cells! { TCP_CURVE,
        rep_req Rep Req,
        req_router Req Router,
        router_req Router Req,
        dealer_rep Dealer Rep,
        rep_dealer Rep Dealer,
        dealer_router Dealer Router,
        router_dealer Router Dealer,
        dealer_dealer Dealer Dealer,
        router_router Router Router,
        pub_sub Pub Sub,
        sub_pub Sub Pub,
        pub_xsub Pub XSub,
        xsub_pub XSub Pub,
        xpub_sub XPub Sub,
        sub_xpub Sub XPub,
        xpub_xsub XPub XSub,
        xsub_xpub XSub XPub,
        push_pull Push Pull,
        pull_push Pull Push,
        pair_pair Pair Pair,
    }
}

mod ipc_path {
    use super::*;

    /// Rules: MQ-507.
    #[test]
    fn dealer_router() {
        IPC_PATH.run(SocketType::Dealer, SocketType::Router);
    }

    cells! { IPC_PATH,
        req_rep Req Rep,
        rep_req Rep Req,
        req_router Req Router,
        router_req Router Req,
        dealer_rep Dealer Rep,
        rep_dealer Rep Dealer,
        router_dealer Router Dealer,
        dealer_dealer Dealer Dealer,
        router_router Router Router,
        pub_sub Pub Sub,
        sub_pub Sub Pub,
        pub_xsub Pub XSub,
        xsub_pub XSub Pub,
        xpub_sub XPub Sub,
        sub_xpub Sub XPub,
        xpub_xsub XPub XSub,
        xsub_xpub XSub XPub,
        push_pull Push Pull,
        pull_push Pull Push,
        pair_pair Pair Pair,
    }
}

mod ipc_abstract {
    use super::*;

    /// Rules: MQ-507.
    #[test]
    fn dealer_router() {
        IPC_ABSTRACT.run(SocketType::Dealer, SocketType::Router);
    }

    cells! { IPC_ABSTRACT,
        req_rep Req Rep,
        rep_req Rep Req,
        router_dealer Router Dealer,
        pub_sub Pub Sub,
        sub_pub Sub Pub,
        push_pull Push Pull,
        pull_push Pull Push,
    }
}

mod ipc_curve {
    use super::*;

    /// Rules: MQ-507.
    #[test]
    fn dealer_router() {
        IPC_CURVE.run(SocketType::Dealer, SocketType::Router);
    }

    cells! { IPC_CURVE,
        req_rep Req Rep,
        rep_req Rep Req,
        router_dealer Router Dealer,
        pub_sub Pub Sub,
        sub_pub Sub Pub,
        push_pull Push Pull,
        pull_push Pull Push,
    }
}

mod old_peer {
    use super::*;

    /// Rules: MQ-091, MQ-092, MQ-507.
    #[test]
    fn sub_pub() {
        OLD_PEER.run(SocketType::Sub, SocketType::Pub);
    }

    cells! { OLD_PEER,
        req_rep Req Rep,
        rep_req Rep Req,
        req_router Req Router,
        router_req Router Req,
        dealer_rep Dealer Rep,
        rep_dealer Rep Dealer,
        dealer_router Dealer Router,
        router_dealer Router Dealer,
        pub_sub Pub Sub,
        pub_xsub Pub XSub,
        xsub_pub XSub Pub,
        xpub_sub XPub Sub,
        sub_xpub Sub XPub,
        xpub_xsub XPub XSub,
        xsub_xpub XSub XPub,
        push_pull Push Pull,
        pull_push Pull Push,
    }
}
