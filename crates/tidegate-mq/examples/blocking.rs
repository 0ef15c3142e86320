//! Without any async runtime: every call that waits has a blocking form, and sockets may be shared by threads.

use std::{thread, time::Duration};

use tidegate_mq::{Context, Error, Options, Pull, Push, Result};

pub(crate) fn main() -> Result<()> {
    let context = Context::new();
    let mut options = Options::default();
    options.rcvtimeo = Some(Duration::from_millis(100));
    let pull = Pull::with_options(&context, options)?;
    let endpoint = pull.bind_blocking("tcp://127.0.0.1:*")?;
    assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)));
    assert!(matches!(pull.recv_blocking(), Err(Error::Timeout)));

    let push = Push::new(&context)?;
    push.connect(&endpoint)?;
    thread::scope(|scope| {
        for name in ["ann", "bob"] {
            let push = &push;
            scope.spawn(move || push.send_blocking(name).map_err(|failed| failed.error));
        }
    });
    println!("{:?} and {:?}", pull.recv_blocking()?, pull.recv_blocking()?);
    Ok(())
}
