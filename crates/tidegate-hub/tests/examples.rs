//! The examples, run: each ends by itself, and checks what it shows.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

#[path = "../examples/camera.rs"]
mod camera;
#[path = "../examples/counter.rs"]
mod counter;
#[path = "../examples/doubler.rs"]
mod doubler;
#[path = "../examples/fusion.rs"]
mod fusion;
#[path = "../examples/latest.rs"]
mod latest;
#[path = "../examples/logger.rs"]
#[allow(dead_code, reason = "its `main` starts the whole program again, which is this test")]
mod logger;

/// One test for each example that is all in one process.
macro_rules! run {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                crate::$name::main().expect(stringify!($name));
            }
        )*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

mod examples {
    run! {
        camera, counter, doubler, fusion, latest,
    }

    /// The consumers that it starts and kills are this test again.
    ///
    /// Rules: DH-285.
    #[test]
    fn logger() {
        crate::logger::run(&["--exact", "examples::logger", "--nocapture"]).expect("logger");
    }

    /// Rules: DH-285.
    #[test]
    fn none_is_left_out() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).expect("the folder");
        for file in folder {
            let path = file.expect("a file").path();
            let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
            // `round_trip` measures; `make test` runs it.
            assert!(NAMES.contains(&name) || ["logger", "round_trip"].contains(&name), "{name}");
        }
    }
}
