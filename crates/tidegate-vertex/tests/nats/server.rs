//! A NATS server of the distribution, started for one test on a free port of the loopback interface.

use std::{
    fs,
    ops::Range,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    self,
    stream::{Config, DiscardPolicy},
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tidegate_udf::wire::ids::{EpochId, PartitionId, Position};
use tidegate_vertex::{
    batch::Record,
    nats::{Endpoint, Message, Nats},
    sink::{Output, OutputIds},
};

pub(crate) struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
    args: Vec<String>,
    /// Copies of what is made on it.
    pub(crate) replicas: usize,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more arguments.
    pub(crate) fn start_with(args: &[&str]) -> Self {
        let mut server = Self::launch(args.iter().map(|&arg| arg.to_owned()).collect(), 1);
        assert!(server.is_ready(), "nats-server ended");
        server
    }

    /// Three servers, each with a copy of everything.
    pub(crate) fn start_cluster() -> [Self; 3] {
        loop {
            // Free for a moment at least: when somebody else was faster, others are tried.
            let free = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
            let routes = free.map(|listener| format!("nats://{}", listener.local_addr().unwrap()));
            let args = |index: usize| {
                let name = format!("n{index}");
                let args = ["--server_name", &name, "--cluster_name", "three", "--cluster", &routes[index]];
                let args = args.into_iter().map(str::to_owned);
                args.chain(["--routes".to_owned(), routes.join(",")]).collect()
            };
            let mut servers = [0, 1, 2].map(|index| Self::launch(args(index), 3));
            if servers.iter_mut().all(Self::is_ready) && servers[0].has_leader() {
                return servers;
            }
        }
    }

    /// Waits until it answers; false when it has ended.
    fn is_ready(&mut self) -> bool {
        let give_up = Instant::now() + Duration::from_secs(60);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < give_up, "nats-server does not answer");
            if let Some(port) = self.found() {
                self.port = port;
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Whether the servers have found each other within a while.
    fn has_leader(&self) -> bool {
        let give_up = Instant::now() + Duration::from_secs(20);
        let nats = self.connect();
        while Instant::now() < give_up {
            let asked = async { nats.context().request::<_, _, Value>("INFO", &json!({})).await };
            if nats.wait(asked).unwrap().is_ok_and(|info| info["error"].is_null()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        false
    }

    fn launch(args: Vec<String>, replicas: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { child: spawn(&dir, -1, &args), port: 0, dir, args, replicas }
    }

    /// Ends it at once and starts it again on the same port, with what it had stored.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let give_up = Instant::now() + Duration::from_secs(60);
        loop {
            self.child = spawn(&self.dir, i32::from(self.port), &self.args);
            // Somebody else may have its port for a moment.
            if self.is_ready() {
                return;
            }
            assert!(Instant::now() < give_up, "nats-server ended");
        }
    }

    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
        // A stop takes a moment, in which it may still answer.
        let stopped = signal == rustix::process::Signal::STOP;
        while stopped && !is_stopped(self.child.id()) {
            std::thread::yield_now();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn connect(&self) -> Nats {
        Nats::connect(&Endpoint::open(&self.url()), "test").unwrap()
    }

    /// Makes a stream.
    pub(crate) fn create(&self, config: Config) {
        let nats = self.connect();
        let config = Config { num_replicas: self.replicas, ..config };
        let give_up = Instant::now() + Duration::from_secs(60);
        // Servers of a cluster have to find each other first.
        while let Err(error) = nats.wait(nats.context().create_stream(config.clone())).unwrap() {
            assert!(self.replicas > 1 && Instant::now() < give_up, "{error}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Has everything in a stream expire, which then keeps for as long as this says.
    pub(crate) fn expire(&self, config: &Config) {
        let nats = self.connect();
        let update = |config: &Config| nats.wait(nats.context().update_stream(config)).unwrap().unwrap();
        let give_up = Instant::now() + Duration::from_secs(60);
        let short = Config { max_age: config.duplicate_window, ..config.clone() };
        while update(&short).state.messages > 0 {
            assert!(Instant::now() < give_up, "nothing expires");
            std::thread::sleep(Duration::from_millis(20));
        }
        update(config);
    }

    /// Removes a stream.
    pub(crate) fn remove(&self, stream: &str) {
        let nats = self.connect();
        let give_up = Instant::now() + Duration::from_secs(60);
        while let Err(error) = nats.wait(nats.context().delete_stream(stream)).unwrap() {
            assert!(self.replicas > 1 && Instant::now() < give_up, "{error}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Id and value of everything in a stream, in order; barriers have no value.
    pub(crate) fn content(&self, stream: &str) -> Vec<(String, String)> {
        let nats = self.connect();
        let (stream, info) = nats.stream(stream).unwrap();
        let all = info.state.first_sequence.max(1)..=info.state.last_sequence;
        let messages = all.filter_map(|sequence| nats.message_at(&stream, sequence).unwrap());
        messages.map(|message| (message.id, String::from_utf8(message.value).unwrap())).collect()
    }

    /// The values of a stream without its barriers.
    pub(crate) fn values(&self, stream: &str) -> Vec<String> {
        let content = self.content(stream).into_iter();
        content.filter(|(id, _)| !id.starts_with("fence.")).map(|(_, value)| value).collect()
    }

    /// How many messages a subject of a stream has.
    pub(crate) fn count(&self, stream: &str, subject: &str) -> u64 {
        let nats = self.connect();
        let Ok((stream, _)) = nats.stream(stream) else { return 0 };
        let counted = async {
            let mut subjects = stream.info_with_subjects(subject).await.ok()?;
            let mut count = 0;
            while let Some(one) = subjects.next().await {
                count += one.ok()?.1 as u64;
            }
            Some(count)
        };
        nats.wait(counted).flatten().unwrap_or(0)
    }

    /// Publishes plain messages, as somebody who is no vertex.
    pub(crate) fn produce(&self, subject: &str, values: impl IntoIterator<Item = String>) {
        let nats = self.connect();
        let mut values = values.into_iter().map(|value| (Default::default(), value.into_bytes())).peekable();
        while values.peek().is_some() {
            // The client library lets only so many be without an answer.
            for outcome in nats.publish(subject, values.by_ref().take(1_000).collect()) {
                assert!(matches!(outcome, tidegate_vertex::nats::Published::Stored(_)), "{outcome:?}");
            }
        }
    }

    /// The port at which it answers by now.
    fn found(&self) -> Option<u16> {
        let ports = self.dir.path().join(format!("nats-server_{}.ports", self.child.id()));
        let text = fs::read_to_string(ports).ok()?;
        let port = text.split_once("127.0.0.1:")?.1.split('"').next()?.parse().ok()?;
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        Some(port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether every thread of a process is stopped.
pub(crate) fn is_stopped(pid: u32) -> bool {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(|task| {
        let stat = fs::read_to_string(task.unwrap().path().join("stat"));
        stat.is_ok_and(|stat| {
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
        })
    })
}

fn spawn(dir: &tempfile::TempDir, port: i32, args: &[String]) -> Child {
    let path = std::env::var("PATH").unwrap_or_default();
    let started = Command::new("nats-server")
        // Debian puts it where only root looks.
        .env("PATH", format!("{path}:/usr/sbin"))
        .args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream"])
        .arg("--store_dir")
        .arg(dir.path().join("store"))
        .arg("--ports_file_dir")
        .arg(dir.path())
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    started.unwrap_or_else(|error| {
        panic!("cannot start nats-server ({error}); run: apt-get install nats-server")
    })
}

/// Outputs of the inputs at these positions: the number of the position.
pub(crate) fn messages(positions: Range<u64>, epoch: u64) -> Vec<Message> {
    let ids = OutputIds::new(0xaa, "out");
    let message = |position: u64| {
        let record = Record::of(position.to_string().into_bytes());
        let output = Output { position: Position(position), number: 0, record };
        Message::new(&ids, PartitionId(0), EpochId(epoch), &output).unwrap()
    };
    positions.map(message).collect()
}

/// What is in these.
pub(crate) fn values(positions: Range<u64>) -> Vec<String> {
    positions.map(|position| position.to_string()).collect()
}

/// A stream as strict mode wants it, of the subjects `<name>.0.>`.
pub(crate) fn strict(name: &str) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![format!("{name}.0.>")],
        discard: DiscardPolicy::New,
        deny_delete: true,
        deny_purge: true,
        ..Config::default()
    }
}

/// A stream of these subjects with nothing special about it.
pub(crate) fn plain(name: &str, subject: &str) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        ..jetstream::stream::Config::default()
    }
}
