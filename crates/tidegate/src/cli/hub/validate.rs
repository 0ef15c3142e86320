//! `tidegate hub validate`: whether everything in a block is as it must be.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tidegate::hub::inspect::IntegrityReport;
use tidegate::hub::integrity::Digester;
use tidegate::hub::secret::read_key_file;

use super::block::{BlockArgs, problems};
use crate::output::{Output, Stop};

#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 7 when the header is damaged, so that nothing else can be looked at; 3 when anything else is.

Examples:
  tidegate hub validate --channel sensor_temperature
  tidegate hub validate tidegate_sensor_temperature_9f3c21ab --deep --json")]
pub(crate) struct Validate {
    #[command(flatten)]
    block: BlockArgs,
    /// Compute the digests of all slots, too. Where they take a key and there is none: whether each belongs to its slot
    #[arg(long)]
    deep: bool,
    /// Key file of the channel, for digests that take a key
    #[arg(long, value_name = "FILE", requires = "deep")]
    secret: Option<PathBuf>,
}

impl Validate {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let block = self.block.open()?;
        let secret = self.secret.as_deref().map(read_key_file).transpose()?;
        let report = match Digester::new(block.descriptor(), secret.as_ref()) {
            Ok(digester) if self.deep => block.integrity_of_payload(&|id, bytes| digester.slot(id, bytes).0),
            // There are none, or they need a key or an algorithm that is not here.
            _ => block.integrity(self.deep),
        };
        output.result(|| page(&report), || json!(report))?;
        problems(!report.is_valid())
    }
}

fn page(report: &IntegrityReport) -> String {
    let word = |valid: bool| if valid { "ok" } else { "INVALID" }.to_owned();
    let mut rows = vec![
        ("Header:", word(report.header_valid)),
        ("Region table:", word(report.header_valid)),
        ("Control words:", word(report.control_valid)),
        ("Slot states:", word(report.slot_states_valid)),
        ("Consumer rows:", word(report.rows_valid)),
        ("Locks:", word(report.locks_valid)),
    ];
    if let Some(valid) = report.checksums_valid {
        let (verified, present) = (report.checksums_verified, report.checksums_present);
        let known = if present == 0 {
            format!("{verified} verified")
        } else {
            format!("{present} present; name the key with --secret")
        };
        let others = report.checksums_not_applicable;
        rows.push(("Digests:", format!("{} ({known}, {others} not applicable)", word(valid))));
    }
    let mut page: String = rows.iter().map(|(name, value)| format!("{name:<15} {value}\n")).collect();
    page += &format!("Corrupted slots: {}\n", report.corrupted_slots.len());
    for damage in &report.findings {
        page += &format!("  {damage} -> {}\n", damage.remedy());
    }
    page + &format!("Overall: {}\n", if report.is_valid() { "VALID" } else { "INVALID" })
}
