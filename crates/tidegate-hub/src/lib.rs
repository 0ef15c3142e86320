//! Typed channels between the processes of one host: data blocks in shared memory, a broker that says where they are, and
//! the tools that look into them and repair them.

#![forbid(unsafe_code)]
