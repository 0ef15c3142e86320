//! In-process links: each has one pipe at either end, and ends with the socket that was bound.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use tidegate_mq::{Context, Dealer, Error, Options, Pair, Pull, Push, Router, monitor::EventKind};

use crate::{
    options,
    support::{PATIENCE, event, until, wait},
    text,
};

fn named(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = options();
    options.set_raw(5, b"me").unwrap();
    change(&mut options);
    options
}

/// A peer that was displaced by one of the same name is linked once when another socket takes the name.
///
/// Rules: MQ-209, MQ-272.
#[test]
fn who_waits_for_a_name_is_linked_once() {
    let context = Context::new();
    let mut handing = options();
    handing.router_handover = true;
    let router = Router::with_options(&context, handing).unwrap();
    router.bind_blocking("inproc://taken").unwrap();
    let [first, second] = [(); 2].map(|()| {
        let dealer = Dealer::with_options(&context, named(|_| {})).unwrap();
        dealer.connect("inproc://taken").unwrap();
        dealer.send_blocking("hello").unwrap();
        assert_eq!(text(&router.recv_blocking().unwrap()), "me|hello");
        dealer
    });
    drop(second);
    wait(router.close(Some(Duration::ZERO)));
    let next = Dealer::with_options(&context, options()).unwrap();
    next.bind_blocking("inproc://taken").unwrap();
    assert_eq!(next.peers().len(), 1);
    for number in 0..4 {
        next.send_blocking(number.to_string()).unwrap();
        assert_eq!(text(&first.recv_blocking().unwrap()), number.to_string());
    }
}

/// Links that outlived their name end with the socket, and whoever connected waits for the name again.
///
/// Rules: MQ-272.
#[test]
fn links_that_outlived_their_name_end_with_the_socket() {
    let context = Context::new();
    let pull = Pull::with_options(&context, options()).unwrap();
    pull.bind_blocking("inproc://again").unwrap();
    let push = Push::with_options(&context, options()).unwrap();
    push.connect("inproc://again").unwrap();
    pull.unbind("inproc://again").unwrap();
    push.send_blocking("the link is there").unwrap();
    assert_eq!(text(&pull.recv_blocking().unwrap()), "the link is there");
    wait(pull.close(Some(Duration::ZERO)));
    push.send_blocking("for the next").unwrap();
    let next = Pull::with_options(&context, options()).unwrap();
    next.bind_blocking("inproc://again").unwrap();
    assert_eq!(text(&next.recv_blocking().unwrap()), "for the next");
}

/// Who finds no place at the far socket, or at its own, is told so and tries again until there is one, whoever had it.
///
/// Rules: MQ-208, MQ-245, MQ-271.
#[test]
fn who_is_turned_away_tries_again() {
    let context = Context::new();
    let router = Router::with_options(&context, options()).unwrap();
    let far = router.bind_blocking("tcp://127.0.0.1:*").unwrap();
    ["inproc://first", "inproc://second"].iter().for_each(|name| drop(router.bind_blocking(name).unwrap()));
    let monitor = router.monitor();
    let mut holder = Dealer::with_options(&context, named(|_| ())).unwrap();
    wait(holder.connect_ready(&far, PATIENCE)).unwrap();
    for next in ["inproc://first", "inproc://second"] {
        let waits = Dealer::with_options(&context, named(|_| ())).unwrap();
        waits.connect(next).unwrap();
        event(&monitor, |kind| matches!(kind, EventKind::RoutingIdInUse));
        wait(holder.close(Some(Duration::ZERO)));
        wait(waits.connect_ready(next, PATIENCE)).unwrap();
        holder = waits;
    }

    let bound = ["inproc://one", "inproc://two"].map(|name| {
        let dealer = Dealer::with_options(&context, named(|_| ())).unwrap();
        dealer.bind_blocking(name).unwrap();
        dealer
    });
    let router = Router::with_options(&context, options()).unwrap();
    let monitor = router.monitor();
    wait(router.connect_ready("inproc://one", PATIENCE)).unwrap();
    router.connect("inproc://two").unwrap();
    event(&monitor, |kind| matches!(kind, EventKind::RoutingIdInUse));
    router.disconnect("inproc://one").unwrap();
    wait(router.connect_ready("inproc://two", PATIENCE)).unwrap();
    bound[1].try_send("from two").unwrap();
    assert_eq!(text(&router.recv_blocking().unwrap()), "me|from two");

    let partners = ["inproc://a", "inproc://b"].map(|name| {
        let pair = Pair::with_options(&context, options()).unwrap();
        pair.bind_blocking(name).unwrap();
        pair
    });
    let pair = Pair::with_options(&context, options()).unwrap();
    let monitor = pair.monitor();
    wait(pair.connect_ready("inproc://a", PATIENCE)).unwrap();
    pair.connect("inproc://b").unwrap();
    event(&monitor, |kind| matches!(kind, EventKind::PairBusy));
    pair.disconnect("inproc://a").unwrap();
    pair.send_blocking("for b").unwrap();
    assert_eq!(text(&partners[1].recv_blocking().unwrap()), "for b");
}

