//! Which of compio's drivers a worker runs on (MQ-037, MQ-038).

use std::io;

use compio::{
    driver::{DriverType, ProactorBuilder, op::OpCodeFlag},
    runtime::{Runtime, RuntimeBuilder},
};

/// The driver that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring where the system allows it with every operation that is used, else polling.
    #[default]
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Polling,
}

/// The driver that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring.
    IoUring,
    /// epoll.
    Polling,
}

impl Driver {
    /// Its name in options, the environment and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Polling => "polling",
        }
    }
}

/// Submission entries of a worker's ring, which is also how many events one look at epoll brings.
const CAPACITY: u32 = 256;

/// A runtime for the calling thread.
pub(super) fn runtime(choice: DriverChoice) -> io::Result<Runtime> {
    match choice {
        DriverChoice::Polling => polling(),
        DriverChoice::IoUring => io_uring(),
        DriverChoice::Auto => io_uring().or_else(|error| {
            tracing::debug!(%error, "io_uring is not available, using epoll");
            polling()
        }),
    }
}

/// What `runtime` runs on.
pub(super) fn driver_of(runtime: &Runtime) -> Driver {
    if runtime.driver_type().is_iouring() { Driver::IoUring } else { Driver::Polling }
}

fn polling() -> io::Result<Runtime> {
    let mut proactor = ProactorBuilder::new();
    proactor.driver_type(DriverType::Poll).capacity(CAPACITY);
    RuntimeBuilder::new().with_proactor(proactor).build()
}

fn io_uring() -> io::Result<Runtime> {
    let mut proactor = ProactorBuilder::new();
    proactor
        .driver_type(DriverType::IoUring)
        .detect_opcode_support(
            OpCodeFlag::Recv
                | OpCodeFlag::Read
                | OpCodeFlag::SendMsg
                | OpCodeFlag::PollAdd
                | OpCodeFlag::AsyncCancel,
        )
        .capacity(CAPACITY);
    let plain = proactor.clone();
    // One thread submits, and it is only interrupted where it waits: fewer interruptions since Linux 6.1. The flag makes a
    // look at the ring that does not wait collect what is done, too: while there always is something to do, no look waits.
    proactor.single_issuer(true).defer_taskrun(true).taskrun_flag(true);
    RuntimeBuilder::new()
        .with_proactor(proactor)
        .build()
        .or_else(|_| RuntimeBuilder::new().with_proactor(plain).build())
}
