//! What happens to the connections of a socket.

use std::time::Duration;

use tidegate_mq::{Context, Pull, Push, Result, monitor::EventKind};

pub(crate) fn main() -> Result<()> {
    let context = Context::new();
    let pull = Pull::new(&context)?;
    let monitor = pull.monitor();
    let endpoint = pull.bind_blocking("tcp://127.0.0.1:*")?;
    let push = Push::new(&context)?;
    push.connect(&endpoint)?;
    let mut push = Some(push);
    while let Some(event) = monitor.next_blocking(Some(Duration::from_secs(5)))? {
        println!("{} {:?}", event.endpoint, event.kind);
        match event.kind {
            // The connection is complete; now end it.
            EventKind::HandshakeSucceeded { .. } => drop(push.take()),
            EventKind::Disconnected { .. } => break,
            _ => {}
        }
    }
    Ok(())
}
