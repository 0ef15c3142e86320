//! Key files, schemas, and the list of blocks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tidegate::hub::block::{CreateOptions, create};
use tidegate::hub::broker::Verifier;
use tidegate::hub::broker::wire::{ChannelName, Register};
use tidegate::hub::layout::{Descriptor, SchemaInfo, SecurityLevel};
use tidegate::hub::schema::Schema;
use tidegate::hub::secret::read_key_file;

use crate::fields::assert_documented;
use crate::support::{Running, place, run, tidegate};
use crate::{SOON, block, hub};

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A new key file is private, holds a secret that reads back under its id, and is never overwritten; others' eyes are refused.
///
/// Rules: DH-167, DH-165, DH-266.
#[test]
fn keys_are_made_and_named_and_not_shown() {
    let place = place();
    let file = place.path().join("camera.key");
    let made = run(["hub", "secret", "gen", "--json", "--out", text(&file)]).exits(0).result();
    assert_documented(&made, "tidegate hub secret gen, secret id");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let secret = read_key_file(&file).expect("a key");
    assert_eq!(made["key_id"], secret.key_id().to_string());
    let shown = run(["hub", "secret", "id", text(&file)]).exits(0).stdout;
    assert_eq!(shown, format!("{}\n", secret.key_id()));
    let again = run(["hub", "secret", "gen", "--json", "--out", text(&file)]);
    assert_eq!(again.exits(1).error().0, "io");
    let missing = place.path().join("none");
    assert_eq!(run(["hub", "secret", "id", "--json", text(&missing)]).exits(5).error().0, "not_found");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("ours");
    assert_eq!(run(["hub", "secret", "id", "--json", text(&file)]).exits(6).error().0, "not_private");
}

/// A channel with a secret is found by whoever has its key file.
///
/// Rules: DH-165.
#[test]
fn a_channel_with_a_secret_is_discovered_with_its_key() {
    let place = place();
    let key = place.path().join("k");
    run(["hub", "secret", "gen", "--out", text(&key)]).exits(0);
    let secret = read_key_file(&key).expect("a key");
    let mut spec = block(place.path(), "locked").descriptor().spec.clone();
    spec.security = SecurityLevel::AttachTag;
    let options =
        CreateOptions { dir: place.path().to_owned(), secret: Some(&secret), ..CreateOptions::default() };
    let made = create(&spec, &options).expect("a block");
    let mut broker = tidegate();
    broker.args(["hub", "broker", "run", "--json", "--runtime-dir"]).arg(place.path().join("run"));
    let broker = Running::start(broker.arg("--blocks").arg(place.path()));
    let ready = broker.json();
    let endpoint = ready["endpoint"].as_str().expect("an endpoint");
    let register = Register::of_block(made.descriptor(), made.own_key()).expect("a registration");
    let name = ChannelName::new("locked").expect("a name");
    let producer = hub(endpoint, "p");
    let verifier = Verifier::of(&secret, &name);
    let _registration = producer.register(register, Some(verifier), SOON).expect("registered");
    let ask = ["hub", "discover", "locked", "--json", "--endpoint", endpoint];
    assert_eq!(run(ask).exits(6).error().0, "auth_failed");
    let found = run([&ask[..], &["--secret", text(&key)]].concat()).exits(0).result();
    assert_eq!(found["shm_name"], made.descriptor().file_name());
    broker.signal(rustix::process::Signal::TERM);
    broker.finish().exits(0);
}

const ONE: &str = "tds1 Pose size=8 align=8 {id:u64@0+8}";
const MORE: &str = "tds1 Pose size=16 align=8 {id:u64@0+8;x:f64?@8+8}";

/// Hash, comparison and contents of schemas, of files and of blocks.
///
/// Rules: DH-169, DH-176, DH-266, DH-267.
#[test]
fn schemas_are_hashed_compared_and_shown() {
    let place = place();
    let [one, more] = [("one", ONE), ("more", MORE)].map(|(name, schema)| {
        let path = place.path().join(name);
        fs::write(&path, format!("{schema}\n")).expect("room");
        path
    });
    let schema = Schema::parse(ONE).expect("canonical");
    let hash = schema.hash().to_string();
    assert_eq!(run(["hub", "schema", "hash", text(&one)]).exits(0).stdout.trim(), hash);
    let hashed = run(["hub", "schema", "hash", "--json", text(&one)]).exits(0).result();
    assert_documented(&hashed, "tidegate hub schema hash");
    assert_eq!(run(["hub", "schema", "hash", "--json", "no@1"]).exits(2).error().0, "bad_schema");

    let diff = |args: &[&str]| run([&["hub", "schema", "diff", "--json"][..], args].concat());
    let told = diff(&[text(&one), text(&more)]).exits(3).result();
    assert_documented(&told, "tidegate hub schema diff");
    assert!(told["first_difference"].as_str().expect("one").contains('x'), "{told}");
    diff(&[text(&one), text(&more), "--allow-appended"]).exits(0);

    let mut spec = block(place.path(), "pose").descriptor().spec.clone();
    let schema_hash = *schema.hash().as_bytes();
    spec.schema = SchemaInfo {
        slot_hash: schema_hash,
        version: (1, 0),
        struct_size: 8,
        struct_align: 8,
        text: ONE.to_owned(),
    };
    let options = CreateOptions { dir: place.path().to_owned(), ..CreateOptions::default() };
    let made = create(&spec, &options).expect("a block");
    let name = Descriptor::file_name(made.descriptor());
    let before = fs::read(made.path()).expect("a block");
    let in_dir = ["--dir", text(place.path())];
    let shown = run([&["hub", "schema", "show", "--json", &name][..], &in_dir].concat()).exits(0).result();
    assert_documented(&shown, "tidegate hub schema show");
    assert_eq!((&shown["slots"]["hash"], &shown["slots"]["text"]), (&hash.clone().into(), &ONE.into()));
    let page = run([&["hub", "schema", "show", &name][..], &in_dir].concat()).exits(0).stdout;
    assert!(page.contains(ONE) && page.contains("FIELD"), "{page}");
    diff(&[&[text(&one), &name][..], &in_dir].concat()).exits(0);
    assert_eq!(fs::read(made.path()).expect("a block"), before, "looking changes nothing");
}

/// Every block of a directory is listed with its producer; one that is damaged with the reason.
///
/// Rules: DH-264, DH-266, DH-267.
#[test]
fn all_blocks_are_listed() {
    let place = place();
    let list = |args: &[&str]| run([&["hub", "list", "--dir", text(place.path())][..], args].concat());
    assert!(list(&[]).exits(0).stdout.contains("no blocks"));
    let made = block(place.path(), "sensor.one");
    fs::write(place.path().join("tidegate_broken_00000001"), vec![1; 1 << 16]).expect("room");
    let told = list(&["--json"]).exits(0).result();
    assert_documented(&told, "tidegate hub list");
    let blocks = told["blocks"].as_array().expect("a list");
    assert_eq!(blocks[0]["state"], "UNREADABLE");
    let one = &blocks[1];
    assert_eq!((&one["name"], &one["state"]), (&made.descriptor().file_name().into(), &"READY".into()));
    assert_eq!(one["producer"]["pid"], std::process::id());
    let page = list(&[]).exits(0).stdout;
    assert!(page.contains("2 blocks: 1 ready, 1 unreadable\n  tidegate_broken_00000001: "), "{page}");
    let missing = place.path().join("none");
    assert_eq!(run(["hub", "list", "--json", "--dir", text(&missing)]).exits(5).error().0, "not_found");
}
