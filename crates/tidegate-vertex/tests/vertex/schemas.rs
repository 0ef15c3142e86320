//! Schemas: what the pipeline file says of records, and what the function does.

use std::fs;

use tidegate_vertex::{lane::supervise::AttachError, run::VertexError};

use crate::{
    outside::{Outsider, Running},
    world::World,
};

/// What the function of role "typed" takes and makes.
pub(crate) const INPUT: &str = "{ \"required\": [\"id\", \"at\"], \"type\": \"object\" }\n";
pub(crate) const OUTPUT: &str = "syntax = \"proto3\";\nmessage Enriched {}";

const SOME: &str = "kind = \"generator\"\nrecords = 300";

fn expected() -> Vec<String> {
    (0..300).map(|position| format!("UPPER 0:{position}")).collect()
}

/// Keys of `[udf]` and the table `[schema]`, with files of these texts.
pub(crate) fn keys(world: &World, input: Option<&str>, output: Option<&str>, strict: bool) -> String {
    let mut keys = format!("attach_retries = 1\n[schema]\nstrict = {strict}\n");
    for (key, text) in [("in", input), ("out", output)] {
        if let Some(text) = text {
            let name = format!("schema-{key}");
            world.write(&name, text);
            keys.push_str(&format!("{key} = {:?}\n", world.path(&name)));
        }
    }
    keys
}

fn is_misfit(error: &VertexError) -> bool {
    matches!(error, VertexError::Worker(AttachError::Refused { code: "SCHEMA", .. }))
}

/// Cases: CT-15.
/// Rules: VX-422.
#[test]
fn a_function_gets_the_records_that_it_says_it_takes_and_no_others() {
    let (input, output) = (Some(INPUT), Some(OUTPUT));
    let other = Some("{}");
    for (role, input, output, strict, fits) in [
        ("typed", input, output, true, true),
        ("typed", input, output, false, true),
        ("typed", other, output, false, false),
        ("typed", input, other, false, false),
        ("typed", None, output, true, false),
        ("typed", input, None, true, false),
        ("typed", None, None, true, false),
        ("typed", None, None, false, true),
        ("upper", input, output, true, false),
        ("upper", input, output, false, true),
        ("upper", None, None, true, true),
    ] {
        let world = World::new();
        let case = format!("{role}, {input:?}, {output:?}, {strict}");
        let ended = world.run(role, &keys(&world, input, output, strict), SOME);
        let starts = fs::read_to_string(world.path("pids")).unwrap().lines().count();
        if fits {
            assert_eq!((ended.unwrap().delivered, starts), (300, 1), "{case}");
            assert_eq!(world.lines(), expected(), "{case}");
            continue;
        }
        let error = ended.expect_err(&case);
        assert!(is_misfit(&error), "{case}: {error}");
        // Tried once more; the function has seen nothing.
        assert_eq!((starts, world.lines().len(), world.path("called").exists()), (2, 0, false), "{case}");
    }
}

/// One that fits begins the count again.
/// Rules: VX-422.
#[test]
fn only_workers_in_a_row_count() {
    let world = World::new();
    // Each that fits is killed with the same input.
    let keys = "attach_retries = 1\nretry = { crash_attempts = 10 }";
    let vertex = Running::start(&world, keys, SOME);
    for _ in 0..2 {
        Outsider::of(&world, "typed").says("SCHEMA");
        let fits = Outsider::of(&world, "hold 10");
        vertex.attaches(1);
        drop(fits);
        vertex.attaches(0);
    }
    world.write("gate", "");
    let _fits = Outsider::of(&world, "hold 10");
    assert_eq!((vertex.ends().delivered, world.lines()), (300, expected()));
}

/// The same of workers that the vertex starts: of four the first and the third do not fit, and the second dies.
/// Rules: VX-422.
#[test]
fn only_starts_in_a_row_count() {
    let world = World::new();
    let keys = "attach_retries = 1\nretry = { crash_attempts = 10 }";
    let vertex = Running::of(world.start("fits by turns", keys, SOME).unwrap());
    assert_eq!((vertex.ends().delivered, world.lines()), (300, expected()));
    assert_eq!(fs::read_to_string(world.path("pids")).unwrap().lines().count(), 4);
}

/// A worker that takes a batch for one of another schema than its session has ends the vertex at once.
/// Rules: VX-422.
#[test]
fn a_worker_that_is_given_another_schema_ends_the_vertex() {
    let world = World::new();
    let vertex = Running::of(world.start("lie mismatch", "", SOME).unwrap());
    let error = vertex.ended().unwrap_err();
    assert!(is_misfit(&error), "{error}");
    assert!(error.to_string().contains("batch 1 "), "{error}");
    assert_eq!(world.lines(), Vec::<String>::new());
}

/// Both sides, and what to do, are named, and the files have to be there.
/// Rules: VX-422.
#[test]
fn schemas_that_do_not_fit_are_named() {
    let world = World::new();
    let error = world.run("typed", &keys(&world, Some("{}"), None, true), SOME).unwrap_err().to_string();
    let empty = tidegate_udf::SchemaId::of("{}").0;
    let (input, output) = (tidegate_udf::SchemaId::of(INPUT).0, tidegate_udf::SchemaId::of(OUTPUT).0);
    for part in [
        format!("inputs of schema {empty:016x} and outputs of 0 (untyped bytes)"),
        format!("the worker takes 0000000000000007, {input:016x} and makes {output:016x}"),
        "name the same in [schema] of the pipeline file and as schema_in and schema_out".to_owned(),
    ] {
        assert!(error.contains(&part), "{part}: {error}");
    }
    // Said only where it helps.
    let loose = "schema.strict = false";
    assert!(!error.contains(loose), "{error}");
    let error = world.run("typed", &keys(&world, Some(INPUT), None, true), SOME).unwrap_err().to_string();
    assert!(error.contains(loose), "{error}");
    let keys = keys(&world, Some(INPUT), None, true);
    fs::remove_file(world.path("schema-in")).unwrap();
    let error = world.start("typed", &keys, SOME).err().unwrap().to_string();
    assert!(error.contains("schema.in") && error.contains("schema-in"), "{error}");
}

/// Of workers that come by themselves: as long as one works, others are only refused.
/// Rules: VX-422.
#[test]
fn strangers_with_other_schemas_end_a_vertex_that_has_no_worker() {
    let world = World::new();
    let vertex = Running::start(&world, "attach_retries = 1", SOME);
    let _first = Outsider::of(&world, "hold 10");
    vertex.attaches(1);
    for _ in 0..3 {
        let mut typed = Outsider::of(&world, "typed");
        typed.says("SCHEMA");
        assert!(!typed.ends().success());
    }
    world.write("gate", "");
    assert_eq!((vertex.ends().delivered, world.lines()), (300, expected()));

    let world = World::new();
    let vertex = Running::start(&world, "attach_retries = 1", SOME);
    for _ in 0..2 {
        Outsider::of(&world, "typed").says("SCHEMA");
    }
    let error = vertex.ended().unwrap_err();
    assert!(is_misfit(&error), "{error}");
}
