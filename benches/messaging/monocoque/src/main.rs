//! One end of a measurement with monocoque-rs, in its best documented mode for each metric: coalesced writes for rates,
//! eager ones for round trips.
//!
//! Speaks the protocol of `tidegate mq bench-peer`, and says `cannot` to what monocoque has not: in-process PAIR sockets
//! that talk both ways, a ROUTER with many peers, a socket with many connections.

mod paced;
mod publish;
mod rate;
mod task;
mod trips;
mod window;

use std::error::Error;

use monocoque::rt::LocalRuntime;
use serde_json::json;

use self::task::Task;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (role, rest) =
        args.split_first().ok_or("usage: monocoque-peer ROLE bind|connect ENDPOINT [NAME=VALUE]...")?;
    if role == "version" {
        task::print(
            &json!({ "version": "0.4", "options": "coalesced writes for rates, eager ones for round trips" }),
        );
        return Ok(());
    }
    let task = Task::parse(rest)?;
    LocalRuntime::new()?.block_on(async {
        match role.as_str() {
            "push" => rate::push(&task).await,
            "pull" => rate::pull(&task).await,
            "req" => trips::req(&task).await,
            "rep" => trips::rep(&task).await,
            "pub" => publish::publisher(&task).await,
            "subs" => publish::subscribers(&task).await,
            "topic-pub" => publish::topics(&task).await,
            "topic-sub" => publish::topic_subscriber(&task).await,
            "paced-push" => paced::push(&task).await,
            "paced-pull" => paced::pull(&task).await,
            _ => {
                task::print(&json!({ "cannot": format!("it has nothing for {role}") }));
                Ok(())
            }
        }
    })
}
