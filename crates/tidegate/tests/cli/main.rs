//! The command line through the real binary.
#![allow(clippy::expect_used, reason = "a test may fail")]

mod command_line;
mod support;
mod tensor_config;
mod tensor_decode;
