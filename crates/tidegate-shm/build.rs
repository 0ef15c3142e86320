//! Sets `cfg(portable_copy)` for builds with a sanitizer, which cannot see into assembly.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(portable_copy)");
    if env::var_os("CARGO_CFG_SANITIZE").is_some() {
        println!("cargo::rustc-cfg=portable_copy");
    }
}
