//! Table 15.2 against an oracle: every combination of the fields of an attach request in several situations.
//!
//! The oracle is the table itself: a list of (condition, code, text) of which the first that holds decides.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod driver_support;

use driver_support::*;
use tidegate_sbe::Open;
use tidegate_sbe::driver::{ResponseCode, Role, ShmAttachRequest};

/// What the request asks for, in the words of the table.
#[derive(Debug, Clone, Copy)]
struct Case {
    situation: Situation,
    role: u8,
    mode: Option<u8>,
    layout: u32,
    pages: u8,
    stream: Stream,
    node: Node,
    client: Client,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Situation {
    /// Nobody produces on the configured stream.
    Free,
    /// Client 1 does.
    Produced,
    /// As `Free`, and dynamic streams are off.
    Static,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stream {
    Configured,
    UnknownOutside,
    UnknownInside,
    Allocate,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Node {
    Any,
    Free,
    Taken,
    Cooling,
    OutOfRange,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Client {
    Zero,
    New,
    Attached,
}

const TAKEN: u32 = 1;
const COOLING: u32 = 2;
const ATTACHED: u32 = 900;

type Row = (fn(&Case) -> bool, ResponseCode, &'static str);

/// Rows 3 to 20 as far as this set-up can reach them; its base directory is on tmpfs and its profile has pools.
const TABLE: [Row; 13] = [
    (|case| !matches!(case.role, 1 | 2), ResponseCode::InvalidParams, "invalid role"),
    (|case| case.client == Client::Zero, ResponseCode::InvalidParams, "client_id must be non-zero"),
    (|case| !matches!(case.mode, None | Some(1 | 2)), ResponseCode::Unsupported, "unsupported publish_mode"),
    (|case| case.pages > 2, ResponseCode::InvalidParams, "invalid hugepages policy"),
    (|case| case.client == Client::Attached, ResponseCode::Rejected, "client_id already attached"),
    (|case| !matches!(case.layout, 0 | 1), ResponseCode::Rejected, "layout version mismatch"),
    (
        |case| case.stream != Stream::Configured && matches!(case.mode, None | Some(1)),
        ResponseCode::Rejected,
        "stream not provisioned",
    ),
    (
        |case| case.stream != Stream::Configured && case.situation == Situation::Static,
        ResponseCode::Rejected,
        "stream not provisioned",
    ),
    (
        |case| case.role == 1 && case.stream == Stream::Configured && case.situation == Situation::Produced,
        ResponseCode::Rejected,
        "producer already attached",
    ),
    (|case| case.pages == 2, ResponseCode::Rejected, "hugepages not available"),
    (|case| case.node == Node::Taken, ResponseCode::Rejected, "desired node_id unavailable"),
    (|case| case.node == Node::Cooling, ResponseCode::Rejected, "desired node_id unavailable"),
    (|case| case.node == Node::OutOfRange, ResponseCode::Rejected, "desired node_id unavailable"),
];

fn expected(case: &Case) -> (ResponseCode, &'static str) {
    let row = TABLE.iter().find(|(holds, _, _)| holds(case));
    row.map_or((ResponseCode::Ok, ""), |(_, code, text)| (*code, *text))
}

/// Client 900 consumes with node id 1, node id 2 has just been given back, client 1 produces if the case says so.
fn arrange(situation: Situation) -> Rig {
    let mut rig = Rig::with(|config| config.policies.allow_dynamic_streams = situation != Situation::Static);
    assert_eq!(rig.granted(ATTACHED, Role::Consumer, CAM).node, Some(TAKEN));
    let resting = rig.granted(901, Role::Consumer, CAM);
    assert_eq!(resting.node, Some(COOLING));
    if situation == Situation::Produced {
        rig.granted(1, Role::Producer, CAM);
    }
    rig.detach(&resting, 901, Role::Consumer);
    rig
}

fn build(case: &Case, correlation: i64) -> ShmAttachRequest {
    ShmAttachRequest {
        correlation_id: correlation,
        stream_id: match case.stream {
            Stream::Configured => CAM,
            Stream::UnknownOutside => 555,
            Stream::UnknownInside => 20_007,
            Stream::Allocate => 0,
        },
        client_id: match case.client {
            Client::Zero => 0,
            Client::New => 42,
            Client::Attached => ATTACHED,
        },
        role: Open::from_raw(case.role),
        expected_layout_version: case.layout,
        publish_mode: case.mode.map(Open::from_raw),
        require_hugepages: Open::from_raw(case.pages),
        desired_node_id: match case.node {
            Node::Any => None,
            Node::Free => Some(700),
            Node::Taken => Some(TAKEN),
            Node::Cooling => Some(COOLING),
            Node::OutOfRange => Some(1024),
        },
    }
}

/// Every combination: 11520 in each situation.
fn cases(situation: Situation) -> Vec<Case> {
    let mut cases = Vec::new();
    for role in [0, 1, 2, 3] {
        for mode in [None, Some(1), Some(2), Some(9)] {
            for layout in [0, 1, 2] {
                for pages in [0, 1, 2, 3] {
                    for stream in
                        [Stream::Configured, Stream::UnknownOutside, Stream::UnknownInside, Stream::Allocate]
                    {
                        for node in [Node::Any, Node::Free, Node::Taken, Node::Cooling, Node::OutOfRange] {
                            for client in [Client::Zero, Client::New, Client::Attached] {
                                cases.push(Case {
                                    situation,
                                    role,
                                    mode,
                                    layout,
                                    pages,
                                    stream,
                                    node,
                                    client,
                                });
                            }
                        }
                    }
                }
            }
        }
    }
    cases
}

/// Rules: TP-239, TP-240, TP-241, TP-242, TP-243, TP-245, TP-246, TP-275.
#[test]
fn every_combination_is_answered_as_the_table_says() {
    for situation in [Situation::Free, Situation::Produced, Situation::Static] {
        let mut rig = arrange(situation);
        let mut files = rig.files();
        let mut granted = 0;
        for (number, case) in (1_000..).zip(cases(situation)) {
            let before = (rig.driver.snapshot(rig.now).leases, rig.driver.snapshot(rig.now).streams);
            let answer = rig.ask(&build(&case, number));
            assert_eq!(answer.correlation, number);
            assert_eq!((answer.code, answer.text.as_str()), expected(&case), "{case:?}");
            if answer.code != ResponseCode::Ok {
                assert!(answer.lease.is_none() && answer.node.is_none() && answer.epoch.is_none());
                assert!(answer.pools.is_empty() && answer.header_uri.is_empty());
                let after = (rig.driver.snapshot(rig.now).leases, rig.driver.snapshot(rig.now).streams);
                assert_eq!(after, before, "{case:?}");
                assert_eq!(rig.files(), files, "{case:?}");
                continue;
            }
            granted += 1;
            let stream = answer.stream.unwrap();
            match case.stream {
                Stream::Configured => assert_eq!(stream, CAM),
                Stream::UnknownInside => assert_eq!(stream, 20_007),
                Stream::UnknownOutside | Stream::Allocate => assert_eq!(stream, 20_000),
            }
            match case.node {
                Node::Free => assert_eq!(answer.node, Some(700)),
                _ => assert!(![Some(TAKEN), Some(COOLING), None].contains(&answer.node)),
            }
            assert_eq!((answer.layout, answer.slot_bytes, answer.pools.len()), (Some(1), Some(256), 2));
            assert!(path_of(&answer.header_uri).exists());
            rig = arrange(situation);
            files = rig.files();
        }
        let roles_that_can = if situation == Situation::Produced { 1 } else { 2 };
        // mode x layout x pages x node on the configured stream, and mode 2 on the three others.
        let on_configured = roles_that_can * 3 * 2 * 2 * 2;
        let on_new = if situation == Situation::Static { 0 } else { 2 * 3 * 2 * 2 * 2 };
        assert_eq!(granted, on_configured + on_new, "the oracle grants what the table grants");
    }
}
