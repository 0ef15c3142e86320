//! The matrix of chapter 16, one test for each cell.

use tidegate_mq::SocketType;

use crate::{
    cell::{Cell, Transport},
    security::Mechanism,
};

/// Releases that speak protocol 3.1.
const NEW: &[&str] = &["4.3.5", "4.3.4"];
/// Releases that speak protocol 3.0.
const OLD: &[&str] = &["4.3.2", "4.2.5", "4.1.6"];

/// A column of the matrix: which rows have a cell in it, and what the cell is run with.
macro_rules! column {
    ($column:ident, $transport:ident, $mechanism:ident, $versions:ident: $($row:ident $ours:ident $theirs:ident,)+) => {
        mod $column {
            use super::*;

            $(
                /// Rules: MQ-507, MQ-538, MQ-539.
                #[test]
                fn $row() {
                    Cell {
                        ours: SocketType::$ours,
                        theirs: SocketType::$theirs,
                        transport: Transport::$transport,
                        mechanism: Mechanism::$mechanism,
                    }
                    .run($versions);
                }
            )+
        }
    };
}

column! { tcp_null, Tcp, Null, NEW:
    req_rep Req Rep,
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

column! { tcp_plain, Tcp, Plain, NEW:
    req_rep Req Rep,
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

column! { tcp_curve, Tcp, Curve, NEW:
    req_rep Req Rep,
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

column! { ipc_path, IpcPath, Null, NEW:
    req_rep Req Rep,
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

column! { ipc_abstract, IpcAbstract, Null, NEW:
    req_rep Req Rep,
    rep_req Rep Req,
    dealer_router Dealer Router,
    router_dealer Router Dealer,
    pub_sub Pub Sub,
    sub_pub Sub Pub,
    push_pull Push Pull,
    pull_push Pull Push,
}

column! { ipc_curve, IpcPath, Curve, NEW:
    req_rep Req Rep,
    rep_req Rep Req,
    dealer_router Dealer Router,
    router_dealer Router Dealer,
    pub_sub Pub Sub,
    sub_pub Sub Pub,
    push_pull Push Pull,
    pull_push Pull Push,
}

column! { old_peer, Tcp, Null, OLD:
    req_rep Req Rep,
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
    xpub_xsub XPub XSub,
    xsub_xpub XSub XPub,
    push_pull Push Pull,
    pull_push Pull Push,
}
