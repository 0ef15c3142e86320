//! Addresses of network interfaces, asked of the kernel by rtnetlink.
//!
//! ```text
//!   request:  nlmsghdr 16 octets | ifaddrmsg 8 octets, all zero but the header
//!   reply:    nlmsghdr | ifaddrmsg (family u8, prefix u8, flags u8, scope u8, index u32) | attributes
//!             attribute: length u16, type u16, data; messages and attributes are padded to 4 octets
//! ```
//!
//! Numbers are in the host's byte order.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, send, socket_with},
};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const REQUEST_ALL: u16 = 0x301;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const LINK_SCOPE: u8 = 253;

const HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// The first address of the interface `name`, or `None` if there is no such interface or it has no address of an
/// enabled family. With `ipv6`, one of IPv6 if the interface has any.
pub(super) fn address(name: &str, ipv6: bool) -> io::Result<Option<SocketAddr>> {
    let flags = SocketFlags::CLOEXEC;
    // No protocol is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    let any = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    let Ok(index) = netdevice::name_to_index(&any, name) else { return Ok(None) };
    send(&socket, &request(), SendFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let count = match recv(&socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((_, count)) => count,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if !collect(buffer.get(..count).unwrap_or_default(), index, &mut found) {
            break;
        }
    }
    let wanted = |v6: bool| found.iter().find(|address| address.is_ipv6() == v6).copied();
    Ok(if ipv6 { wanted(true).or_else(|| wanted(false)) } else { wanted(false) })
}

fn request() -> [u8; HEADER + ADDRESS_HEADER] {
    let mut request = [0; HEADER + ADDRESS_HEADER];
    let len = (HEADER + ADDRESS_HEADER) as u32;
    for (place, octets) in
        [(0, &len.to_ne_bytes()[..]), (4, &RTM_GETADDR.to_ne_bytes()), (6, &REQUEST_ALL.to_ne_bytes())]
    {
        if let Some(target) = request.get_mut(place..place + octets.len()) {
            target.copy_from_slice(octets);
        }
    }
    request
}

/// Adds the addresses of interface `index` to `found`; returns whether there are more messages to come.
fn collect(mut bytes: &[u8], index: u32, found: &mut Vec<SocketAddr>) -> bool {
    while let (Some(len), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let len = len as usize;
        if matches!(kind, NLMSG_DONE | NLMSG_ERROR) {
            return false;
        }
        let Some(body) = bytes.get(HEADER..len) else { return false };
        if kind == RTM_NEWADDR && u32_at(body, 4) == Some(index) {
            found.extend(one(body, index));
        }
        bytes = bytes.get(padded(len)..).unwrap_or_default();
    }
    true
}

/// The address of one message.
fn one(body: &[u8], index: u32) -> Option<SocketAddr> {
    let scope = *body.get(3)?;
    let mut address = None;
    let mut rest = body.get(ADDRESS_HEADER..)?;
    while let (Some(len), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let data = rest.get(4..usize::from(len))?;
        let ip = match data.len() {
            4 => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
            _ => None,
        };
        // On point-to-point links `IFA_ADDRESS` is the other end and `IFA_LOCAL` ours.
        if kind == IFA_LOCAL || (kind == IFA_ADDRESS && address.is_none()) {
            address = ip.or(address);
        }
        rest = rest.get(padded(usize::from(len))..).unwrap_or_default();
    }
    Some(match address? {
        IpAddr::V4(ip) => (ip, 0).into(),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, 0, 0, if scope == LINK_SCOPE { index } else { 0 }).into(),
    })
}

const fn padded(len: usize) -> usize {
    len.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], place: usize) -> Option<u16> {
    bytes.get(place..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], place: usize) -> Option<u32> {
    bytes.get(place..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Rules: MQ-255.
    #[test]
    fn the_loopback_interface_is_found() {
        let found = |name, ipv6| address(name, ipv6).unwrap().map(|address| address.ip().to_string());
        assert_eq!(found("lo", false).as_deref(), Some("127.0.0.1"));
        assert_eq!(found("lo", true).as_deref(), Some("::1"));
        assert_eq!(found("nosuchif0", true), None);
    }

    #[test]
    fn cut_messages_are_no_harm() {
        let mut message = Vec::new();
        message.extend_from_slice(&32_u32.to_ne_bytes());
        message.extend_from_slice(&RTM_NEWADDR.to_ne_bytes());
        message.extend_from_slice(&[0; 10]);
        message.extend_from_slice(&[2, 8, 0, 0]);
        message.extend_from_slice(&1_u32.to_ne_bytes());
        message.extend_from_slice(&8_u16.to_ne_bytes());
        message.extend_from_slice(&IFA_LOCAL.to_ne_bytes());
        message.extend_from_slice(&[127, 0, 0, 1]);
        for cut in 0..message.len() {
            let mut found = Vec::new();
            collect(&message[..cut], 1, &mut found);
            assert!(found.is_empty(), "{cut}");
        }
        let mut found = Vec::new();
        assert!(collect(&message, 1, &mut found));
        assert_eq!(found, ["127.0.0.1:0".parse().unwrap()]);
    }
}
