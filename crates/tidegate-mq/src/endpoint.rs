//! Endpoints: `tcp://host:port`, `ipc://path`, `inproc://name` (MQ-252 to MQ-257).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
};

use thiserror::Error;

/// Why an endpoint cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// There is no `://` in it, or nothing before it.
    #[error("\"{0}\" is not an endpoint; write tcp://HOST:PORT, ipc://PATH or inproc://NAME")]
    NoScheme(String),
    /// The scheme names a transport that is not there.
    #[error("{endpoint}: transport \"{scheme}\" is not supported; use tcp://, ipc:// or inproc://")]
    UnknownScheme {
        /// The endpoint as given.
        endpoint: String,
        /// What stands before `://`.
        scheme: String,
    },
    /// The part after `://` is not an address of that transport.
    #[error("{endpoint}: {problem}")]
    BadAddress {
        /// The endpoint as given.
        endpoint: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A socket name is longer than the operating system takes.
    #[error("{0}: longer than the 107 bytes a socket name may have")]
    NameTooLong(String),
}

/// A host as written in an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A numeric address, with the zone of a link-local one.
    Address(IpAddr, Option<String>),
    /// A name: of a host, or of a network interface where one is bound.
    Name(String),
    /// `*`: every address of this host.
    Any,
}

/// A host and a port; port 0 is any free one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// A place in the file system, or a name in Linux's abstract space.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LocalName {
    /// A socket file.
    Path(PathBuf),
    /// An abstract name, without the leading zero byte.
    Abstract(Vec<u8>),
    /// A file of the system's choosing in a fresh private directory; for binding only.
    Any,
}

/// Where a socket is bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BindEndpoint {
    /// TCP.
    Tcp(HostPort),
    /// A Unix socket.
    Ipc(LocalName),
    /// Inside this context.
    Inproc(String),
}

/// What a socket is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConnectEndpoint {
    /// TCP, from the given local address if there is one.
    Tcp {
        /// Local address to connect from.
        source: Option<HostPort>,
        /// The peer.
        target: HostPort,
    },
    /// A Unix socket.
    Ipc(LocalName),
    /// Inside this context.
    Inproc(String),
}

impl FromStr for BindEndpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (scheme, address) = split(text)?;
        match scheme {
            "tcp" => Ok(Self::Tcp(host_port(address, true).map_err(|problem| bad(text, problem))?)),
            "ipc" => Ok(Self::Ipc(local_name(text, address, true)?)),
            "inproc" => Ok(Self::Inproc(inproc_name(text, address)?)),
            _ => Err(EndpointError::UnknownScheme { endpoint: text.to_owned(), scheme: scheme.to_owned() }),
        }
    }
}

impl FromStr for ConnectEndpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (scheme, address) = split(text)?;
        match scheme {
            "tcp" => tcp_target(address).map_err(|problem| bad(text, problem)),
            "ipc" => Ok(Self::Ipc(local_name(text, address, false)?)),
            "inproc" => Ok(Self::Inproc(inproc_name(text, address)?)),
            _ => Err(EndpointError::UnknownScheme { endpoint: text.to_owned(), scheme: scheme.to_owned() }),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V4(address), _) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address), None) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V6(address), Some(zone)) => write!(f, "[{address}%{zone}]"),
            Self::Name(name) => f.write_str(name),
            Self::Any => f.write_str("*"),
        }
    }
}

fn split(text: &str) -> Result<(&str, &str), EndpointError> {
    match text.split_once("://") {
        Some((scheme, address)) if !scheme.is_empty() => {
            if address.is_empty() {
                Err(bad(text, "nothing stands after ://"))
            } else {
                Ok((scheme, address))
            }
        }
        _ => Err(EndpointError::NoScheme(text.to_owned())),
    }
}

fn bad(text: &str, problem: &'static str) -> EndpointError {
    EndpointError::BadAddress { endpoint: text.to_owned(), problem }
}

fn tcp_target(address: &str) -> Result<ConnectEndpoint, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-:%;[]_*".contains(&byte);
    if !address.bytes().all(allowed) {
        return Err("only letters, digits and . - : % ; [ ] _ may stand in an address to connect to");
    }
    let (source, target) = match address.split_once(';') {
        Some((source, target)) => (Some(host_port(source, true)?), target),
        None => (None, address),
    };
    let target = host_port(target, false)?;
    if target.host == Host::Any {
        return Err("* cannot be connected to; name the host");
    }
    Ok(ConnectEndpoint::Tcp { source, target })
}

/// Parses `host:port`; a wildcard port is allowed only where one is chosen by the system.
fn host_port(text: &str, may_choose: bool) -> Result<HostPort, &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing; write HOST:PORT")?;
    let port = match port {
        "*" | "0" if may_choose => 0,
        "*" | "0" => return Err("a port to connect to is a number from 1 to 65535"),
        digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map_err(|_| "a port is at most 65535")?
        }
        _ => return Err("the port is not a number"),
    };
    Ok(HostPort { host: host_name(host)?, port })
}

fn host_name(text: &str) -> Result<Host, &'static str> {
    if text == "*" {
        return Ok(Host::Any);
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Address(address.into(), None));
    }
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let (inner, must_be_address) = bracketed.map_or((text, false), |inner| (inner, true));
    let (plain, zone) = match inner.split_once('%') {
        Some((plain, zone)) if !zone.is_empty() => (plain, Some(zone.to_owned())),
        Some(_) => return Err("the zone after % is missing"),
        None => (inner, None),
    };
    if let Ok(address) = plain.parse::<Ipv6Addr>() {
        return Ok(Host::Address(address.into(), zone));
    }
    if must_be_address || zone.is_some() {
        Err("an IPv6 address is expected in brackets or before %")
    } else if text.is_empty() {
        Err("the host is missing; write HOST:PORT, or *:PORT to bind every address")
    } else if text.contains(':') && !is_interface_alias(text) {
        Err("the part before the port is not an IPv6 address")
    } else if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte)) {
        Ok(Host::Name(text.to_owned()))
    } else {
        Err("the host has characters that no host name has")
    }
}

/// `eth0:1`, the name of an interface's second address.
fn is_interface_alias(text: &str) -> bool {
    text.split_once(':').is_some_and(|(name, number)| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Longest name a Unix socket may have: 108 bytes less a zero at the end, or at the front of an abstract name.
const MAX_LOCAL_NAME: usize = 107;

fn local_name(text: &str, address: &str, binding: bool) -> Result<LocalName, EndpointError> {
    if address == "*" {
        return if binding {
            Ok(LocalName::Any)
        } else {
            Err(bad(text, "* cannot be connected to; name the socket"))
        };
    }
    if let Some(name) = address.strip_prefix('@') {
        return match name.len() {
            0 => Err(bad(text, "the name after @ is missing")),
            len if len > MAX_LOCAL_NAME => Err(EndpointError::NameTooLong(text.to_owned())),
            _ => Ok(LocalName::Abstract(name.as_bytes().to_vec())),
        };
    }
    if address.contains('\0') {
        return Err(bad(text, "a path cannot contain a zero byte"));
    }
    if address.len() > MAX_LOCAL_NAME {
        return Err(EndpointError::NameTooLong(text.to_owned()));
    }
    Ok(LocalName::Path(address.into()))
}

fn inproc_name(text: &str, address: &str) -> Result<String, EndpointError> {
    if address.len() > 256 {
        return Err(bad(text, "a name is at most 256 bytes long"));
    }
    if address.chars().any(char::is_control) {
        return Err(bad(text, "a name cannot contain control characters"));
    }
    Ok(address.to_owned())
}

#[cfg(test)]
mod tests;
