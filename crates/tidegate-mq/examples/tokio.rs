//! From tokio with several threads. Any other runtime works alike: the futures need none of their own.
#![allow(clippy::expect_used, clippy::panic, reason = "an example may end that way")]

use tidegate_mq::{Context, Rep, Req, Result};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn main() -> Result<()> {
    let context = Context::new();
    let rep = Rep::new(&context)?;
    let endpoint = rep.bind("tcp://127.0.0.1:*").await?;
    let server = tokio::spawn(async move {
        for _ in 0..10 {
            let request = rep.recv().await?;
            rep.send(request).await?;
        }
        Ok::<_, tidegate_mq::Error>(())
    });
    let req = Req::new(&context)?;
    req.connect(&endpoint)?;
    for number in 0..10 {
        req.send(format!("{number}")).await?;
        assert_eq!(req.recv().await?.parts()[0], format!("{number}"));
    }
    println!("ten requests were answered");
    server.await.expect("the server does not panic")
}
