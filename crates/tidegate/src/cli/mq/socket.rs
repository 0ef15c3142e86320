//! What the command line says about a socket: where it meets its peers, and how.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tidegate::mq::auth::{Credentials, Decision, Peer, PlainCredentials};
use tidegate::mq::options::{CurveOptions, CurvePolicy, Mechanism, PlainOptions, RoutingId};
use tidegate::mq::{AnySocket, Options, PublicKey, SecretKey};

use super::input::read_file;
use crate::cli::session::parse_duration;
use crate::output::{Output, Stop};

/// Where a socket meets its peers, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct SocketArgs {
    #[command(flatten)]
    pub(super) meet: Meet,
    #[command(flatten)]
    security: Security,
    /// Name by which a ROUTER addresses this socket
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    routing_id: Option<String>,
    /// Messages that may wait for one peer in each direction; 0 is no limit
    #[arg(long, value_name = "N", default_value_t = 1000)]
    hwm: u32,
    /// At the end, go on sending what is queued for so long at most [default: --timeout, else until all is sent]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    linger: Option<Duration>,
    /// Ask peers for a sign of life this often
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    heartbeat: Option<Duration>,
}

#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Meet {
    /// Listen here: tcp://HOST:PORT, ipc://PATH; * is any address, any port, any path
    #[arg(long, value_name = "ENDPOINT", num_args = 1..)]
    pub(super) bind: Vec<String>,
    /// Connect to these, now and whenever the connection is lost
    #[arg(long, value_name = "ENDPOINT", num_args = 1..)]
    pub(super) connect: Vec<String>,
}

impl Meet {
    /// All endpoints, for messages.
    pub(super) fn all(&self) -> Vec<String> {
        self.bind.iter().chain(&self.connect).cloned().collect()
    }
}

/// CURVE and PLAIN. Secrets are given as files: arguments can be read by everybody on the host.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Security {
    /// CURVE: file with this side's secret key, as `tidegate mq keygen` writes it
    #[arg(help_heading = "Security", long, value_name = "FILE", conflicts_with_all = ["plain_user", "plain_users"])]
    curve_secret: Option<PathBuf>,
    /// CURVE, client: public key of the server (40 characters), or a file with it
    // A key may begin with a hyphen.
    #[arg(help_heading = "Security", long, value_name = "KEY", requires = "curve_secret", conflicts_with_all = ["curve_allow", "curve_any_client"], allow_hyphen_values = true)]
    curve_server: Option<String>,
    /// CURVE, server: admit the client with this public key, or with one of those in this file; repeat for more
    #[arg(
        help_heading = "Security",
        long,
        value_name = "KEY",
        requires = "curve_secret",
        allow_hyphen_values = true
    )]
    curve_allow: Vec<String>,
    /// CURVE, server: admit every client: encryption without authentication
    #[arg(help_heading = "Security", long, requires = "curve_secret", conflicts_with = "curve_allow")]
    curve_any_client: bool,
    /// PLAIN, client: user name
    #[arg(help_heading = "Security", long, value_name = "NAME", requires = "plain_password")]
    plain_user: Option<String>,
    /// PLAIN, client: file with the password
    #[arg(help_heading = "Security", long, value_name = "FILE", requires = "plain_user")]
    plain_password: Option<PathBuf>,
    /// PLAIN, server: file with a line NAME:PASSWORD for each user that is admitted
    #[arg(help_heading = "Security", long, value_name = "FILE", conflicts_with = "plain_user")]
    plain_users: Option<PathBuf>,
}

impl Security {
    fn mechanism(&self) -> Result<Mechanism, Stop> {
        if let Some(path) = &self.curve_secret {
            let secret_key = read_secret_key(path)?;
            return self.curve(secret_key).map(Mechanism::Curve);
        }
        if let Some(path) = &self.plain_users {
            let users = read_users(path)?;
            if users.is_empty() {
                let path = path.display();
                return Err(Stop::usage(format!(
                    "--plain-users: {path} names no user: nobody would be admitted"
                )));
            }
            let admit = move |peer: Peer| match &peer.credentials {
                Credentials::Plain(shown) => users
                    .iter()
                    .find(|(_, known)| known.matches(shown))
                    .map_or(Decision::Refuse, |(name, _)| Decision::Admit { user_id: name.clone() }),
                _ => Decision::Refuse,
            };
            return Ok(Mechanism::Plain(PlainOptions::Server {
                authenticator: Some(std::sync::Arc::new(admit)),
            }));
        }
        if let (Some(username), Some(path)) = (&self.plain_user, &self.plain_password) {
            let password = read_text(path, "the password in")?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            return Ok(Mechanism::Plain(PlainOptions::Client {
                username: username.clone(),
                password: password.into(),
            }));
        }
        Ok(Mechanism::Null)
    }

