//! State machines stay free of I/O, clocks and randomness: what a folder's code must not name, in its own words.
//!
//! | folder | is | must not name |
//! |---|---|---|
//! | `tidegate-io`, but the engine | data structures for any runtime (MQ-040) | the runtime, sockets |
//! | `tidegate-zmtp` | sans-IO (MQ-027, MQ-031) | also threads, clocks, random sources |
//! | `tidegate-mq` | glue above the engine (MQ-012) | the runtime, sockets, files |
//! | its `state` and `pattern` | pure (MQ-191) | also clocks and tasks |
//!
//! Test code is left out: files and folders called `tests`, and items under `#[cfg(test)]`.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::{Item, Meta};

use super::Finding;
use crate::workspace::RustSource;

struct Place {
    folder: &'static str,
    except: &'static [&'static str],
    /// Paths as they stand in a token stream.
    names: &'static [&'static str],
}

const PLACES: &[Place] = &[
    Place {
        folder: "crates/tidegate-io/src/",
        except: &["crates/tidegate-io/src/engine/"],
        names: &["compio", "socket2", "std :: net", "tokio"],
    },
    Place {
        folder: "crates/tidegate-zmtp/src/",
        except: &[],
        names: &[
            "compio",
            "socket2",
            "rustix",
            "std :: net",
            "std :: fs",
            "std :: thread",
            "Instant :: now",
            "SystemTime",
            "getrandom",
            "tokio",
        ],
    },
    Place {
        folder: "crates/tidegate-mq/src/",
        except: &[],
        names: &["compio", "socket2", "std :: net :: Tcp", "std :: fs", "UnixStream", "tokio"],
    },
    Place { folder: "crates/tidegate-mq/src/state/", except: &[], names: &["Instant", "Waker"] },
    Place { folder: "crates/tidegate-mq/src/pattern/", except: &[], names: &["Instant", "Waker"] },
];

/// Findings in one file.
pub(super) fn check(source: &RustSource) -> Vec<Finding> {
    let is_test = |part: &std::ffi::OsStr| part == "tests" || part == "tests.rs";
    if source.path.iter().any(is_test) {
        return Vec::new();
    }
    let names: Vec<_> = PLACES
        .iter()
        .filter(|place| source.path.starts_with(place.folder))
        .filter(|place| !place.except.iter().any(|except| source.path.starts_with(except)))
        .flat_map(|place| place.names)
        .collect();
    if names.is_empty() {
        return Vec::new();
    }
    let items = source.ast.items.iter().filter(|item| !is_for_tests(item));
    let code: TokenStream = items.map(ToTokens::to_token_stream).collect();
    let code = format!(" {code}");
    names
        .into_iter()
        .filter(|name| code.contains(&format!(" {name}")))
        .map(|name| {
            let name = name.replace(' ', "");
            Finding::new(&source.path, 0, format!("names `{name}`, which this layer must do without"))
        })
        .collect()
}

fn is_for_tests(item: &Item) -> bool {
    let attributes = match item {
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string();
            condition == "test" || condition.starts_with("all (test")
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn named(path: &str, text: &str) -> bool {
        !check(&RustSource::parse(Path::new(path), text.to_owned()).unwrap()).is_empty()
    }

    /// Rules: MQ-012, MQ-027, MQ-031, MQ-040.
    #[test]
    fn pure_layers_name_no_runtime_clock_or_socket() {
        let clock = "fn f() { let _ = std::time::Instant::now(); }";
        assert!(named("crates/tidegate-zmtp/src/session/mod.rs", clock));
        assert!(named("crates/tidegate-mq/src/state/core.rs", clock));
        assert!(!named("crates/tidegate-mq/src/context.rs", clock));
        let runtime = "use compio::net::TcpStream;";
        assert!(named("crates/tidegate-io/src/queue.rs", runtime));
        assert!(named("crates/tidegate-mq/src/wire.rs", runtime));
        assert!(!named("crates/tidegate-io/src/engine/worker.rs", runtime));
        assert!(named("crates/tidegate-zmtp/src/session/mod.rs", "fn f() { getrandom::fill(&mut []); }"));
        assert!(!named("crates/tidegate-zmtp/src/session/mod.rs", "fn f(now: Instant) {}"));
    }

    #[test]
    fn tests_may_do_as_they_like() {
        let text = "#[cfg(test)]\nmod tests { use std::net::TcpStream; }";
        assert!(!named("crates/tidegate-zmtp/src/a.rs", text));
        assert!(!named("crates/tidegate-zmtp/src/a/tests.rs", "use std::net::TcpStream;"));
        assert!(!named("crates/tidegate-zmtp/tests/a.rs", "use std::net::TcpStream;"));
    }
}
