//! `tidegate mq push`, `pull`, `pub` and so on: messages between a socket and the standard streams.

use std::os::unix::net::UnixStream;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use clap::Args;
use tidegate::mq::{AnySocket, Context, Error, Message, Pub, SendError, SocketType};

use super::format::{self, Format};
use super::input::Input;
use super::life::Life;
use super::socket::SocketArgs;
use crate::cli::session::parse_duration;
use crate::output::{Exit, Output, Stop};

/// What the commands of all types share.
#[derive(Debug, Args)]
pub(crate) struct Common {
    #[command(flatten)]
    socket: SocketArgs,
    /// Stop after this many messages: received ones, or sent ones where nothing is received. What stands ready on standard
    /// input by then is still sent
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Give up when a message could not be sent, or none came, for this long: 500ms, 10s, 2m, or a number of seconds
    /// [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Binary messages: number of parts, then for each part its length and its bytes; numbers are 4 bytes, big-endian
    #[arg(long, conflicts_with = "json")]
    frames: bool,
}

/// A type that sends, or sends and receives, or only receives.
#[derive(Debug, Args)]
pub(crate) struct Plain {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Publish {
    #[command(flatten)]
    common: Common,
    /// Before the first message, wait until so many subscribers would get it; at most --timeout
    #[arg(long, value_name = "N", default_value_t = 1)]
    wait: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Subscribe {
    #[command(flatten)]
    common: Common,
    /// Take only messages whose first part begins with this; repeat for more [default: all messages]
    #[arg(long, value_name = "TOPIC", allow_hyphen_values = true)]
    subscribe: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Reply {
    #[command(flatten)]
    common: Common,
    /// Answer every request with this text instead of with the request itself
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    reply: Option<String>,
}

impl Plain {
    pub(crate) fn run(self, kind: SocketType, output: &mut Output) -> Result<(), Stop> {
        let flow = match kind {
            SocketType::Push => Flow::Send { wait: 0 },
            SocketType::Pull => Flow::Receive,
            SocketType::Req => Flow::Ask,
            _ => Flow::Both,
        };
        self.common.run(kind, flow, &[], output)
    }
}

impl Publish {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        self.common.run(SocketType::Pub, Flow::Send { wait: self.wait }, &[], output)
    }
}

impl Subscribe {
    pub(crate) fn run(self, kind: SocketType, output: &mut Output) -> Result<(), Stop> {
        let flow = if kind == SocketType::Sub { Flow::Receive } else { Flow::Both };
        let all = [String::new()];
        let topics = if self.subscribe.is_empty() { &all[..] } else { &self.subscribe };
        self.common.run(kind, flow, topics, output)
    }
}

impl Reply {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        self.common.run(SocketType::Rep, Flow::Answer { with: self.reply }, &[], output)
    }
}

/// Which way messages go.
enum Flow {
    /// From standard input to the socket, once so many subscribers are there.
    Send { wait: usize },
    /// From the socket to standard output.
    Receive,
    /// Both at once.
    Both,
    /// Each message of standard input is a request; its reply goes to standard output.
    Ask,
    /// Each request goes to standard output and back, or gets this text as reply.
    Answer { with: Option<String> },
}

impl Common {
    fn run(&self, kind: SocketType, flow: Flow, topics: &[String], output: &mut Output) -> Result<(), Stop> {
        let context = Context::new();
        let options = self.socket.options(self.timeout)?;
        let publisher =
            (kind == SocketType::Pub).then(|| Pub::with_options(&context, options.clone())).transpose()?;
        let socket = match &publisher {
            Some(publisher) => AnySocket::from(publisher.clone()),
            None => AnySocket::of_type_with(&context, kind, options)?,
        };
        for topic in topics {
            socket.subscribe(topic)?;
        }
        let life = Life::start(context, !matches!(flow, Flow::Send { .. }))?;
        life.watch(socket.monitor(), self.socket.meet.bind.is_empty(), self.socket.silent_refusal())?;
        let format = match (self.frames, output.json()) {
            (true, _) => Format::Frames,
            (_, true) => Format::Json,
            _ => Format::Text,
        };
        let result = self.socket.meet(&socket, output).and_then(|()| {
            let mut run = Run { common: self, socket: &socket, life: &life, format, output };
            match flow {
                Flow::Send { wait } => run.send(publisher.as_ref().filter(|_| wait > 0), wait),
                Flow::Receive => run.receive(),
                Flow::Both => run.both(),
                Flow::Ask => run.ask(),
                Flow::Answer { with } => run.answer(with.as_deref()),
            }
        });
        let ended = life.finish(&[&socket], self.socket.linger(self.timeout), result);
        let dropped = socket.metrics().out.dropped_full;
        if matches!(kind, SocketType::Pub | SocketType::XPub) && dropped > 0 {
            tracing::warn!(
                "{dropped} messages were dropped for subscribers whose queues were full; raise --hwm"
            );
        }
        ended
    }
}

/// Why a message was not sent, other than for want of time.
fn not_sent(failed: SendError) -> Stop {
    match (&failed.error, failed.message.first()) {
        (Error::HostUnreachable, Some(name)) => {
            let name = String::from_utf8_lossy(name);
            let message = format!("no connected peer is called \"{name}\", to whom the message is addressed");
            Stop::Error { exit: Exit::NotFound, code: "no_peer", message }
        }
        _ => failed.into(),
    }
}

struct Run<'a> {
    common: &'a Common,
    socket: &'a AnySocket,
    life: &'a Life,
    format: Format,
    output: &'a mut Output,
}

