//! Small file systems that only one test sees: mounted in a mount namespace of their own, gone with the thread.

use std::{ffi::CStr, path::Path};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Mounts a file system of `kind` with `options` on a new directory and runs `test` there.
pub(crate) fn with_mount(kind: &str, options: &'static CStr, test: impl FnOnce(&Path) + Send) {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: file descriptors stay shared.
            let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNS) };
            unshared.expect("this test mounts a file system and needs CAP_SYS_ADMIN: run it as root");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
                .expect("mounts of this test can be kept private");
            mount("test", place, kind, MountFlags::empty(), options)
                .unwrap_or_else(|error| panic!("cannot mount {kind} with {options:?}: {error}"));
            test(place);
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}
