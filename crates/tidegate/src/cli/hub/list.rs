//! `tidegate hub list`: all blocks on this host.

use clap::Args;
use serde_json::{Value, json};
use tidegate::hub::block::{AttachError, Role, names};
use tidegate::hub::inspect::{BlockLife, Inspector, WriterInfo};

use super::block::DirArgs;
use super::format::liveness;
use crate::cli::text;
use crate::output::{Output, Report, Stop};

#[derive(Debug, Args)]
#[command(after_help = "\
Reads the directory of the blocks, with or without a broker. Blocks that cannot be opened are listed, too, with the reason.

With --json: one object {\"blocks\":[...],\"summary\":{...}}.

Examples:
  tidegate hub list
  tidegate hub list --json")]
pub(crate) struct List {
    #[command(flatten)]
    dir: DirArgs,
}

/// A block, or why it cannot be opened.
struct Listed {
    name: String,
    opened: Result<(Inspector, BlockLife), AttachError>,
}

impl List {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let options = self.dir.options(Role::Inspector);
        let open = |name: String| match Inspector::open(&name, &options) {
            Ok(block) => {
                let life = block.life();
                Some(Listed { name, opened: Ok((block, life)) })
            }
            // It went while this looked.
            Err(error) if Report::code(&error) == "not_found" => None,
            Err(error) => Some(Listed { name, opened: Err(error) }),
        };
        let blocks: Vec<Listed> = names(&self.dir.dir)?.into_iter().filter_map(open).collect();
        output.result(|| page(&blocks), || value(&blocks))
    }
}

fn page(blocks: &[Listed]) -> String {
    if blocks.is_empty() {
        return "no blocks; a producer makes one, such as `tidegate hub pub`".to_owned();
    }
    let head = ["NAME", "CHANNEL", "SIZE", "POLICY", "SLOTS", "PRODUCER", "CONSUMERS", "STATE"];
    let mut rows = vec![text::heading(head)];
    rows.extend(blocks.iter().map(row));
    format!("{}\n{}", text::table(&rows), summary(blocks))
}

fn row(listed: &Listed) -> Vec<String> {
    let Ok((block, life)) = &listed.opened else {
        let mut row = vec![listed.name.clone()];
        row.extend(std::iter::repeat_n("-".to_owned(), 6));
        row.push("UNREADABLE".to_owned());
        return row;
    };
    let descriptor = block.descriptor();
    let spec = &descriptor.spec;
    let WriterInfo { pid, liveness: known, .. } = block.diagnose().writer;
    let writer = (pid != 0).then(|| format!("{pid} {}", liveness(known)));
    vec![
        listed.name.clone(),
        spec.channel.to_string(),
        text::bytes(descriptor.geometry.total_size),
        spec.policy.to_string(),
        spec.slot_count.to_string(),
        text::or_dash(writer),
        block.consumers().len().to_string(),
        life_word(*life).to_owned(),
    ]
}

/// `2 blocks: 1 ready, 1 orphaned`, and why those that cannot be opened cannot be opened.
fn summary(blocks: &[Listed]) -> String {
    let lives = [
        BlockLife::Ready,
        BlockLife::Orphaned,
        BlockLife::Reclaimable,
        BlockLife::Closing,
        BlockLife::Closed,
        BlockLife::Building,
        BlockLife::Damaged,
    ];
    let count = |life| blocks.iter().filter(|block| block.is(life)).count();
    let counted = lives.iter().map(|life| (count(*life), life_word(*life).to_lowercase()));
    let unreadable: Vec<(&str, &AttachError)> =
        blocks.iter().filter_map(|block| Some((block.name.as_str(), block.opened.as_ref().err()?))).collect();
    let counted = counted.chain([(unreadable.len(), "unreadable".to_owned())]);
    let parts: Vec<String> =
        counted.filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    let reasons: String = unreadable.iter().map(|(name, error)| format!("\n  {name}: {error}")).collect();
    format!("{}: {}{reasons}", text::count(blocks.len(), "block"), parts.join(", "))
}

impl Listed {
    fn is(&self, life: BlockLife) -> bool {
        self.opened.as_ref().is_ok_and(|(_, found)| *found == life)
    }
}

fn value(blocks: &[Listed]) -> Value {
    let unreadable = blocks.iter().filter(|block| block.opened.is_err()).count();
    let count = |life| blocks.iter().filter(|block| block.is(life)).count();
    json!({
        "blocks": blocks.iter().map(block_value).collect::<Vec<_>>(),
        "summary": {
            "blocks": blocks.len(),
            "ready": count(BlockLife::Ready),
            "orphaned": count(BlockLife::Orphaned),
            "reclaimable": count(BlockLife::Reclaimable),
            "unreadable": unreadable,
        },
    })
}

fn block_value(listed: &Listed) -> Value {
    let (block, life) = match &listed.opened {
        Ok(opened) => opened,
        Err(error) => {
            return json!({ "name": listed.name, "state": "UNREADABLE", "reason": error.to_string() });
        }
    };
    let descriptor = block.descriptor();
    let spec = &descriptor.spec;
    json!({
        "name": listed.name,
        "channel": spec.channel.as_str(),
        "uuid": descriptor.uuid.to_string(),
        "size": descriptor.geometry.total_size.to_string(),
        "policy": spec.policy.to_string(),
        "sync": spec.sync.to_string(),
        "slot_count": spec.slot_count,
        "producer": block.diagnose().writer,
        "consumers": block.consumers().len(),
        "state": life_word(*life),
    })
}

fn life_word(life: BlockLife) -> &'static str {
    match life {
        BlockLife::Building => "BUILDING",
        BlockLife::Ready => "READY",
        BlockLife::Closing => "CLOSING",
        BlockLife::Closed => "CLOSED",
        BlockLife::Orphaned => "ORPHANED",
        BlockLife::Reclaimable => "RECLAIMABLE",
        BlockLife::Damaged => "DAMAGED",
    }
}
