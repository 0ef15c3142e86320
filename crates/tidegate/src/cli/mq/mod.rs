//! `tidegate mq ...`: sockets of the messaging kernel at the command line.

pub(in crate::cli) mod bench;
mod error;
mod flow;
mod format;
mod input;
mod keygen;
mod life;
mod monitor;
mod proxy;
mod socket;

use clap::Subcommand;
use tidegate::mq::SocketType;

use crate::output::{Output, Stop};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
A message is a line; its parts are separated by tabs. Bytes that cannot be printed are written \\xNN, and a backslash \\\\.
With --json it is an array of strings, or of {\"base64\":\"...\"} where the bytes are no UTF-8; with --frames it is binary.
What one command prints, another one reads.

Examples:
  tidegate mq sub --connect tcp://localhost:5556 --subscribe weather
  seq 1000 | tidegate mq push --bind 'tcp://*:5557'
  echo hello | tidegate mq req --connect tcp://localhost:5555 --timeout 2s")]
pub(crate) enum Command {
    /// Hand each line of standard input to one of the connected PULL peers
    #[command(after_help = "Examples:\n  seq 1000 | tidegate mq push --bind 'tcp://*:5557'\n  \
        tidegate mq push --connect tcp://a:5557 tcp://b:5557 --timeout 5s < jobs.txt")]
    Push(flow::Plain),
    /// Print what PUSH peers hand over
    #[command(after_help = "Examples:\n  tidegate mq pull --connect tcp://localhost:5557\n  \
        tidegate mq pull --bind ipc:///tmp/jobs --count 1000 --json")]
    Pull(flow::Plain),
    /// Publish each line of standard input to whom it may concern
    #[command(
        after_help = "A line goes to those who subscribed to a beginning of its first part. Nobody waits for a slow \
        subscriber.\n\nExamples:\n  date | tidegate mq pub --bind 'tcp://*:5556'\n  \
        tidegate mq pub --bind 'tcp://*:5556' --wait 0 < feed"
    )]
    Pub(flow::Publish),
    /// Print what publishers send
    #[command(after_help = "Examples:\n  tidegate mq sub --connect tcp://localhost:5556\n  \
        tidegate mq sub --connect tcp://localhost:5556 --subscribe weather --count 10 --json")]
    Sub(flow::Subscribe),
    /// Publish standard input, and print the subscriptions of peers: byte 1 or 0 and the topic
    #[command(after_help = "Example:\n  tidegate mq xpub --bind 'tcp://*:5556' --json")]
    Xpub(flow::Plain),
    /// Print what publishers send, and send them standard input: byte 1 or 0 and a topic subscribes or cancels
    #[command(after_help = "Example:\n  tidegate mq xsub --connect tcp://localhost:5556 --subscribe weather")]
    Xsub(flow::Subscribe),
    /// Send each line as a request and print the reply to it
    #[command(
        after_help = "Example:\n  echo hello | tidegate mq req --connect tcp://localhost:5555 --timeout 2s"
    )]
    Req(flow::Plain),
    /// Print requests and answer each with itself, or with a fixed text
    #[command(after_help = "Examples:\n  tidegate mq rep --bind 'tcp://*:5555'\n  \
        tidegate mq rep --bind 'tcp://*:5555' --reply ok --count 1")]
    Rep(flow::Reply),
    /// Send standard input to the peers in turn, and print what they send
    #[command(
        after_help = "Example:\n  tidegate mq dealer --connect tcp://localhost:5555 --routing-id worker-1"
    )]
    Dealer(flow::Plain),
    /// Print messages with the name of their sender as first part; send each line to whom its first part names
    #[command(after_help = "Example:\n  tidegate mq router --bind 'tcp://*:5555' --json")]
    Router(flow::Plain),
    /// Talk to one peer, both ways at once
    #[command(after_help = "Example:\n  tidegate mq pair --bind ipc:///tmp/talk")]
    Pair(flow::Plain),
    /// Show what happens to the connections of a socket
    #[command(after_help = "\
Messages that arrive are not read. With --json one object per event: {\"at_ms\",\"event\",\"endpoint\",\"peer_address\",...}.

Examples:
  tidegate mq monitor dealer --connect tcp://localhost:5555 --until-up --timeout 5s
  tidegate mq monitor pull --bind 'tcp://*:5557' --json")]
    Monitor(monitor::Watch),
    /// Pass messages on between two sides, until told to stop
    #[command(after_help = "\
With --json: at the end {\"summary\":true,\"frontend\":{...},\"backend\":{...}}, counting parts and bytes.

Examples:
  tidegate mq proxy queue --frontend 'tcp://*:5559' --backend 'tcp://*:5560'
  tidegate mq proxy forwarder --frontend 'tcp://*:5556' --backend 'tcp://*:5557' --capture ipc:///tmp/all")]
    Proxy(proxy::Run),
    /// Make a key pair for CURVE
    #[command(after_help = "\
Without --out both keys are printed, the secret one too.

Examples:
  tidegate mq keygen --out server.key
  tidegate mq keygen --public-of server.key
  tidegate mq keygen --json")]
    Keygen(keygen::Keygen),
    /// Measure rates, round trips and many connections, beside libzmq
    #[command(after_help = "\
Each program sends and receives in two processes of its own; the programs take turns. The peer of libzmq is compiled when
the command runs, which takes cc and zmq.h (Debian: libzmq3-dev). Nothing else should run meanwhile. Everything takes
hours; --only, --repetitions and --messages 0 make it shorter.

With --json: one object per measurement and program, one per minimum, and a last one {\"summary\":true,...}.
docs/benchmarks.md explains them. Exit code 1 when something could not be measured, or got worse than --baseline.

Examples:
  tidegate mq bench --quick
  tidegate mq bench --only push-pull,req-rep --sizes 64,1k,1m --json > before.json
  tidegate mq bench --only push-pull,req-rep --sizes 64,1k,1m --baseline before.json
  tidegate mq bench --driver io_uring,polling --without-libzmq")]
    Bench(bench::Bench),
    /// An end of a measurement
    #[command(hide = true)]
    BenchPeer(bench::Peer),
}

pub(crate) fn run(command: Command, output: &mut Output) -> Result<(), Stop> {
    match command {
        Command::Push(command) => command.run(SocketType::Push, output),
        Command::Pull(command) => command.run(SocketType::Pull, output),
        Command::Pub(command) => command.run(output),
        Command::Sub(command) => command.run(SocketType::Sub, output),
        Command::Xpub(command) => command.run(SocketType::XPub, output),
        Command::Xsub(command) => command.run(SocketType::XSub, output),
        Command::Req(command) => command.run(SocketType::Req, output),
        Command::Rep(command) => command.run(output),
        Command::Dealer(command) => command.run(SocketType::Dealer, output),
        Command::Router(command) => command.run(SocketType::Router, output),
        Command::Pair(command) => command.run(SocketType::Pair, output),
        Command::Monitor(command) => command.run(output),
        Command::Proxy(command) => command.run(output),
        Command::Keygen(command) => command.run(output),
        Command::Bench(command) => command.run(output),
        Command::BenchPeer(command) => command.run(),
    }
}
