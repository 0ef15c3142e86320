//! Our sockets and those of libzmq, of the releases that are in the field.
//!
//! The libraries are installed by `scripts/setup-libzmq.sh .venv/libzmq`, or into another directory that the environment
//! variable `TIDEGATE_LIBZMQ` names. A release that is missing fails its tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod cell;
mod matrix;
mod ours;
mod peer;
mod scenarios;
mod security;
mod series;
