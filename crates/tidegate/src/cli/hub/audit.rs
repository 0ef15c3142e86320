//! `tidegate hub audit`: what was repaired or forced.

use clap::Args;
use serde_json::json;
use tidegate::hub::inspect::AuditRecord;

use super::block::BlockArgs;
use crate::cli::text;
use crate::output::{Output, Stop};

#[derive(Debug, Args)]
#[command(after_help = "\
The block keeps the newest 32 entries; the logs have all. Times are seconds since 1970.

Example:
  tidegate hub audit --channel sensor_temperature --json")]
pub(crate) struct Audit {
    #[command(flatten)]
    block: BlockArgs,
}

impl Audit {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let entries = self.block.open()?.audit();
        output.result(
            || if entries.is_empty() { "nothing was repaired or forced".to_owned() } else { table(&entries) },
            || json!({ "audit": entries }),
        )
    }
}

fn table(entries: &[AuditRecord]) -> String {
    let mut rows = vec![text::heading(["NO", "TIME", "BY", "DONE", "TARGET", "BEFORE", "AFTER"])];
    rows.extend(entries.iter().map(|entry| {
        vec![
            entry.sequence.to_string(),
            format!("{}.{:03}", entry.realtime_ns / 1_000_000_000, entry.realtime_ns / 1_000_000 % 1_000),
            text::or_dash(entry.actor.map(|actor| actor.pid())),
            if entry.forced { format!("{} FORCED", entry.operation) } else { entry.operation.to_owned() },
            entry.target.to_string(),
            format!("{:#x}", entry.before),
            format!("{:#x}", entry.after),
        ]
    }));
    text::table(&rows)
}
