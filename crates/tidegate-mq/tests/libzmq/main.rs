//! libzmq's own tests, told again for these sockets (chapter 17 of the specification, MQ-510).
//!
//! Every test names the libzmq test it answers to: `libzmq: FILE/CASE.`

#![allow(unreachable_pub, reason = "modules of one test binary")]

mod inproc;
mod link;
mod manual;
mod patterns;
mod publish;
mod raw;
mod request;
mod router;
mod support;
mod watermark;
