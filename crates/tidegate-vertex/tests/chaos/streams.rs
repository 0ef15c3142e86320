//! From a stream of JetStream into strict streams, with a server that is killed and stopped, too, and ownership in the same server
//! in every other round.

use std::{path::Path, time::Duration};

use async_nats::jetstream::stream::Config;
use rustix::process::Signal;

use crate::{
    Course, Dice, chaos,
    server::{Server, plain, strict},
};

struct Streams {
    server: Server,
    shared: bool,
}

impl Course for Streams {
    const TEST: &'static str = "streams::every_message_ends_in_one_place_whoever_is_killed";
    const INPUTS: u64 = 10_000;

    fn begin(dice: &mut Dice, _: &Path) -> Self {
        let server = Server::start();
        server.create(plain("IN", "in"));
        server.produce("in", (0..Self::INPUTS).map(|number| number.to_string()));
        for name in ["OUT0", "DEAD0"] {
            server.create(Config { subjects: vec![format!("{name}.>")], ..strict(name) });
        }
        Self { server, shared: dice.below(2) == 0 }
    }

    fn pipeline(&self, _: &Path) -> String {
        let url = self.server.url();
        let sink = |name: &str, stream: &str, role: &str| {
            format!(
                "[[sink]]
                name = {name:?}
                role = {role:?}
                kind = \"jetstream\"
                mode = \"strict\"
                url = {url:?}
                stream = \"{stream}{{partition}}\"
                prefix = \"{stream}{{partition}}\"
                "
            )
        };
        let ownership = format!(
            "[ownership]
            kind = \"jetstream\"
            url = {url:?}
            lease = \"1s\"
            instance = \"chaos\""
        );
        format!(
            "[source]
            kind = \"jetstream\"
            mode = \"partition\"
            url = {url:?}
            stream = \"IN\"
            subject = \"in\"
            {main}{dead}{ownership}",
            main = sink("main", "OUT", "output"),
            dead = sink("dead", "DEAD", "dlq"),
            ownership = if self.shared { &ownership } else { "" },
        )
    }

    fn is_complete(&self) -> bool {
        let expected = (0..Self::INPUTS).filter(|number| number % 7 != 3).count() as u64;
        self.server.count("OUT0", "OUT0.0.data") + self.server.count("DEAD0", "DEAD0.0.data") >= expected
    }

    fn disturb(&mut self, dice: &mut Dice) -> Option<&'static str> {
        if dice.below(2) == 0 {
            self.server.stop();
            std::thread::sleep(Duration::from_millis(dice.below(200)));
            self.server.restart();
            return Some("server shot");
        }
        self.server.signal(Signal::STOP);
        std::thread::sleep(Duration::from_millis(dice.below(300)));
        self.server.signal(Signal::CONT);
        Some("server stopped")
    }

    fn result(&self, _: &Path) -> (Vec<String>, u64) {
        (self.server.values("OUT0"), self.server.values("DEAD0").len() as u64)
    }
}

/// Cases: CT-38, CT-53.
/// Rules: VX-003, VX-711, VX-715, VX-763, VX-781, VX-835, VX-845, VX-848, VX-850.
#[test]
fn every_message_ends_in_one_place_whoever_is_killed() {
    chaos::<Streams>();
}
