//! Brokers of nodes.

use std::path::Path;
use std::time::Duration;

use tidegate::hub::broker::BrokerAddress;

use super::{Check, Finding};
use crate::cli::hub::ask_broker_of;
use crate::cli::text;

/// A broker on this host answers at once, or something is wrong with it.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the broker of a node whose process lives; nothing is said where a node has none.
pub(super) fn look(dir: &Path) -> Option<Finding> {
    let path = BrokerAddress::file(dir);
    let problem = |message: String, advice: &str| {
        Finding::problem(Check::Broker, Some(&path), message, advice.to_owned())
    };
    let address = match BrokerAddress::read(dir) {
        Ok(address) => address?,
        Err(error) => return Some(problem(error.to_string(), "stop the node and start it again")),
    };
    if address.public_key.is_some() {
        let message = format!(
            "listens at {} with CURVE; ask it with `tidegate hub broker status --curve-secret FILE`",
            address.endpoint
        );
        return Some(Finding::ok(Check::Broker, Some(&path), message));
    }
    Some(match ask_broker_of(&address, TIMEOUT) {
        Ok(report) => {
            let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
            let message = format!(
                "answers at {}, {}, {}",
                address.endpoint,
                text::count(count(report.counters.channels), "channel"),
                text::count(count(report.counters.attachments), "consumer"),
            );
            Finding::ok(Check::Broker, Some(&path), message)
        }
        Err(error) => {
            problem(format!("gives no answer: {error}"), "data flow on without it; see the log of the node")
        }
    })
}