/// What a ROUTER has unread of a peer stays under its name when another one takes the place; of that one it gets as much as
/// the limits allow, as of the first.
///
/// Rules: MQ-210, MQ-270, MQ-271.
#[test]
fn who_returns_under_another_name_is_heard() {
    for number in [10, 11] {
        let context = Context::new();
        let mut narrow = options();
        narrow.rcvhwm = 10;
        let router = Router::with_options(&context, narrow).unwrap();
        router.connect("inproc://a").unwrap();
        let dealer = Dealer::with_options(&context, options()).unwrap();
        dealer.bind_blocking("inproc://a").unwrap();
        dealer.try_send("unread").unwrap();
        wait(dealer.close(Some(Duration::ZERO)));
        let next = Dealer::with_options(&context, named(|_| ())).unwrap();
        next.bind_blocking("inproc://a").unwrap();
        (0..number).for_each(|number| next.try_send(number.to_string()).unwrap());
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            while let Ok(message) = router.recv_blocking() {
                let _ = tell.send(text(&message));
            }
        });
        let heard = || told.recv_timeout(PATIENCE / 2).expect("the socket hangs");
        assert!(heard().ends_with("|unread"));
        (0..number).for_each(|number| assert_eq!(heard(), format!("me|{number}")));
        next.try_send("one more").unwrap();
        assert_eq!(heard(), "me|one more");
    }
}

/// Who is turned away tries again in its own time, whoever else waits; without `reconnect_ivl` it does not.
///
/// Rules: MQ-245, MQ-271, MQ-277.
#[test]
fn who_is_turned_away_tries_again_in_its_own_time() {
    let context = Context::new();
    let pair = Pair::with_options(&context, options()).unwrap();
    let far = pair.bind_blocking("tcp://127.0.0.1:*").unwrap();
    pair.bind_blocking("inproc://place").unwrap();
    let monitor = pair.monitor();
    let partner = Pair::with_options(&context, options()).unwrap();
    partner.connect(&far).unwrap();
    event(&monitor, |kind| matches!(kind, EventKind::HandshakeSucceeded { .. }));
    let every = [None, Some(Duration::from_secs(3600)), Some(Duration::from_millis(20))];
    let waiting = every.map(|interval| {
        let mut options = options();
        (options.reconnect_ivl, options.linger) = (interval, Some(Duration::ZERO));
        let waits = Pair::with_options(&context, options).unwrap();
        waits.connect("inproc://place").unwrap();
        waits.try_send(format!("{interval:?}")).unwrap();
        event(&monitor, |kind| matches!(kind, EventKind::PairBusy));
        waits
    });
    wait(partner.close(Some(Duration::ZERO)));
    assert_eq!(text(&pair.recv_blocking().unwrap()), "Some(20ms)");
    drop(waiting);
}

/// A socket hears nothing of a peer that has no place for it, however often that tries.
///
/// Rules: MQ-208, MQ-211, MQ-277.
#[test]
fn who_has_no_place_for_a_peer_does_not_come_to_it() {
    let context = Context::new();
    let holder = Dealer::with_options(&context, named(|_| ())).unwrap();
    holder.bind_blocking("inproc://one").unwrap();
    let notifying = named(|options| options.set_raw(97, &3_i32.to_ne_bytes()).unwrap());
    let bound = Router::with_options(&context, notifying).unwrap();
    bound.bind_blocking("inproc://two").unwrap();
    let mut often = options();
    often.reconnect_ivl = Some(Duration::from_millis(5));
    let router = Router::with_options(&context, often).unwrap();
    let monitor = router.monitor();
    wait(router.connect_ready("inproc://one", PATIENCE)).unwrap();
    router.connect("inproc://two").unwrap();
    (0..5).for_each(|_| drop(event(&monitor, |kind| matches!(kind, EventKind::RoutingIdInUse))));
    assert!(matches!(bound.try_recv(), Err(Error::WouldBlock)));
    assert!(bound.peers().is_empty());
    router.disconnect("inproc://one").unwrap();
    wait(router.connect_ready("inproc://two", PATIENCE)).unwrap();
    assert_eq!(bound.recv_blocking().unwrap().parts().len(), 2, "it is there");
}

