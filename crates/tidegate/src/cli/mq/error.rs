//! How errors of messaging end a command.

use tidegate::mq::{Error, SendError};

use crate::output::{Exit, Report, exit_of_io};

impl Report for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Timeout => Exit::TimedOut,
            Self::Endpoint(_)
            | Self::ProtocolNotSupported { .. }
            | Self::InvalidOption { .. }
            | Self::NameTooLong(_) => Exit::Usage,
            Self::NotFound(_) | Self::NoDevice(_) | Self::AddressNotAvailable(_) | Self::HostUnreachable => {
                Exit::NotFound
            }
            Self::System { source, .. } => exit_of_io(source).0,
            _ => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Timeout => "timed_out",
            Self::Endpoint(_) | Self::ProtocolNotSupported { .. } | Self::NameTooLong(_) => "bad_endpoint",
            Self::InvalidOption { .. } => "usage",
            Self::NotFound(_) => "not_found",
            Self::NoDevice(_) | Self::AddressNotAvailable(_) => "no_such_address",
            Self::HostUnreachable => "no_peer",
            Self::PeerLost => "peer_lost",
            Self::AddressInUse(_) => "address_in_use",
            Self::IncompatibleProtocol { .. } => "wrong_type",
            Self::MessageTooLarge { .. } | Self::InvalidMessage(_) => "bad_message",
            Self::System { source, .. } => exit_of_io(source).1,
            _ => "messaging",
        }
    }

    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::NoDevice(_) | Self::AddressNotAvailable(_) => {
                Some("`ip address` lists the addresses of this host; * stands for all of them")
            }
            Self::NotFound(_) => Some("for ipc the directory must be there"),
            Self::HostUnreachable => {
                Some("the first part names the peer, as it came with a message of that peer")
            }
            _ => None,
        }
    }
}

impl Report for SendError {
    fn exit(&self) -> Exit {
        self.error.exit()
    }

    fn code(&self) -> &'static str {
        self.error.code()
    }

    fn remedy(&self) -> Option<&'static str> {
        self.error.remedy()
    }
}
