//! Servers that want to know who connects: each kind of proof, and that nobody is told a secret.

use std::{fs, path::Path, process::Command};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};
use tidegate_vertex::nats::{Endpoint, Nats};

use crate::server::Server;

/// Tries it with the keys of an endpoint beside the address; what is said when it does not work.
fn connect(server: &Server, scheme: &str, keys: &str) -> Result<Nats, String> {
    let url = server.url().replace("nats://127.0.0.1", &format!("{scheme}://localhost"));
    let endpoint: Endpoint = toml::from_str(&format!("url = {url:?}\n{keys}")).unwrap();
    Nats::connect(&endpoint, "test").map_err(|error| {
        let mut told = format!("{endpoint:?} {error:?} {error}");
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            told += &format!(" {error}");
            source = error.source();
        }
        told
    })
}

/// A secret in a file, as the pipeline file names it.
fn file(dir: &Path, name: &str, secret: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, format!("{secret}\n")).unwrap();
    format!("file:{}", path.display())
}

/// Right keys connect, wrong ones and none do not, and what is said then has none of the secrets in it.
fn judge(server: &Server, right: &str, wrong: &str, secrets: &[&str]) {
    connect(server, "nats", right).unwrap();
    for keys in [wrong, ""] {
        let told = connect(server, "nats", keys).unwrap_err();
        assert!(told.to_lowercase().contains("authorization"), "{told}");
        assert!(secrets.iter().all(|secret| !told.contains(secret)), "{told}");
    }
}

/// Rules: VX-839.
#[test]
fn a_password_or_a_token_is_a_proof() {
    let dir = tempfile::tempdir().unwrap();
    let (right, wrong) = (file(dir.path(), "right", "op3n"), file(dir.path(), "wrong", "cl0sed"));
    let server = Server::start_with(&["--user", "gate", "--pass", "op3n"]);
    let keys = |secret: &str| format!("user = \"gate\"\npassword = {secret:?}");
    judge(&server, &keys(&right), &keys(&wrong), &["op3n", "cl0sed"]);
    let server = Server::start_with(&["--auth", "op3n"]);
    let keys = |secret: &str| format!("token = {secret:?}");
    judge(&server, &keys(&right), &keys(&wrong), &["op3n", "cl0sed"]);
}

/// Rules: VX-839.
#[test]
fn a_key_is_a_proof() {
    let dir = tempfile::tempdir().unwrap();
    let (known, other) = (KeyPair::new_user(), KeyPair::new_user());
    let config = dir.path().join("nats.conf");
    fs::write(&config, format!("authorization {{ users = [ {{ nkey: {} }} ] }}", known.public_key()))
        .unwrap();
    let server = Server::start_with(&["--config", config.to_str().unwrap()]);
    let (right, wrong) = (known.seed().unwrap(), other.seed().unwrap());
    let keys = |name, seed: &str| format!("nkey = {:?}", file(dir.path(), name, seed));
    judge(&server, &keys("right", &right), &keys("wrong", &wrong), &[&right, &wrong]);
}

/// What `by` says about `of`, as a token.
fn token(by: &KeyPair, of: &KeyPair, nats: Value) -> String {
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "jti": of.public_key(), "iat": 1_700_000_000, "iss": by.public_key(), "sub": of.public_key(), "name": "test",
        "nats": nats,
    });
    let text = format!("{}.{}", part(json!({ "typ": "JWT", "alg": "ed25519-nkey" })), part(claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(by.sign(text.as_bytes()).unwrap());
    format!("{text}.{signature}")
}

/// Rules: VX-839.
#[test]
fn credentials_are_a_proof() {
    let dir = tempfile::tempdir().unwrap();
    let (operator, account, system) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let limits = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1 });
    let known = |account: &KeyPair| {
        let nats = json!({ "type": "account", "version": 2, "limits": limits });
        format!("{}: {}\n", account.public_key(), token(&operator, account, nats))
    };
    let text = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}{}}}",
        token(&operator, &operator, json!({ "type": "operator", "version": 2 })),
        system.public_key(),
        known(&system),
        known(&account)
    );
    let config = dir.path().join("nats.conf");
    fs::write(&config, text).unwrap();
    let server = Server::start_with(&["--config", config.to_str().unwrap()]);
    let credentials = |name, account: &KeyPair| {
        let user = KeyPair::new_user();
        let claims = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
        let (token, seed) = (token(account, &user, claims), user.seed().unwrap());
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        (format!("creds = {:?}", file(dir.path(), name, &text)), seed)
    };
    let (right, seed) = credentials("right", &account);
    let (wrong, other) = credentials("wrong", &KeyPair::new_account());
    judge(&server, &right, &wrong, &[&seed, &other]);
}

/// A certificate and its key in `dir`, made by `openssl`; signed by `ca` or by itself.
fn certificate(dir: &Path, name: &str, ca: Option<&str>) -> (String, String) {
    let at = |name: &str, what: &str| dir.join(format!("{name}.{what}")).to_str().unwrap().to_owned();
    let (certificate, key) = (at(name, "pem"), at(name, "key"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]);
    openssl.args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=DNS:localhost"]);
    openssl.args(["-out", &certificate, "-keyout", &key]);
    if let Some(ca) = ca {
        openssl.args([
            "-CA",
            &at(ca, "pem"),
            "-CAkey",
            &at(ca, "key"),
            "-addext",
            "basicConstraints=CA:FALSE",
        ]);
        openssl.args(["-addext", "extendedKeyUsage=serverAuth,clientAuth"]);
    }
    let made = openssl.output().expect("cannot start openssl; run: apt-get install openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}

/// The server shows a certificate and asks for one.
/// Rules: VX-839.
#[test]
fn certificates_are_a_proof_of_both() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, _) = certificate(dir.path(), "ca", None);
    let (other_ca, _) = certificate(dir.path(), "other", None);
    let (shown, shown_key) = certificate(dir.path(), "server", Some("ca"));
    let (own, own_key) = certificate(dir.path(), "client", Some("ca"));
    let (foreign, foreign_key) = certificate(dir.path(), "foreign", Some("other"));
    let args = ["--tls", "--tlscert", &shown, "--tlskey", &shown_key, "--tlsverify", "--tlscacert", &ca];
    let server = Server::start_with(&args);
    let keys =
        |ca: &str, cert: &str, key: &str| format!("[tls]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}");
    connect(&server, "tls", &keys(&ca, &own, &own_key)).unwrap();
    // Also when the address does not ask for it.
    connect(&server, "nats", &format!("{}\nrequired = true", keys(&ca, &own, &own_key))).unwrap();
    let wrong = [
        keys(&other_ca, &own, &own_key),
        keys(&ca, &foreign, &foreign_key),
        format!("[tls]\nca = {ca:?}"),
        String::new(),
    ];
    for keys in wrong {
        assert!(connect(&server, "tls", &keys).is_err(), "{keys}");
    }
}
