//! A cache of last values: who subscribes late gets the newest value at once.

use std::collections::HashMap;

use tidegate_mq::{Context, Message, Options, Result, Sub, XPub};

pub(crate) fn main() -> Result<()> {
    let context = Context::new();
    let mut options = Options::default();
    // Every subscription is reported, also the second one of a topic, and the answer goes to that subscriber only.
    options.xpub_manual_last_value = true;
    let cache = XPub::with_options(&context, options)?;
    let endpoint = cache.bind_blocking("tcp://127.0.0.1:*")?;
    let values = HashMap::from([("height", "3.1"), ("flow", "0.7")]);

    for topic in ["height", "flow", "height"] {
        let late = Sub::new(&context)?;
        late.subscribe(topic)?;
        late.connect(&endpoint)?;
        let notice = cache.recv_blocking()?;
        let wanted = String::from_utf8_lossy(&notice.parts()[0].as_slice()[1..]).into_owned();
        cache.subscribe(&wanted)?;
        let value = values.get(wanted.as_str()).copied().unwrap_or("unknown");
        cache.send_blocking([wanted.as_str(), value].into_iter().collect::<Message>())?;
        assert_eq!(late.recv_blocking()?.parts()[1], values[topic]);
        // Its end is reported, too.
        drop(late);
        assert_eq!(cache.recv_blocking()?.parts()[0].as_slice()[0], 0);
    }
    println!("three late subscribers had the newest value at once");
    Ok(())
}
