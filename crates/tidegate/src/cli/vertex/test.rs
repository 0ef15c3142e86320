//! `tidegate vertex udf-test`: a function over the lines of a file.

use std::path::PathBuf;

use clap::Args;
use tidegate::vertex::config::Pipeline;

use super::run::execute;
use crate::output::{Output, Stop};

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tidegate vertex udf-test --udf './enrich --fast' --in orders.ndjson --out enriched.ndjson")]
pub(crate) struct UdfTest {
    /// The worker's program and its arguments, split at blanks
    #[arg(long, value_name = "CMD")]
    udf: String,
    /// The file whose lines are the records
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// Where outputs go, line by line; - is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    out: PathBuf,
}

impl UdfTest {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        execute(self.pipeline()?, false, output)
    }

    fn pipeline(&self) -> Result<Pipeline, Stop> {
        let command: Vec<String> = self.udf.split_whitespace().map(str::to_owned).collect();
        let sink = if self.out.as_os_str() == "-" {
            toml::toml! { name = "out" kind = "stdout" }
        } else {
            let mut sink = toml::toml! { name = "out" kind = "file" };
            sink.insert("path".to_owned(), path(&self.out)?);
            sink
        };
        let mut file = toml::toml! {
            version = 1
            [pipeline]
            name = "udf-test"
            delivery = "at_least_once"
        };
        let mut source = toml::toml! { kind = "file" };
        source.insert("path".to_owned(), path(&self.input)?);
        let mut udf = toml::Table::new();
        udf.insert("command".to_owned(), command.into());
        file.insert("source".to_owned(), source.into());
        file.insert("udf".to_owned(), udf.into());
        file.insert("sink".to_owned(), vec![sink].into());
        Ok(file.to_string().parse::<Pipeline>()?)
    }
}

fn path(path: &std::path::Path) -> Result<toml::Value, Stop> {
    let text = path.to_str().ok_or_else(|| Stop::usage(format!("{} is not UTF-8", path.display())))?;
    Ok(text.into())
}
