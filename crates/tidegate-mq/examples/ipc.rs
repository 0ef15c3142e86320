//! Between processes of one host, without a port: a path, or a name that is no file.

use tidegate_mq::{Context, Pair, Result};

pub(crate) fn main() -> Result<()> {
    let context = Context::new();
    let abstract_name = format!("ipc://@tidegate-example-{}", std::process::id());
    // The star is a path of the system's choosing, in a directory that only this user can open.
    for endpoint in ["ipc://*", &abstract_name] {
        let one = Pair::new(&context)?;
        let bound = one.bind_blocking(endpoint)?;
        let two = Pair::new(&context)?;
        two.connect(&bound)?;
        two.send_blocking("hello")?;
        println!("{bound}: {:?}", one.recv_blocking()?);
    }
    Ok(())
}