    fn curve(&self, secret_key: SecretKey) -> Result<CurveOptions, Stop> {
        if let Some(server) = &self.curve_server {
            let keys = public_keys(server)?;
            let [server_key] = keys[..] else {
                return Err(Stop::usage(format!(
                    "--curve-server: {server} holds {} keys; give one",
                    keys.len()
                )));
            };
            return Ok(CurveOptions::Client { server_key, secret_key });
        }
        let policy = if self.curve_any_client {
            CurvePolicy::AnyKey
        } else if self.curve_allow.is_empty() {
            return Err(Stop::usage(
                "--curve-secret alone does not say which side this is: add --curve-server KEY on the client, \
                 --curve-allow KEY or --curve-any-client on the server",
            ));
        } else {
            let mut keys = Vec::new();
            for allowed in &self.curve_allow {
                let found = public_keys(allowed)?;
                if found.is_empty() {
                    return Err(Stop::usage(format!(
                        "--curve-allow: {allowed} holds no key: nobody would be admitted"
                    )));
                }
                keys.extend(found);
            }
            CurvePolicy::AllowList(keys.into())
        };
        Ok(CurveOptions::Server { secret_key, policy })
    }
}

/// A secret key in a file: 40 characters of Z85, or 32 bytes.
pub(super) fn read_secret_key(path: &std::path::Path) -> Result<SecretKey, Stop> {
    let bytes = read_file(path, "the secret key in")?;
    SecretKey::parse(key_in(&bytes)).map_err(|error| {
        Stop::usage(format!("{}: {error}; `tidegate mq keygen` writes such files", path.display()))
    })
}

/// The public keys that an argument stands for: itself, or the lines of the file it names.
fn public_keys(argument: &str) -> Result<Vec<PublicKey>, Stop> {
    if let Ok(key) = PublicKey::parse(argument.as_bytes()) {
        return Ok(vec![key]);
    }
    let bytes = read_file(argument.as_ref(), "the public key in")?;
    let bad = |error| Stop::usage(format!("{argument}: {error}; `tidegate mq keygen` writes such files"));
    if bytes.len() == RAW_KEY {
        return Ok(vec![PublicKey::parse(&bytes).map_err(bad)?]);
    }
    bytes
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .map(|line| PublicKey::parse(line).map_err(bad))
        .collect()
}

/// Bytes of a raw key.
const RAW_KEY: usize = 32;

/// A key without the end of its line; a raw one as it is.
fn key_in(bytes: &[u8]) -> &[u8] {
    if bytes.len() == RAW_KEY { bytes } else { bytes.trim_ascii_end() }
}

fn read_text(path: &std::path::Path, what: &str) -> Result<String, Stop> {
    String::from_utf8(read_file(path, what)?)
        .map_err(|_| Stop::usage(format!("{} is not UTF-8 text", path.display())))
}

fn read_users(path: &std::path::Path) -> Result<Vec<(String, PlainCredentials)>, Stop> {
    let text = read_text(path, "the users in")?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            line.split_once(':')
                .and_then(|(name, password)| {
                    Some((name.to_owned(), PlainCredentials::new(name.as_bytes(), password.as_bytes())?))
                })
                .ok_or_else(|| {
                    Stop::usage(format!(
                        "{}: line {} is not NAME:PASSWORD of at most 255 bytes each",
                        path.display(),
                        index + 1
                    ))
                })
        })
        .collect()
}

impl SocketArgs {
    /// The options that these arguments stand for. `patience`: longest time for one send or receive.
    pub(super) fn options(&self, patience: Option<Duration>) -> Result<Options, Stop> {
        let mut options = Options::default();
        options.mechanism = self.security.mechanism()?;
        options.routing_id =
            self.routing_id.as_ref().map(|name| RoutingId::new(name.clone().into_bytes())).transpose()?;
        options.sndhwm = self.hwm;
        options.rcvhwm = self.hwm;
        options.heartbeat_ivl = self.heartbeat;
        options.sndtimeo = patience;
        options.rcvtimeo = patience;
        // What was sent to nobody is not sent.
        options.immediate = true;
        // A wrong id must not go unnoticed.
        options.router_mandatory = true;
        Ok(options)
    }

    /// What to look at when a server goes away during the handshake: it says nothing to whom it does not understand.
    pub(super) fn silent_refusal(&self) -> Option<&'static str> {
        let hint = "check --curve-server: a server goes away like this when it has another key";
        self.security.curve_server.is_some().then_some(hint)
    }

    /// How long to go on sending at the end.
    pub(super) fn linger(&self, timeout: Option<Duration>) -> Option<Duration> {
        self.linger.or(timeout)
    }

    /// As [`meet`], with the endpoints of the command.
    pub(super) fn meet(&self, socket: &AnySocket, output: &Output) -> Result<(), Stop> {
        meet(socket, &self.meet.bind, &self.meet.connect, output)
    }
}

/// Binds and connects. What a wildcard became is told on standard error.
pub(super) fn meet(
    socket: &AnySocket,
    bind: &[String],
    connect: &[String],
    output: &Output,
) -> Result<(), Stop> {
    if let Some(endpoint) = bind.iter().chain(connect).find(|endpoint| endpoint.starts_with("inproc://")) {
        return Err(Stop::usage(format!(
            "{endpoint}: nobody is in this process but the command; use tcp:// or ipc://"
        )));
    }
    for endpoint in bind {
        let bound = socket.bind_blocking(endpoint)?;
        if endpoint.contains('*') || endpoint.ends_with(":0") {
            tell_bound(&bound, output.json());
        }
    }
    connect.iter().try_for_each(|endpoint| socket.connect(endpoint))?;
    Ok(())
}

fn tell_bound(endpoint: &str, json: bool) {
    use std::io::Write;
    let line = if json {
        serde_json::json!({ "bound": endpoint }).to_string()
    } else {
        format!("bound to {endpoint}")
    };
    // Whoever closed standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "{line}");
}
