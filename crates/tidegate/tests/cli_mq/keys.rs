//! Keys, and what they open.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::{bound, run};

const ANY: &str = "tcp://127.0.0.1:*";

/// Makes a pair; tells the paths of both files.
fn pair(place: &Path, name: &str) -> (String, String) {
    let secret = place.join(name).display().to_string();
    run(&["keygen", "--out", &secret], "").exits(0);
    let public = format!("{secret}.pub");
    (secret, public)
}

/// Rules: MQ-479.
#[test]
fn keygen_writes_pairs_that_only_their_owner_reads() {
    let place = tempfile::tempdir().expect("a directory");
    let (secret, public) = pair(place.path(), "key");
    let mode = std::fs::metadata(&secret).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&public).expect("the public key");
    assert_eq!(text.trim_end().len(), 40);
    assert_eq!(run(&["keygen", "--public-of", &secret], "").exits(0).stdout, text);
    run(&["keygen", "--out", &secret], "").exits(4);
    let own = format!("{secret}.new");
    std::fs::write(&own, "the user's own").expect("a file");
    run(&["keygen", "--out", &secret, "--force", "--raw"], "").exits(0);
    assert_eq!(std::fs::read_to_string(&own).expect("the file"), "the user's own");
    std::fs::remove_file(&own).expect("removed");
    let raw = std::fs::read(&public).expect("the public key");
    assert_eq!(raw.len(), 32);
    assert_eq!(run(&["keygen", "--public-of", &secret], "").exits(0).stdout.trim_end().len(), 40);

    // Both or neither, with what stands in the way of either.
    std::fs::remove_file(&secret).expect("removed");
    run(&["keygen", "--out", &secret], "").exits(4);
    assert!(!Path::new(&secret).exists());
    std::fs::remove_file(&public).expect("removed");
    let (secret, public) = pair(place.path(), "other");
    let before = std::fs::read(&secret).expect("the secret key");
    std::fs::remove_file(&public).expect("removed");
    std::fs::create_dir(&public).expect("a directory");
    assert!(run(&["keygen", "--out", &secret, "--force"], "").exits(4).stderr.contains("other.pub"));
    assert_eq!(std::fs::read(&secret).expect("the secret key"), before);
    assert_eq!(std::fs::read_dir(place.path()).expect("a directory").count(), 2);

    let printed = run(&["keygen", "--json"], "").exits(0).result();
    assert_ne!(printed["public_key"], printed["secret_key"]);
}

#[test]
fn curve_admits_the_known_and_refuses_the_rest() {
    let place = tempfile::tempdir().expect("a directory");
    let [server, client, stranger] = ["server", "client", "stranger"].map(|name| pair(place.path(), name));
    let listen =
        ["pull", "--bind", ANY, "--count", "1", "--curve-secret", &server.0, "--curve-allow", &client.1];
    let (pull, endpoint) = bound(&listen, "");
    let push = |secret: &str, server: &str, stdin: &str| {
        let args = ["push", "--connect", &endpoint, "--timeout", "3s", "--curve-secret", secret];
        run(&[&args[..], &["--curve-server", server, "--json"]].concat(), stdin)
    };
    let (code, message) = push(&stranger.0, &server.1, "[\"no\"]\n").exits(4).error();
    assert_eq!(code, "refused");
    assert!(message.contains(&endpoint) && message.contains("keys"), "{message}");
    // Another server's key: nothing can be decrypted, and nobody may say why.
    let (_, message) = push(&client.0, &stranger.1, "[\"no\"]\n").exits(5).error();
    assert!(message.contains("--curve-server"), "{message}");
    push(&client.0, &server.1, "[\"yes\"]\n").exits(0);
    assert_eq!(pull.finish().exits(0).stdout, "yes\n");
}

#[test]
fn plain_checks_the_password() {
    let place = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let (users, right, wrong) =
        (file("users", "ann:s3cret\n\nbob:other\n"), file("right", "s3cret\n"), file("wrong", "other\n"));
    let (pull, endpoint) = bound(&["pull", "--bind", ANY, "--count", "1", "--plain-users", &users], "");
    let push = |password: &str| {
        let args = ["push", "--connect", &endpoint, "--timeout", "3s", "--plain-user", "ann"];
        run(&[&args[..], &["--plain-password", password]].concat(), "hello\n")
    };
    push(&wrong).exits(4);
    push(&right).exits(0);
    assert_eq!(pull.finish().exits(0).stdout, "hello\n");
}

/// All who are in a long list are known, to its last line; one that is too long is refused, not cut.
///
/// Rules: MQ-137, MQ-153.
#[test]
fn lists_count_whole_or_not_at_all() {
    let place = tempfile::tempdir().expect("a directory");
    let path = |name: &str| place.path().join(name).display().to_string();
    let users: String =
        (0..40_000).map(|number| format!("user{number}:a password of some length\n")).collect();
    assert!(users.len() > 1 << 20);
    std::fs::write(path("users"), users).expect("a file");
    std::fs::write(path("password"), "a password of some length\n").expect("a file");
    let (pull, endpoint) =
        bound(&["pull", "--bind", ANY, "--count", "1", "--plain-users", &path("users")], "");
    let args = ["push", "--connect", &endpoint, "--timeout", "20s", "--plain-user", "user39999"];
    run(&[&args[..], &["--plain-password", &path("password")]].concat(), "hello\n").exits(0);
    assert_eq!(pull.finish().exits(0).stdout, "hello\n");

    let (secret, _) = pair(place.path(), "server");
    let huge = path("huge");
    std::fs::File::create(&huge).and_then(|file| file.set_len((16 << 20) + 1)).expect("a file");
    for option in [&["--plain-users"][..], &["--curve-secret", &secret, "--curve-allow"]] {
        let args = [&["pull", "--bind", ANY, "--json"], option, &[&huge]].concat();
        let (_, message) = run(&args, "").exits(2).error();
        assert!(message.contains(&huge) && message.contains("larger than 16 MiB"), "{message}");
    }
}

#[test]
fn arguments_that_do_not_fit_are_wrong_usage() {
    let place = tempfile::tempdir().expect("a directory");
    let (secret, public) = pair(place.path(), "key");
    let usage = |more: &[&str], part: &str| {
        let outcome = run(&[&["pull", "--bind", ANY][..], more].concat(), "").exits(2);
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    };
    usage(&["--curve-secret", &secret], "--curve-server");
    usage(&["--curve-server", &public], "--curve-secret");
    usage(
        &["--curve-secret", &secret, "--curve-server", &public, "--curve-any-client"],
        "cannot be used with",
    );
    usage(&["--plain-user", "ann"], "--plain-password");
    let bad = place.path().join("bad");
    std::fs::write(&bad, "short").expect("a file");
    usage(&["--curve-secret", &bad.display().to_string(), "--curve-any-client"], "keygen");
    run(&["pull", "--bind", ANY, "--curve-secret", "/no/such/file", "--curve-any-client"], "").exits(3);
}
