//! `tidegate hub validate`: whether everything in a block is as it must be.

use clap::Args;
use serde_json::json;
use tidegate::hub::inspect::IntegrityReport;

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
    /// Look at the digests of all slots, too: whether each belongs to its slot
    #[arg(long)]
    deep: bool,
}

impl Validate {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let report = self.block.open()?.integrity(self.deep);
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
        let known = if present == 0 { format!("{verified} verified") } else { format!("{present} present") };
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
