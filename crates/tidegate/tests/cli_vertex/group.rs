//! Orders to all vertices of a pipeline, over the store that they share partitions by: real processes and a real NATS server.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Outcome as Finished, Running, eventually, place};
use crate::world::{BLACKHOLE, ENDLESS, Unread, Vertex};

/// A server with a place of its own.
struct Server {
    _child: Unread,
    _dir: tempfile::TempDir,
    url: String,
}

impl Server {
    fn start() -> Self {
        let dir = place();
        let path = std::env::var("PATH").unwrap_or_default();
        let child = Command::new("nats-server")
            // Debian puts it where only root looks.
            .env("PATH", format!("{path}:/usr/sbin"))
            .args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir"])
            .arg(dir.path().join("store"))
            .arg("--ports_file_dir")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server; run: apt-get install nats-server");
        let child = Unread(child);
        let ports = dir.path().join(format!("nats-server_{}.ports", child.0.id()));
        let url = eventually("a server", || {
            let text = fs::read_to_string(&ports).ok()?;
            let port = text.split_once("127.0.0.1:")?.1.split('"').next()?.to_owned();
            std::net::TcpStream::connect(format!("127.0.0.1:{port}")).ok()?;
            Some(format!("nats://127.0.0.1:{port}"))
        });
        Self { _child: child, _dir: dir, url }
    }

    /// Tables of the instance of this name.
    fn shared(&self, instance: &str) -> String {
        let url = &self.url;
        format!(
            "{ENDLESS}\n{BLACKHOLE}\n[ownership]\nkind = \"jetstream\"\nurl = {url:?}\nlease = \"2s\"\n\
             instance = {instance:?}"
        )
    }
}

/// Asks with the pipeline file of this vertex.
fn ask(vertex: &Vertex, args: &[&str]) -> Finished {
    let file = vertex.path("pipeline.toml");
    vertex.ask(&[args, &["-c", file.to_str().unwrap()]].concat())
}

fn holdings(vertex: &Vertex) -> Vec<Value> {
    ask(vertex, &["group"]).exits(0).result()["partitions"].as_array().unwrap().clone()
}

/// Rules: VX-704, VX-710, VX-860, VX-866.
#[test]
fn orders_reach_every_vertex_of_a_pipeline() {
    let server = Server::start();
    let vertices = ["first", "second"].map(|name| (Vertex::new(), server.shared(name)));
    let [one, other] = [&vertices[0].0, &vertices[1].0];
    one.file(&vertices[0].1);
    // Before the first vertex there is nobody to tell.
    let (code, message) = ask(one, &["fence", "--all", "--everywhere"]).exits(69).error();
    assert!(code == "ownership" && message.contains("KV_tgvx_test"), "{code}: {message}");
    let _running: Vec<Running> =
        vertices.iter().map(|(vertex, tables)| Running::start(&mut vertex.command(tables))).collect();
    eventually("a store", || (ask(one, &["group"]).code == Some(0)).then_some(()));
    let owned = |holdings: &[Value]| holdings.iter().all(|holding| holding["owner"].is_string());
    let before = eventually("owners", || Some(holdings(one)).filter(|found| owned(found)));
    let generation = |holdings: &[Value]| holdings[1]["generation"].as_u64().unwrap();
    // Whoever has it.
    let told = ask(one, &["fence", "--partition", "1", "--everywhere"]).exits(0).result();
    assert_eq!((&told["order"], &told["partition"]), (&"fence".into(), &1.into()));
    eventually("a new session", || {
        let now = holdings(other);
        (owned(&now) && generation(&now) > generation(&before)).then_some(())
    });
    let drained = ask(other, &["drain", "--everywhere", "--timeout", "2m"]).exits(0).result();
    assert_eq!(drained["drained"], true);
    assert!(holdings(one).iter().all(|holding| holding["owner"].is_null() && holding["wanted"] == "drain"));
    ask(one, &["resume", "--everywhere"]).exits(0);
    eventually("owners", || owned(&holdings(one)).then_some(()));
    ask(one, &["pause", "--everywhere"]).exits(0);
    assert!(holdings(one).iter().all(|holding| holding["wanted"] == "pause"));
}

/// Rules: VX-860.
#[test]
fn what_cannot_be_ordered_is_refused_with_its_exit_code() {
    let server = Server::start();
    let vertex = Vertex::new();
    vertex.file(&format!("{ENDLESS}\n{BLACKHOLE}"));
    let (code, message) = ask(&vertex, &["pause", "--everywhere"]).exits(65).error();
    assert!(code == "config" && message.contains("ownership.kind has to be \"jetstream\""), "{message}");
    vertex.ask(&["fence", "--all", "--everywhere"]).exits(64);
    let _running = Running::start(&mut vertex.command(&server.shared("first")));
    eventually("a store", || (ask(&vertex, &["group"]).code == Some(0)).then_some(()));
    let (code, message) = ask(&vertex, &["fence", "--partition", "2", "--everywhere"]).exits(3).error();
    assert!(code == "not_found" && message.contains("no partition 2"), "{message}");
}
