//! `tidegate vertex inspect`: what a ledger has.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use tidegate::vertex::PartitionId;
use tidegate::vertex::ledger::{LedgerError, inspect};

use super::super::text;
use crate::output::{Exit, Output, Report, Stop, VertexExit};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate vertex inspect /var/lib/tidegate/orders
  tidegate vertex inspect /var/lib/tidegate/orders --partition 3 --json")]
pub(crate) struct Inspect {
    /// The directory of the ledger
    ledger: PathBuf,
    /// One partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
}

impl Inspect {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let found = inspect(&self.ledger, self.partition.map(PartitionId))?;
        let found = found.ok_or_else(|| Stop::Error {
            exit: Exit::NotFound,
            code: "not_found",
            message: format!("there is no ledger in {}", self.ledger.display()),
        })?;
        if let Some(partition) = self.partition
            && found["partitions"].as_array().is_none_or(Vec::is_empty)
        {
            return Err(Stop::Error {
                exit: Exit::NotFound,
                code: "not_found",
                message: format!(
                    "the ledger in {} has nothing of partition {partition}: without --partition all are shown",
                    self.ledger.display()
                ),
            });
        }
        output.result(|| in_words(&found), || found.clone())
    }
}

fn in_words(found: &Value) -> String {
    let mut rows = vec![text::heading([
        "PARTITION",
        "EPOCH",
        "STATUS",
        "GENERATION",
        "FIRST",
        "LAST",
        "RESUME",
        "INPUTS",
        "OUTPUTS",
    ])];
    for partition in found["partitions"].as_array().into_iter().flatten() {
        let records = partition["records"].as_array().into_iter().flatten();
        for record in records.chain(Some(&partition["prepared"]).filter(|record| record.is_object())) {
            let mut row = vec![partition["partition"].to_string()];
            row.extend(
                ["epoch", "status", "generation", "first", "last", "resume", "inputs", "outputs"]
                    .map(|name| record[name].to_string().trim_matches('"').to_owned()),
            );
            rows.push(row);
        }
    }
    format!("pipeline {}\n{}", found["uid"].as_str().unwrap_or_default(), text::table(&rows))
}

impl Report for LedgerError {
    fn exit(&self) -> Exit {
        Exit::Vertex(VertexExit::Ledger)
    }

    fn code(&self) -> &'static str {
        "ledger"
    }
}
