//! Shared-memory foundation of Tidegate.
//!
//! Everything that several processes share stands on this crate. It knows no protocol and no data layout, only
//! mechanisms:
//!
//! | module | gives |
//! |---|---|
//! | [`region`] | creating, opening and mapping files so that hostile paths, modes and sizes are refused, and reading and writing the mapping without ever forming a reference to its bytes |
//! | [`commit`] | the commit word: a writer that never waits, readers that notice overwriting |
//! | [`doorbell`] | waking a sleeping process through shared memory |
//! | [`process`] | identity (pid, start time) and death of processes |
//! | [`fork`] | noticing that a handle was inherited by a forked child |
//! | [`host`] | the boot and the namespaces in which identities have a meaning |
//! | [`lock`] | one holder per directory, released by death |
//! | [`peer`] | who is at the other end of a Unix socket |
//! | [`clock`] | nanoseconds of the monotonic and the wall clock |
//! | [`secret`] | private memory for keys: not dumped, pinned, wiped |
//! | [`sync`] | the atomics everything above uses; loom's under `cfg(loom)` |
//!
//! # What a user may rely on
//!
//! - No safe function of this crate can cause undefined behaviour, whatever another process writes into a mapping. One duty
//!   remains with who forks: views of a [`region::GuardedRegion`] that were made before are used in the child only after
//!   [`fork::ForkGuard::check`].
//! - No function panics on input, and every wait takes a deadline on the monotonic clock.
//! - After [`region::AllowedBases::open`] and [`region::RegionFile::map`] nothing here allocates or enters the
//!   kernel, except a doorbell that has somebody to wake or has to sleep.
//!
//! # Limits
//!
//! Linux on 64-bit little-endian machines only; other targets do not compile (TP-004).
//!
//! A peer that may write a file can still end the processes that mapped it: truncating it, or leaving holes in it on a
//! file system that is full, raises SIGBUS at the next touch of a missing page. It cannot do more than that. Nothing at
//! attach time prevents it: lengths are checked when mapping, but can change a moment later; pinned pages are taken away
//! by truncation as well; and only anonymous memory files can be sealed, not files with a name. So file permissions
//! decide who can, and a region is never resized once it is announced (TP-054).

#[cfg(not(all(target_os = "linux", target_endian = "little", target_pointer_width = "64")))]
compile_error!("tidegate-shm supports 64-bit little-endian Linux only");

pub mod clock;
pub mod commit;
pub mod doorbell;
pub mod fork;
pub mod host;
pub mod lock;
pub mod peer;
pub mod process;
pub mod region;
pub mod secret;
pub mod sync;
