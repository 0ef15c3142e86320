//! Proxies between clients and workers, and between publishers and subscribers, with libzmq in each place.

use std::thread;

use tidegate_mq::{
    Dealer, Message, Rep, Req, Router, Sub, XPub, XSub,
    proxy::{Proxy, ProxyControl},
};

use super::{DRIVERS, NEWEST};
use crate::{
    cell::{Transport, place},
    ours::{self, Ours, options},
    peer::{Peer, words},
    series,
};

const MESSAGES: usize = 200;

/// Who is libzmq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theirs {
    Front,
    Proxy,
    Back,
}

fn run(proxy: Proxy) -> (ProxyControl, thread::JoinHandle<()>) {
    let control = proxy.control();
    (control, thread::spawn(move || proxy.run_blocking().unwrap()))
}

/// Rules: MQ-508.
#[test]
fn requests() {
    for driver in DRIVERS {
        for theirs in [Theirs::Front, Theirs::Proxy, Theirs::Back] {
            eprintln!("{driver:?}, libzmq: {theirs:?}");
            let context = ours::context(driver);
            let mut peer = Peer::start(NEWEST);
            let mut running = None;
            let (front, back) = if theirs == Theirs::Proxy {
                peer.ask("open f c ROUTER");
                peer.ask("open b c DEALER");
                let [front, back] =
                    ["f", "b"].map(|name| peer.ask(format!("bind {name} {}", place(Transport::Tcp).0)));
                peer.ask("proxy c f b");
                (front, back)
            } else {
                let router = Router::with_options(&context, options()).unwrap();
                let dealer = Dealer::with_options(&context, options()).unwrap();
                let front = router.bind_blocking(&place(Transport::Tcp).0).unwrap();
                let back = dealer.bind_blocking(&place(Transport::Tcp).0).unwrap();
                running = Some(run(Proxy::new(router, dealer)));
                (front, back)
            };
            let worker = (theirs != Theirs::Back).then(|| {
                let rep = Rep::with_options(&context, options()).unwrap();
                rep.connect(&back).unwrap();
                thread::spawn(move || series::echo(&rep, MESSAGES, 0))
            });
            if theirs == Theirs::Back {
                peer.ask("open w c REP");
                peer.ask(format!("connect w {back}"));
                peer.tell(format!("echo w {MESSAGES} 0"));
            }
            if theirs == Theirs::Front {
                peer.ask("open q c REQ");
                peer.ask(format!("connect q {front}"));
                peer.ask(format!("ping q {MESSAGES} 1 0"));
            } else {
                let req = Req::with_options(&context, options()).unwrap();
                req.connect(&front).unwrap();
                series::ping(&req, MESSAGES, 1, 0, &[]);
            }
            match worker {
                Some(worker) => worker.join().unwrap(),
                None => drop(peer.answer()),
            }
            if let Some((control, proxy)) = running {
                control.terminate();
                proxy.join().unwrap();
            }
            context.term_blocking();
        }
    }
}

/// Subscriptions go up through the proxy, messages come down, and a cancellation goes up again.
fn publications(version: &'static str) {
    for driver in DRIVERS {
        for theirs in [Theirs::Front, Theirs::Proxy, Theirs::Back] {
            eprintln!("{driver:?}, libzmq {version}: {theirs:?}");
            let context = ours::context(driver);
            let mut peer = Peer::start(version);
            let mut running = None;
            let (front, back) = if theirs == Theirs::Proxy {
                peer.ask("open f c XSUB rcvhwm=0 sndhwm=0");
                peer.ask("open b c XPUB rcvhwm=0 sndhwm=0");
                let [front, back] =
                    ["f", "b"].map(|name| peer.ask(format!("bind {name} {}", place(Transport::Tcp).0)));
                peer.ask("proxy c f b");
                (front, back)
            } else {
                let xsub = XSub::with_options(&context, unlimited()).unwrap();
                let xpub = XPub::with_options(&context, unlimited()).unwrap();
                let front = xsub.bind_blocking(&place(Transport::Tcp).0).unwrap();
                let back = xpub.bind_blocking(&place(Transport::Tcp).0).unwrap();
                running = Some(run(Proxy::new(xsub, xpub)));
                (front, back)
            };
            let publisher = XPub::with_options(&context, unlimited()).unwrap();
            let subscriber = Sub::with_options(&context, unlimited()).unwrap();
            if theirs == Theirs::Front {
                peer.ask("open p c XPUB sndhwm=0");
                peer.ask(format!("connect p {front}"));
            } else {
                publisher.connect(&front).unwrap();
            }
            if theirs == Theirs::Back {
                peer.ask("open q c SUB rcvhwm=0");
                peer.ask(format!("connect q {back}"));
                peer.ask("set q subscribe=41");
            } else {
                subscriber.connect(&back).unwrap();
                subscriber.subscribe("A").unwrap();
            }
            heard(&mut peer, &publisher, theirs, "\x01A");
            match theirs {
                Theirs::Front => {
                    peer.tell(format!("series_send p {MESSAGES} {}", words(["A"])));
                    series::receive(&subscriber, MESSAGES, 1);
                    peer.answer();
                }
                Theirs::Proxy => {
                    series::send(&publisher, MESSAGES, &["A".into()], Some("B"));
                    series::receive(&subscriber, MESSAGES, 1);
                }
                Theirs::Back => {
                    peer.tell(format!("series_recv q {MESSAGES} 1"));
                    series::send(&publisher, MESSAGES, &["A".into()], Some("B"));
                    peer.answer();
                }
            }
            if theirs == Theirs::Back {
                peer.ask("set q unsubscribe=41");
            } else {
                subscriber.unsubscribe("A").unwrap();
            }
            heard(&mut peer, &publisher, theirs, "\0A");
            if let Some((control, proxy)) = running {
                control.terminate();
                proxy.join().unwrap();
            }
            drop(peer);
            context.term_blocking();
        }
    }
}

fn unlimited() -> tidegate_mq::Options {
    let mut options = options();
    (options.sndhwm, options.rcvhwm) = (0, 0);
    options
}

/// The publisher is told of a subscription.
fn heard(peer: &mut Peer, publisher: &XPub, theirs: Theirs, notice: &str) {
    if theirs == Theirs::Front {
        assert_eq!(peer.ask("recv p"), words([notice]));
    } else {
        assert_eq!(Ours::take(publisher).unwrap(), Message::from(notice));
    }
}

/// Rules: MQ-508, MQ-367.
#[test]
fn publications_with_commands() {
    publications(NEWEST);
}

/// Rules: MQ-092, MQ-177, MQ-508, MQ-367.
#[test]
fn publications_with_subscriptions_of_3_0() {
    publications("4.2.5");
}
