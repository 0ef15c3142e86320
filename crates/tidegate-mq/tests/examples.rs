//! The examples, run: each ends by itself, and checks what it shows.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

#[path = "../examples/blocking.rs"]
mod blocking;
#[path = "../examples/curve_auth.rs"]
mod curve_auth;
#[path = "../examples/graceful_shutdown.rs"]
mod graceful_shutdown;
#[path = "../examples/hello_dealer_router.rs"]
mod hello_dealer_router;
#[path = "../examples/inproc.rs"]
mod inproc;
#[path = "../examples/ipc.rs"]
mod ipc;
#[path = "../examples/last_value_cache.rs"]
mod last_value_cache;
#[path = "../examples/lazy_pirate.rs"]
mod lazy_pirate;
#[path = "../examples/monitor.rs"]
mod monitor;
#[path = "../examples/paranoid_pirate.rs"]
mod paranoid_pirate;
#[path = "../examples/pipeline.rs"]
mod pipeline;
#[path = "../examples/plain_auth.rs"]
mod plain_auth;
#[path = "../examples/pubsub_events.rs"]
mod pubsub_events;
#[path = "../examples/req_rep.rs"]
mod req_rep;
#[path = "../examples/steerable_proxy.rs"]
mod steerable_proxy;
#[path = "../examples/tokio.rs"]
mod tokio_runtime;
#[path = "../examples/worker_pool.rs"]
mod worker_pool;
#[path = "../examples/xpub_xsub_broker.rs"]
mod xpub_xsub_broker;
#[path = "../examples/zap_handler.rs"]
mod zap_handler;

/// One test for each example.
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
        blocking, curve_auth, graceful_shutdown, hello_dealer_router, inproc, ipc, last_value_cache, lazy_pirate, monitor, paranoid_pirate, pipeline, plain_auth, pubsub_events, req_rep, steerable_proxy, tokio_runtime, worker_pool, xpub_xsub_broker, zap_handler,
    }

    /// Rules: MQ-478.
    #[test]
    fn none_is_left_out() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).expect("the folder");
        for file in folder {
            let path = file.expect("a file").path();
            let name = path
                .file_stem()
                .and_then(|name| name.to_str())
                .expect("a name")
                .replace("tokio", "tokio_runtime");
            assert!(NAMES.contains(&name.as_str()), "{name}");
        }
    }
}
