//! `tidegate mq proxy`: what comes in on one side goes out on the other.

use std::{slice, time::Duration};

use clap::{Args, ValueEnum};
use serde_json::json;
use tidegate::mq::proxy::Proxy;
use tidegate::mq::{AnySocket, Context, Error, Options, Pub, Result, SocketType};

use super::life::Life;
use super::socket::meet;
use crate::output::{Output, Stop};

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// What goes where
    kind: Kind,
    /// Listen here for clients, publishers or senders
    #[arg(long, value_name = "ENDPOINT", num_args = 1.., required_unless_present = "frontend_connect")]
    frontend: Vec<String>,
    /// Connect the front side to these, instead or as well
    #[arg(long, value_name = "ENDPOINT", num_args = 1..)]
    frontend_connect: Vec<String>,
    /// Listen here for workers, subscribers or receivers
    #[arg(long, value_name = "ENDPOINT", num_args = 1.., required_unless_present = "backend_connect")]
    backend: Vec<String>,
    /// Connect the back side to these, instead or as well
    #[arg(long, value_name = "ENDPOINT", num_args = 1..)]
    backend_connect: Vec<String>,
    /// Publish a copy of every message here, both ways
    #[arg(long, value_name = "ENDPOINT")]
    capture: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Requests of REQ or DEALER clients to REP or DEALER workers, and replies back
    Queue,
    /// Messages of publishers to subscribers, and subscriptions back
    Forwarder,
    /// Messages of PUSH senders to PULL receivers
    Streamer,
}

impl Kind {
    fn types(self) -> (SocketType, SocketType) {
        match self {
            Self::Queue => (SocketType::Router, SocketType::Dealer),
            Self::Forwarder => (SocketType::XSub, SocketType::XPub),
            Self::Streamer => (SocketType::Pull, SocketType::Push),
        }
    }
}

impl Run {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let context = Context::new();
        let (front, back) = self.kind.types();
        let side = |kind, bind: &[String], connect: &[String]| -> Result<AnySocket, Stop> {
            let socket = AnySocket::of_type_with(&context, kind, Options::default())?;
            meet(&socket, bind, connect, output)?;
            Ok(socket)
        };
        let frontend = side(front, &self.frontend, &self.frontend_connect)?;
        let backend = side(back, &self.backend, &self.backend_connect)?;
        let mut proxy = Proxy::new(frontend.clone(), backend.clone());
        let mut sockets = vec![frontend, backend];
        if let Some(endpoint) = &self.capture {
            let capture = AnySocket::from(Pub::new(&context)?);
            meet(&capture, slice::from_ref(endpoint), &[], output)?;
            proxy = proxy.with_capture(capture.clone());
            sockets.push(capture);
        }
        let life = Life::start(context, false)?;
        sockets.iter().try_for_each(|socket| life.watch(socket.monitor(), false, None))?;
        let control = proxy.control();
        let ended = match proxy.run_blocking() {
            Err(Error::Terminated) => Ok(()),
            other => other.map_err(Stop::from),
        };
        let statistics = control.statistics();
        let sockets: Vec<_> = sockets.iter().collect();
        let finished = life.finish(&sockets, Some(Duration::from_secs(1)), ended);
        let (front, back) = (statistics.frontend, statistics.backend);
        output.result(
            || {
                format!(
                    "front: {} parts in, {} out; back: {} parts in, {} out",
                    front.received, front.sent, back.received, back.sent
                )
            },
            || {
                let side = |side: &tidegate::mq::proxy::Side| {
                    json!({
                        "parts_received": side.received,
                        "bytes_received": side.received_bytes,
                        "parts_sent": side.sent,
                        "bytes_sent": side.sent_bytes,
                    })
                };
                json!({ "summary": true, "frontend": side(&front), "backend": side(&back) })
            },
        )?;
        finished
    }
}
