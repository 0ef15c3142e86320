//! `tidegate hub help`: help of commands, and the procedures for when something went wrong (DH-281).

use clap::{Args, CommandFactory};
use serde_json::json;

use crate::output::{Output, Stop};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tidegate hub help recovery\n  tidegate hub help diagnose")]
pub(crate) struct Help {
    /// `recovery`, or a command
    topic: Option<String>,
}

/// One procedure.
struct Procedure {
    id: &'static str,
    situation: &'static str,
    sign: &'static str,
    look: &'static str,
    act: &'static str,
    loss: &'static str,
}

impl Help {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        match self.topic.as_deref() {
            Some("recovery") => output.result(recovery, || json!({ "procedures": all_json() })),
            topic => help_of(topic, output),
        }
    }
}

fn help_of(topic: Option<&str>, output: &mut Output) -> Result<(), Stop> {
    let mut root = crate::cli::Cli::command();
    // So that usage lines have the whole name of the command.
    root.build();
    let hub = root.find_subcommand_mut("hub").ok_or_else(|| Stop::usage("there is no such command"))?;
    let command = match topic {
        None => Some(hub),
        Some(topic) => hub.find_subcommand_mut(topic),
    };
    let text = command.map(|command| command.render_long_help().to_string());
    let unknown = || {
        Stop::usage("no such topic; `tidegate hub help` lists the commands, `help recovery` the procedures")
    };
    let text = text.ok_or_else(unknown)?;
    output.result(|| text.clone(), || json!({ "help": text }))
}

fn recovery() -> String {
    let mut page = "Look first, then act. A process that lives is never touched without --force. All commands are `tidegate hub ...`.\n"
        .to_owned();
    for procedure in PROCEDURES {
        let Procedure { id, situation, sign, look, act, loss } = procedure;
        page +=
            &format!("\n{id}  {situation}\n  sign  {sign}\n  look  {look}\n  act   {act}\n  loss  {loss}\n");
    }
    page + AFTERWARDS
}

fn all_json() -> serde_json::Value {
    let one = |procedure: &Procedure| {
        let Procedure { id, situation, sign, look, act, loss } = procedure;
        json!({ "id": id, "situation": situation, "sign": sign, "look": look, "act": act, "loss": loss })
    };
    PROCEDURES.iter().map(one).collect()
}

const PROCEDURES: &[Procedure] = &[
    Procedure {
        id: "PR-1",
        situation: "A writer is stuck",
        sign: "writes time out, a slot is WRITING for more than 5 s",
        look: "diagnose",
        act: "owner dead: reset-slot --slot N, or start the producer again so that it adopts; alive: find out why (debugger)",
        loss: "the open ids",
    },
    Procedure {
        id: "PR-2",
        situation: "Dead consumers hold the ring back",
        sign: "the writer is blocked",
        look: "show-readers",
        act: "normally the writer removes them itself; else release-zombies --readers --apply",
        loss: "none",
    },
    Procedure {
        id: "PR-3",
        situation: "The producer died while writing",
        sign: "as PR-1",
        look: "status",
        act: "stop what is left of it, auto-recover --apply, start it again; it goes on with the next id",
        loss: "one id",
    },
    Procedure {
        id: "PR-4",
        situation: "The descriptor is damaged",
        sign: "attaching and validate end with exit code 7",
        look: "validate --json; save a copy of the file",
        act: "force-unlink --force; the producer makes it anew, consumers attach again",
        loss: "everything not consumed",
    },
    Procedure {
        id: "PR-5",
        situation: "A slot is damaged",
        sign: "checksum errors",
        look: "validate --deep",
        act: "consumers skip it; if it stays, reset-slot --slot N --discard",
        loss: "one slot",
    },
    Procedure {
        id: "PR-6",
        situation: "All locks are held by dead processes",
        sign: "locking times out or is told that it recovered the lock",
        look: "list-locks",
        act: "force-unlock-all, start the users again, repair what the zones hold",
        loss: "zone updates that were under way",
    },
    Procedure {
        id: "PR-7",
        situation: "Shared memory is full",
        sign: "NoSpace when making a block",
        look: "list; df /dev/shm",
        act: "reclaim, then reclaim --apply; enlarge: mount -o remount,size=2G /dev/shm; never delete by age alone",
        loss: "none",
    },
    Procedure {
        id: "PR-8",
        situation: "A consumer never lets go",
        sign: "a claim older than 5 min",
        look: "show-readers",
        act: "end that process; its row is removed by itself",
        loss: "none",
    },
    Procedure {
        id: "PR-9",
        situation: "The broker is gone",
        sign: "discovery fails, data flow",
        look: "the log of the broker",
        act: "start it again; producers register by themselves",
        loss: "none",
    },
    Procedure {
        id: "PR-10",
        situation: "A handover does not end",
        sign: "status shows prepared or cut over for long",
        look: "status",
        act: "auto-recover --apply",
        loss: "none",
    },
    Procedure {
        id: "PR-11",
        situation: "Two producers are configured",
        sign: "Locked, or CONFLICT LIVE_OWNER",
        look: "list; status",
        act: "stop one",
        loss: "none",
    },
];

const AFTERWARDS: &str = "
Stopping everything: producers, then consumers (by service manager or pid); list; reclaim --apply; force-unlink what is
left; then broker, producers, consumers again.

  [ ] applications stopped
  [ ] /dev/shm/tidegate_* copied, if the cause is to be found
  [ ] every block looked at with validate --deep
  [ ] damaged ones removed
  [ ] broker running
  [ ] producers running
  [ ] consumers running
  [ ] status healthy, metrics moving
  [ ] logs watched for it to come again
";
