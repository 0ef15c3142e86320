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

/// What every column has beside the cell that its function shows.
macro_rules! usual {
    ($column:ident) => {
        cells! { $column,
            req_rep Req Rep,
            rep_req Rep Req,
            router_dealer Router Dealer,
            pub_sub Pub Sub,
            push_pull Push Pull,
            pull_push Pull Push,
        }
    };
}

/// Types that talk to more than one type.
macro_rules! mixed {
    ($column:ident) => {
        cells! { $column,
            req_router Req Router,
            router_req Router Req,
            dealer_rep Dealer Rep,
            rep_dealer Rep Dealer,
            pub_xsub Pub XSub,
            xsub_pub XSub Pub,
            xpub_sub XPub Sub,
            sub_xpub Sub XPub,
        }
    };
}

/// Types that stand between others.
macro_rules! between {
    ($column:ident) => {
        cells! { $column,
            xpub_xsub XPub XSub,
            xsub_xpub XSub XPub,
        }
    };
}

/// Types that talk to their own.
macro_rules! alike {
    ($column:ident) => {
        cells! { $column,
            dealer_dealer Dealer Dealer,
            router_router Router Router,
        }
    };
}

mod tcp_null {
    use super::*;

    /// Rules: MQ-129, MQ-507, MQ-004.
    #[test]
    fn dealer_router() {
        TCP_NULL.run(SocketType::Dealer, SocketType::Router);
    }

    usual!(TCP_NULL);
    mixed!(TCP_NULL);
    between!(TCP_NULL);
    alike!(TCP_NULL);
    cells! { TCP_NULL, sub_pub Sub Pub, pair_pair Pair Pair, }
}

mod tcp_plain {
    use super::*;

    /// Rules: MQ-133, MQ-507, MQ-538, MQ-004.
    #[test]
    fn dealer_router() {
        TCP_PLAIN.run(SocketType::Dealer, SocketType::Router);
    }

    usual!(TCP_PLAIN);
    mixed!(TCP_PLAIN);
    cells! { TCP_PLAIN, sub_pub Sub Pub, pair_pair Pair Pair, }
}

mod tcp_curve {
    use super::*;

    /// Rules: MQ-143, MQ-145, MQ-507, MQ-538, MQ-004.
    #[test]
    fn dealer_router() {
        TCP_CURVE.run(SocketType::Dealer, SocketType::Router);
    }

    usual!(TCP_CURVE);
    mixed!(TCP_CURVE);
    between!(TCP_CURVE);
    alike!(TCP_CURVE);
    cells! { TCP_CURVE, sub_pub Sub Pub, pair_pair Pair Pair, }
}

mod ipc_path {
    use super::*;

    /// Rules: MQ-507, MQ-004.
    #[test]
    fn dealer_router() {
        IPC_PATH.run(SocketType::Dealer, SocketType::Router);
    }

    usual!(IPC_PATH);
    mixed!(IPC_PATH);
    between!(IPC_PATH);
    alike!(IPC_PATH);
    cells! { IPC_PATH, sub_pub Sub Pub, pair_pair Pair Pair, }
}

mod ipc_abstract {
    use super::*;

    /// Rules: MQ-507, MQ-004.
    #[test]
    fn dealer_router() {
        IPC_ABSTRACT.run(SocketType::Dealer, SocketType::Router);
    }

    usual!(IPC_ABSTRACT);
    cells! { IPC_ABSTRACT, sub_pub Sub Pub, }
}

mod ipc_curve {
    use super::*;

    /// Rules: MQ-507, MQ-004.
    #[test]
    fn dealer_router() {
        IPC_CURVE.run(SocketType::Dealer, SocketType::Router);
    }

    usual!(IPC_CURVE);
    cells! { IPC_CURVE, sub_pub Sub Pub, }
}

mod old_peer {
    use super::*;

    /// Rules: MQ-091, MQ-092, MQ-507, MQ-004.
    #[test]
    fn sub_pub() {
        OLD_PEER.run(SocketType::Sub, SocketType::Pub);
    }

    usual!(OLD_PEER);
    mixed!(OLD_PEER);
    between!(OLD_PEER);
    cells! { OLD_PEER, dealer_router Dealer Router, }
}
