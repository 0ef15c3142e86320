//! How errors of a vertex end its commands (VX-860).

use tidegate::operations::OperationsError;
use tidegate::vertex::config::ConfigError;
use tidegate::vertex::lane::supervise::AttachError;
use tidegate::vertex::ledger::TakeoverError;
use tidegate::vertex::run::VertexError;

use crate::output::{Exit, Report, VertexExit};

impl Report for ConfigError {
    fn exit(&self) -> Exit {
        Exit::Vertex(match self {
            Self::Read { .. } => VertexExit::Unavailable,
            Self::Setting { .. } => VertexExit::Usage,
            _ => VertexExit::Config,
        })
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "io",
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
            Self::Worker(_) | Self::Source(_) => Exit::Vertex(VertexExit::Unavailable),
            Self::Ownership(_) => Exit::Vertex(VertexExit::Unavailable),
            Self::Ledger(_) | Self::Regressed { .. } => Exit::Vertex(VertexExit::Ledger),
            Self::Protocol { .. } => Exit::Vertex(VertexExit::Protocol),
            Self::Fenced(_) | Self::Pending { .. } => Exit::Vertex(VertexExit::Fenced),
            _ => Exit::Vertex(VertexExit::Failed),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Worker(_) => "worker",
            Self::Source(_) => "source",
            Self::Sink(_) => "sink",
            Self::Ownership(_) => "ownership",
            Self::Regressed { .. } => "ownership_regressed",
            Self::Ledger(_) => "ledger",
            Self::Protocol { .. } => "protocol",
            Self::Fenced(_) | Self::Pending { .. } => "fenced",
            _ => "failed",
        }
    }
}
