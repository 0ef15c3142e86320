//! Hello: a DEALER asks, a ROUTER answers by name. No turns have to be kept.

use tidegate_mq::{Context, Dealer, Message, Router};

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let context = Context::new();
    let router = Router::new(&context)?;
    let endpoint = router.bind_blocking("tcp://127.0.0.1:*")?;
    let dealer = Dealer::new(&context)?;
    dealer.connect(&endpoint)?;

    dealer.send_blocking("hello")?;
    let (who, question) = router.recv_from_blocking()?;
    assert_eq!(question.parts()[0], "hello");
    router.send_to_blocking(who, "world")?;
    let answer: Message = dealer.recv_blocking()?;
    assert_eq!(answer.parts()[0], "world");
    println!("hello was answered");
    Ok(())
}
