//! Events for whom they concern: a subscriber gets what begins with its topic.

use std::time::Duration;

use tidegate_mq::{Context, Message, Pub, Result, Sub};

pub(crate) fn main() -> Result<()> {
    let context = Context::new();
    let publisher = Pub::new(&context)?;
    let endpoint = publisher.bind_blocking("tcp://127.0.0.1:*")?;
    let subscriber = Sub::new(&context)?;
    subscriber.subscribe("tide.high")?;
    subscriber.connect(&endpoint)?;

    // Without this, what is sent before the subscription has arrived is for nobody.
    publisher.wait_for_subscribers_blocking(b"tide.high", 1, Duration::from_secs(5))?;
    for (topic, level) in [("tide.low", "0.4"), ("tide.high", "3.1"), ("tide.high.spring", "4.2")] {
        publisher.send_blocking([topic, level].into_iter().collect::<Message>())?;
    }
    assert_eq!(subscriber.recv_blocking()?.parts()[1], "3.1");
    assert_eq!(subscriber.recv_blocking()?.parts()[1], "4.2");
    println!("two of three events concerned the subscriber");
    Ok(())
}