/// A link that has ended is no connection to wait for.
///
/// Rules: MQ-272.
#[test]
fn an_ended_link_does_not_count() {
    let context = Context::new();
    let [one, next] = [(); 2].map(|()| Dealer::with_options(&context, options()).unwrap());
    one.bind_blocking("inproc://ended").unwrap();
    let dealer = Dealer::with_options(&context, options()).unwrap();
    wait(dealer.connect_ready("inproc://ended", PATIENCE)).unwrap();
    wait(one.close(Some(Duration::ZERO)));
    let soon = Duration::from_millis(50);
    assert!(matches!(wait(dealer.connect_ready("inproc://ended", soon)), Err(Error::Timeout)));
    next.bind_blocking("inproc://ended").unwrap();
    wait(dealer.connect_ready("inproc://ended", PATIENCE)).unwrap();
}

/// Who waits for a link, or for what is queued to be moved, is woken when the name is bound.
///
/// Rules: MQ-059, MQ-080.
#[test]
fn whoever_waits_for_a_link_is_woken() {
    let context = Context::new();
    let [ready, drained, closed] = [(); 3].map(|()| Push::with_options(&context, options()).unwrap());
    for push in [&drained, &closed] {
        push.connect("inproc://awaited").unwrap();
        push.send_blocking("queued").unwrap();
    }
    let (tell, told) = mpsc::channel();
    let far_off = 100 * PATIENCE;
    let waits: [Box<dyn FnOnce() + Send>; 3] = [
        Box::new(move || wait(ready.connect_ready("inproc://awaited", far_off)).unwrap()),
        Box::new(move || wait(drained.drained()).unwrap()),
        Box::new(move || assert_eq!(wait(closed.close(None)), 0)),
    ];
    let waits = waits.map(|wait| {
        let tell = tell.clone();
        thread::spawn(move || {
            tell.send(()).unwrap();
            wait();
        })
    });
    for _ in &waits {
        told.recv().unwrap();
    }
    // Most likely they wait by now; should one not, it finds what it would have waited for.
    thread::sleep(Duration::from_millis(50));
    let pull = Pull::with_options(&context, options()).unwrap();
    pull.bind_blocking("inproc://awaited").unwrap();
    let bound = Instant::now();
    for wait in waits {
        wait.join().unwrap();
    }
    // At their deadlines all of them look once more.
    assert!(bound.elapsed() < PATIENCE / 2, "nobody was woken");
    for _ in 0..2 {
        assert_eq!(text(&pull.recv_blocking().unwrap()), "queued");
    }
}

/// The name of a socket that is being closed may be taken at once, and is not freed again when it is closed.
///
/// Rules: MQ-272.
#[test]
fn a_name_is_freed_by_its_owner_only() {
    let context = Context::new();
    let old = Push::with_options(&context, options()).unwrap();
    old.bind_blocking("inproc://name").unwrap();
    // Lingers for a peer that does not come.
    old.connect("inproc://nobody").unwrap();
    old.send_blocking("unsent").unwrap();
    drop(old);
    let new = Pull::with_options(&context, options()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = new.bind_blocking("inproc://name") {
        assert!(matches!(error, Error::AddressInUse(_)) && Instant::now() < deadline, "{error}");
        thread::yield_now();
    }
    let reader = Pull::with_options(&context, options()).unwrap();
    reader.bind_blocking("inproc://nobody").unwrap();
    assert_eq!(text(&reader.recv_blocking().unwrap()), "unsent");
    // The old socket is through when its link has ended.
    until("the end of the old one", || reader.peers().is_empty());
    let push = Push::with_options(&context, options()).unwrap();
    push.connect("inproc://name").unwrap();
    push.send_blocking("for the new one").unwrap();
    assert_eq!(text(&new.recv_blocking().unwrap()), "for the new one");
}

/// What waits at the peer counts as received here, and when the last of it was read nothing is left to wait for.
///
/// Rules: MQ-048, MQ-269.
#[test]
fn a_socket_is_readable_only_while_something_is_there() {
    let context = Context::new();
    let pull = Pull::with_options(&context, options()).unwrap();
    pull.bind_blocking("inproc://truth").unwrap();
    let push = Push::with_options(&context, options()).unwrap();
    push.connect("inproc://truth").unwrap();
    for count in [1, 2, 3, 100] {
        assert!(!pull.readiness().unwrap().receive);
        for number in 0..count {
            push.send_blocking(number.to_string()).unwrap();
        }
        for number in 0..count {
            assert!(pull.readiness().unwrap().receive, "{number} of {count} were read");
            assert_eq!(text(&pull.recv_blocking().unwrap()), number.to_string());
        }
        assert!(!pull.readiness().unwrap().receive, "{count} of {count} were read");
    }
}
