//! Whom a listener lets in by address or by user, before any handshake (MQ-267, MQ-305, MQ-321).

use std::{fmt, net::IpAddr, str::FromStr};

use tidegate_io::{engine::StreamAddress, protocol::StreamInfo};

use super::Options;
use crate::error::Error;

/// A network of IP addresses, written `192.0.2.0/24`; without a length it is one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpFilter {
    network: IpAddr,
    bits: u8,
}

impl IpFilter {
    /// Whether `address` is in the network. An IPv4 address that arrived by an IPv6 socket counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.bits);
                let beyond = network.to_bits() ^ address.to_bits();
                beyond.checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                let beyond = network.to_bits() ^ address.to_bits();
                beyond.checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for IpFilter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |problem| Error::InvalidOption { option: "tcp_accept_filter", problem };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let network: IpAddr =
            address.parse().map_err(|_| invalid("write an IP address, or a network as 192.0.2.0/24"))?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(digits) => match digits.parse::<u8>() {
                Ok(bits) if bits <= most && digits.bytes().all(|byte| byte.is_ascii_digit()) => bits,
                _ => return Err(invalid("a network's length is 0 to 32 bits, or 128 with IPv6")),
            },
        };
        Ok(Self { network, bits })
    }
}

impl fmt::Display for IpFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.bits)
    }
}

/// Whom a listener lets in.
#[derive(Debug)]
pub(crate) struct Admission {
    networks: Vec<IpFilter>,
    processes: Vec<u32>,
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Options {
    pub(crate) fn admission(&self) -> Admission {
        Admission {
            networks: self.tcp_accept_filter.clone(),
            processes: self.ipc_filter_pid.clone(),
            users: self.ipc_filter_uid.clone(),
            groups: self.ipc_filter_gid.clone(),
        }
    }
}

impl Admission {
    /// Whether the stream may stay.
    pub(crate) fn admits(&self, stream: &StreamInfo) -> bool {
        if let StreamAddress::Ip(address) = &stream.peer {
            return self.networks.is_empty()
                || self.networks.iter().any(|network| network.contains(address.ip()));
        }
        if self.processes.is_empty() && self.users.is_empty() && self.groups.is_empty() {
            return true;
        }
        stream.credentials.is_some_and(|who| {
            let process = u32::try_from(who.pid).is_ok_and(|pid| self.processes.contains(&pid));
            process || self.users.contains(&who.uid) || self.groups.contains(&who.gid)
        })
    }
}
