//! libzmq's own tests, told again for these sockets (chapter 17 of the specification, MQ-510).
//!
//! Every test names the libzmq test it answers to: `libzmq: FILE/CASE.`

mod endpoints;
mod inproc;
mod link;
mod patterns;
mod raw;
mod request;
mod router;
mod support;
mod watermark;
