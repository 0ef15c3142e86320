//! How errors of a vertex end its commands (VX-860).

use tidegate::operations::OperationsError;
use tidegate::vertex::config::ConfigError;
use tidegate::vertex::lane::supervise::AttachError;
use tidegate::vertex::ledger::TakeoverError;
#[cfg(feature = "nats")]
use tidegate::vertex::nats::own::GroupError;
use tidegate::vertex::run::VertexError;
use tidegate::vertex::sink::SinkError;

use crate::output::{Exit, Report, VertexExit};

impl Report for ConfigError {
    fn exit(&self) -> Exit {
        Exit::Vertex(match self {
            Self::At { error, .. } => return error.exit(),
            Self::Read { .. } | Self::Schema { .. } => VertexExit::Unavailable,
            Self::Setting { .. } => VertexExit::Usage,
            _ => VertexExit::Config,
        })
    }

    fn code(&self) -> &'static str {
        match self {
            Self::At { error, .. } => error.code(),
            Self::Read { .. } | Self::Schema { .. } => "io",
            Self::Setting { .. } => "usage",
            _ => "config",
        }
    }
}

impl Report for OperationsError {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused { code: 404, .. } => Exit::NotFound,
            Self::Refused { .. } => Exit::Refused,
            _ => Exit::Vertex(VertexExit::Unavailable),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Refused { code: 404, .. } => "not_found",
            Self::Refused { .. } => "refused",
            Self::Unreachable { .. } => "unreachable",
            _ => "admin",
        }
    }
}

#[cfg(feature = "nats")]
impl Report for GroupError {
    fn exit(&self) -> Exit {
        match self {
            Self::Unknown(_) => Exit::NotFound,
            _ => Exit::Vertex(VertexExit::Unavailable),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "not_found",
            _ => "ownership",
        }
    }
}

impl Report for TakeoverError {
    fn exit(&self) -> Exit {
        Exit::Vertex(VertexExit::Ledger)
    }

    fn code(&self) -> &'static str {
        "takeover"
    }
}

impl Report for VertexError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(error) => error.exit(),
            Self::Worker(AttachError::Refused { code: "SCHEMA", .. }) => Exit::Vertex(VertexExit::Schema),
            // What does not fit the file that is there.
            Self::Sink(SinkError::Setting { .. }) => Exit::Vertex(VertexExit::Config),
            Self::Worker(_) | Self::Listen(_) | Self::Source(_) => Exit::Vertex(VertexExit::Unavailable),
            Self::Ownership(_) | Self::Sink(SinkError::Tensor { .. }) => {
                Exit::Vertex(VertexExit::Unavailable)
            }
            Self::Ledger(_) | Self::Regressed { .. } => Exit::Vertex(VertexExit::Ledger),
            Self::Protocol { .. } => Exit::Vertex(VertexExit::Protocol),
            Self::Behind { .. } => Exit::Vertex(VertexExit::Behind),
            Self::Fenced(_) | Self::Pending { .. } => Exit::Vertex(VertexExit::Fenced),
            _ => Exit::Vertex(VertexExit::Failed),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Worker(_) | Self::Listen(_) => "worker",
            Self::Source(_) => "source",
            Self::Sink(_) => "sink",
            Self::Ownership(_) => "ownership",
            Self::Regressed { .. } => "ownership_regressed",
            Self::Ledger(_) => "ledger",
            Self::Protocol { .. } => "protocol",
            Self::Behind { .. } => "behind",
            Self::Fenced(_) | Self::Pending { .. } => "fenced",
            _ => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

    use std::path::PathBuf;

    use tidegate::shm::clock::Nanos;
    use tidegate::vertex::fence::{FenceTable, Fenced, Quiesce, Reason, WriteKind};
    use tidegate::vertex::ledger::LedgerError;
    use tidegate_udf::ring::Violation;
    use tidegate_udf::wire::ids::{Generation, PartitionId};

    use super::*;

    /// What supervisors read (VX-860): restart on 69, 70, 75 and 78, and not on 64, 65 and 77.
    /// Cases: CT-24.
    /// Rules: VX-233, VX-422, VX-733, VX-860.
    #[test]
    fn each_error_has_its_exit_code() {
        let code = |error: &dyn Report| match error.exit() {
            Exit::Vertex(exit) => exit as i32,
            _ => 0,
        };
        let refused = |code| VertexError::Worker(AttachError::Refused { code, message: String::new() });
        let violation = Violation::Unpublished { position: 0 };
        let mut table = FenceTable::create(1, 1).unwrap();
        let (_, guard) = table.bind(PartitionId(0), Generation(1)).unwrap();
        let permit = guard.permit(WriteKind::Sink).unwrap();
        guard.revoke(Reason::Operator);
        let Quiesce::Pending(running) = guard.quiesce(|| false) else { panic!("the write is not over") };
        drop(permit);
        for (error, expected) in [
            (refused("SCHEMA"), 77),
            (refused("VERSION"), 69),
            (VertexError::Protocol { lane: 0, violation }, 76),
            (VertexError::Behind { partition: 0, epoch: 1, longest: Nanos(1) }, 78),
            (VertexError::Fenced(Fenced { generation: Generation(1) }), 75),
            (VertexError::Pending { partition: 0, running }, 75),
            (VertexError::Ledger(LedgerError::Damaged { what: "head" }), 73),
            (VertexError::Config(ConfigError::Setting { setting: String::new() }), 64),
            (VertexError::Config(ConfigError::Later { key: String::new(), phase: 3 }), 65),
        ] {
            assert_eq!(code(&error), expected, "{error}");
        }
        assert_eq!(code(&TakeoverError::Unknown { path: PathBuf::new() }), 73);
    }
}