impl Run<'_> {
    fn send(&mut self, mut publisher: Option<&Pub>, wait: usize) -> Result<(), Stop> {
        let mut input = self.input();
        let mut sent = 0;
        while self.is_wanted(sent)
            && let Some(message) = input.next()?
        {
            if let Some(publisher) = publisher.take()
                && !self.wait_for_subscribers(publisher, &message, wait)?
            {
                return Ok(());
            }
            self.send_one(message)?;
            sent += 1;
        }
        Ok(())
    }

    /// False when the command is over.
    fn wait_for_subscribers(&self, socket: &Pub, message: &Message, wait: usize) -> Result<bool, Stop> {
        /// Time after which the end of the command is looked for.
        const LOOK: Duration = Duration::from_millis(100);
        let topic = message.first().map(|part| part.as_slice()).unwrap_or_default();
        let began = Instant::now();
        loop {
            let look =
                self.common.timeout.map_or(LOOK, |timeout| LOOK.min(timeout.saturating_sub(began.elapsed())));
            match socket.wait_for_subscribers_blocking(topic, wait, look) {
                Ok(()) => return Ok(true),
                Err(Error::Terminated) => return Ok(false),
                Err(Error::Timeout)
                    if self.common.timeout.is_none_or(|timeout| began.elapsed() < timeout) => {}
                Err(error) => {
                    let topic = String::from_utf8_lossy(topic);
                    let what = format!("fewer than {wait} subscribers to what begins \"{topic}\"");
                    return Err(self.stop(error, &what, 0));
                }
            }
        }
    }

    fn receive(&mut self) -> Result<(), Stop> {
        let mut received = 0;
        while self.is_wanted(received) {
            let message =
                self.socket.recv_blocking().map_err(|error| self.stop(error, "no message", received))?;
            self.print(&message)?;
            received += 1;
        }
        Ok(())
    }

    fn both(&mut self) -> Result<(), Stop> {
        /// For how long what stands ready may take to be sent when enough was received.
        const REST: Duration = Duration::from_secs(1);
        let (enough, receiving) = UnixStream::pair().map_err(|error| Stop::Error {
            exit: Exit::Failed,
            code: "io",
            message: format!("cannot prepare to read standard input: {error}"),
        })?;
        let (feeding, fed) = channel::<()>();
        let mut input = self.input().until(enough);
        let (socket, life) = (self.socket.clone(), self.life.clone());
        let (timeout, endpoints) = (self.common.timeout, self.endpoints());
        let feed = move || {
            let outcome = loop {
                match input.next() {
                    Ok(Some(message)) => {
                        if let Err(failed) = socket.send_blocking(message) {
                            break Err(match (&failed.error, timeout) {
                                (Error::Terminated, _) => return,
                                (Error::Timeout, Some(timeout)) => {
                                    life.timed_out("nothing could be sent", timeout, &endpoints)
                                }
                                _ => not_sent(failed),
                            });
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(stop) => break Err(stop),
                }
            };
            if let Err(stop) = outcome {
                life.end(Some(stop));
            }
            drop(feeding);
        };
        std::thread::spawn(feed);
        self.receive()?;
        drop(receiving);
        match fed.recv_timeout(REST) {
            // It cannot send, and is left there.
            Err(RecvTimeoutError::Timeout) => tracing::warn!("not all of standard input was sent"),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<(), Stop> {
        let mut input = self.input();
        let mut answered = 0;
        while self.is_wanted(answered)
            && let Some(message) = input.next()?
        {
            self.send_one(message)?;
            let reply =
                self.socket.recv_blocking().map_err(|error| self.stop(error, "no reply", answered))?;
            self.print(&reply)?;
            answered += 1;
        }
        Ok(())
    }

    fn answer(&mut self, with: Option<&str>) -> Result<(), Stop> {
        let mut answered = 0;
        while self.is_wanted(answered) {
            let request =
                self.socket.recv_blocking().map_err(|error| self.stop(error, "no request", answered))?;
            self.print(&request)?;
            self.send_one(with.map_or(request, Message::from))?;
            answered += 1;
        }
        Ok(())
    }

    fn send_one(&self, message: Message) -> Result<(), Stop> {
        self.socket.send_blocking(message).map_err(|failed| {
            if matches!(failed.error, Error::Terminated) {
                tracing::warn!(
                    "ended with a message that could not be sent; what follows it was not sent either"
                );
            }
            match failed.error {
                Error::Timeout => self.stop(failed.error, "nothing could be sent", 0),
                _ => not_sent(failed),
            }
        })
    }

    fn print(&mut self, message: &Message) -> Result<(), Stop> {
        match self.format {
            Format::Frames => self.output.bytes(&format::to_frames(message)),
            _ => self.output.result(|| format::to_text(message), || format::to_json(message)),
        }
    }

    /// An error as the end of the command, with what is known about its reason.
    fn stop(&self, error: Error, what: &str, done: u64) -> Stop {
        match (error, self.common.timeout) {
            (Error::Timeout, Some(timeout)) => {
                let wanted = self.common.count.map_or(String::new(), |count| format!(" of {count}"));
                let what = if done > 0 { format!("{what} after {done}{wanted}") } else { what.to_owned() };
                self.life.timed_out(&what, timeout, &self.endpoints())
            }
            (error, _) => error.into(),
        }
    }

    fn input(&self) -> Input {
        Input::new(self.format, self.life.clone())
    }

    fn is_wanted(&self, done: u64) -> bool {
        !self.life.is_over() && self.common.count.is_none_or(|count| done < count)
    }

    fn endpoints(&self) -> Vec<String> {
        self.common.socket.meet.all()
    }
}
