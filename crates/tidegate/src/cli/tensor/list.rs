//! `tidegate tensor ls`: the streams of a node.

use clap::Args;

use crate::cli::overview::{NodeArgs, print_streams};
use crate::output::{Output, Stop};

#[derive(Debug, Args)]
#[command(after_help = "\
PRODUCER is the client id of the attached producer, POOLS the bytes per slot of each payload pool, MEMORY the shared \
memory of the current epoch.

Examples:
  tidegate tensor ls
  tidegate tensor ls --json | jq .leases")]
pub(crate) struct List {
    #[command(flatten)]
    node: NodeArgs,
}

impl List {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let status = self.node.find()?.status()?;
        print_streams(&status, output)
    }
}
