//! Between endpoints as they are written and addresses as the engine and the system know them.

use tidegate_io::engine::{
    BindAddress, BindError, BindHost, EngineError, ListenError, StreamAddress, Target,
};

use crate::{
    endpoint::{BindEndpoint, ConnectEndpoint, EndpointError, Host, HostPort, LocalName},
    error::Error,
};

pub(super) fn endpoint_error(error: EndpointError) -> Error {
    match error {
        EndpointError::UnknownScheme { endpoint, scheme } => Error::ProtocolNotSupported { endpoint, scheme },
        EndpointError::NameTooLong(endpoint) => Error::NameTooLong(endpoint),
        other => Error::Endpoint(other),
    }
}

pub(super) fn listen_error(endpoint: &str, error: ListenError) -> Error {
    let endpoint = endpoint.to_owned();
    match error {
        ListenError::Engine(EngineError::Stopped) => Error::Terminated,
        ListenError::Engine(_) => Error::NoIoThread(endpoint),
        ListenError::Bind(error) => bind_error(endpoint, error),
        other => Error::System { what: endpoint, source: std::io::Error::other(other) },
    }
}

pub(super) fn bind_error(endpoint: String, error: BindError) -> Error {
    match error {
        BindError::InUse { .. } => Error::AddressInUse(endpoint),
        BindError::NoDevice { .. } => Error::NoDevice(endpoint),
        BindError::NameTooLong { .. } => Error::NameTooLong(endpoint),
        BindError::NoDirectory { .. } => Error::NotFound(endpoint),
        BindError::System { error, .. } if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
            Error::AddressNotAvailable(endpoint)
        }
        BindError::System { step, error } => {
            Error::System { what: format!("{endpoint}: cannot {step}"), source: error }
        }
        other => Error::System { what: endpoint, source: std::io::Error::other(other) },
    }
}

pub(super) fn bind_host(host: Host) -> BindHost {
    match host {
        Host::Any => BindHost::Any,
        Host::Address(address, None) => BindHost::Ip(address),
        Host::Address(address, Some(zone)) => BindHost::Name(format!("{address}%{zone}")),
        Host::Name(name) => BindHost::Name(name),
    }
}

pub(super) fn bind_address(endpoint: BindEndpoint) -> BindAddress {
    match endpoint {
        BindEndpoint::Tcp(HostPort { host, port }) => BindAddress::Tcp { host: bind_host(host), port },
        BindEndpoint::Ipc(LocalName::Path(path)) => BindAddress::Path(path),
        BindEndpoint::Ipc(LocalName::Abstract(name)) => BindAddress::Abstract(name),
        BindEndpoint::Ipc(LocalName::Any) | BindEndpoint::Inproc(_) => BindAddress::PrivatePath,
    }
}

pub(super) fn target(endpoint: ConnectEndpoint) -> Target {
    match endpoint {
        ConnectEndpoint::Tcp { source, target } => Target::Tcp {
            host: match target.host {
                Host::Address(address, None) => address.to_string(),
                Host::Address(address, Some(zone)) => format!("{address}%{zone}"),
                Host::Name(name) => name,
                Host::Any => String::new(),
            },
            port: target.port,
            source: source.map(|source| (bind_host(source.host), source.port)),
        },
        ConnectEndpoint::Ipc(LocalName::Path(path)) => Target::Path(path),
        ConnectEndpoint::Ipc(LocalName::Abstract(name)) => Target::Abstract(name),
        ConnectEndpoint::Ipc(LocalName::Any) | ConnectEndpoint::Inproc(_) => Target::Path(Default::default()),
    }
}

/// The endpoint of an address that the system knows.
pub(crate) fn resolved(address: &StreamAddress) -> String {
    match address {
        StreamAddress::Ip(address) => format!("tcp://{address}"),
        StreamAddress::Path(path) => format!("ipc://{}", path.display()),
        StreamAddress::Abstract(name) => format!("ipc://@{}", String::from_utf8_lossy(name)),
        StreamAddress::Unnamed => String::new(),
    }
}
