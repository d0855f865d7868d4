//! rtnetlink, as far as moving an interface between network namespaces needs it: links and addresses, one request at a time.
//!
//! A message is a header, a fixed structure and attributes, each padded to four bytes (netlink(7), rtnetlink(7)).

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE_EXCLUSIVE: u16 = 0x600;

const LINK_NAME: u16 = 3;
const LINK_NET_NS_FD: u16 = 28;
const ADDRESS_LABEL: u16 = 3;
const ADDRESS_CACHE: u16 = 6;
const ADDRESS_FLAGS: u16 = 8;
/// `IFA_F_PERMANENT`
const PERMANENT: u32 = 0x80;
const UP: u32 = 1;
/// Larger answers do not exist: the kernel fills at most 32 KiB a packet.
const ANSWER_MAX: usize = 1 << 16;
/// More packets than any host's tables fill.
const PACKETS_MAX: usize = 4096;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) is_up: bool,
}

/// A permanent address of global scope, ready to be given to another interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    /// Kind and value, without label, cache and flags.
    attributes: Vec<(u16, Vec<u8>)>,
}

/// A socket in the network namespace it was opened in, wherever its owner goes afterwards.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC;
        // NETLINK_ROUTE is protocol 0.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    /// All interfaces of the namespace.
    pub(crate) fn links(&self) -> Result<Vec<Link>, Errno> {
        let mut links = Vec::new();
        self.request(GET_LINK, DUMP, link_header(0, 0, 0), &[], |body| {
            let (header, attributes) = body.split_first_chunk::<16>().ok_or(Errno::BADMSG)?;
            let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let name = Attributes(attributes).find(|(kind, _)| *kind == LINK_NAME).map(|(_, value)| text(value));
            links.push(Link { index: word(4), name: name.unwrap_or_default(), is_up: word(8) & UP != 0 });
            Ok(())
        })?;
        Ok(links)
    }

    /// The addresses of an interface that are meant to last (runtime-spec config-linux, "Network Devices").
    pub(crate) fn lasting_addresses(&self, index: u32) -> Result<Vec<Address>, Errno> {
        let mut addresses = Vec::new();
        self.request(GET_ADDRESS, DUMP, vec![0; 8], &[], |body| {
            let (header, rest) = body.split_first_chunk::<8>().ok_or(Errno::BADMSG)?;
            let [family, prefix, flags, scope, i0, i1, i2, i3] = *header;
            if u32::from_ne_bytes([i0, i1, i2, i3]) != index || scope != 0 {
                return Ok(());
            }
            let wide = Attributes(rest).find(|(kind, _)| *kind == ADDRESS_FLAGS);
            let wide = wide.and_then(|(_, value)| value.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes)));
            let flags = wide.unwrap_or(u32::from(flags));
            if flags & PERMANENT != 0 {
                let kept = |kind: u16| ![ADDRESS_LABEL, ADDRESS_CACHE, ADDRESS_FLAGS].contains(&kind);
                let attributes =
                    Attributes(rest).filter(|(kind, _)| kept(*kind)).map(|(kind, value)| (kind, value.to_vec()));
                addresses.push(Address { family, prefix, flags, attributes: attributes.collect() });
            }
            Ok(())
        })?;
        Ok(addresses)
    }

    /// Gives an interface to another namespace, under a name that may end in `%d`.
    pub(crate) fn move_link(&self, index: u32, net_ns: &OwnedFd, name: &str) -> Result<(), Errno> {
        use std::os::fd::AsRawFd;
        let namespace = net_ns.as_raw_fd().to_ne_bytes();
        let name = [name.as_bytes(), &[0]].concat();
        let attributes = [(LINK_NET_NS_FD, namespace.as_slice()), (LINK_NAME, name.as_slice())];
        self.request(NEW_LINK, ACKNOWLEDGE, link_header(index, 0, 0), &attributes, |_| Ok(()))
    }

    pub(crate) fn set_up(&self, index: u32) -> Result<(), Errno> {
        self.request(NEW_LINK, ACKNOWLEDGE, link_header(index, UP, UP), &[], |_| Ok(()))
    }

    pub(crate) fn add_address(&self, index: u32, address: &Address) -> Result<(), Errno> {
        let [low, ..] = address.flags.to_le_bytes();
        let mut header = vec![address.family, address.prefix, low, 0];
        header.extend(index.to_ne_bytes());
        let flags = address.flags.to_ne_bytes();
        let mut attributes: Vec<(u16, &[u8])> =
            address.attributes.iter().map(|(kind, value)| (*kind, value.as_slice())).collect();
        attributes.push((ADDRESS_FLAGS, &flags));
        match self.request(NEW_ADDRESS, ACKNOWLEDGE | CREATE_EXCLUSIVE, header, &attributes, |_| Ok(())) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn request(
        &self,
        kind: u16,
        flags: u16,
        header: Vec<u8>,
        attributes: &[(u16, &[u8])],
        mut each: impl FnMut(&[u8]) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        rustix::net::send(&self.0, &message(kind, REQUEST | flags, &header, attributes)?, SendFlags::empty())?;
        let mut buffer = vec![0; ANSWER_MAX];
        for _ in 0..PACKETS_MAX {
            let (length, _) =
                rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()))?;
            if read_packet(buffer.get(..length).unwrap_or_default(), &mut each)? {
                return Ok(());
            }
        }
        Err(Errno::TOOBIG)
    }
}

/// Whether it was the last packet of an answer.
fn read_packet(packet: &[u8], each: &mut impl FnMut(&[u8]) -> Result<(), Errno>) -> Result<bool, Errno> {
    let mut rest = packet;
    while let Some((header, _)) = rest.split_first_chunk::<16>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::try_from(length).map_err(|_| Errno::BADMSG)?;
        let body = rest.get(16..length).ok_or(Errno::BADMSG)?;
        match u16::from_ne_bytes([header[4], header[5]]) {
            DONE => return Ok(true),
            ERROR => {
                let code = body.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                return if code == 0 { Ok(true) } else { Err(Errno::from_raw_os_error(-code)) };
            }
            _ => each(body)?,
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn message(kind: u16, flags: u16, header: &[u8], attributes: &[(u16, &[u8])]) -> Result<Vec<u8>, Errno> {
    let mut body = header.to_vec();
    for (kind, value) in attributes {
        let length = u16::try_from(value.len() + 4).map_err(|_| Errno::TOOBIG)?;
        body.extend(length.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(body.len() + 16).map_err(|_| Errno::TOOBIG)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    Ok(message)
}

/// `struct ifinfomsg`
fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut header = vec![0; 4];
    for word in [index, flags, change] {
        header.extend(word.to_ne_bytes());
    }
    header
}

struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1] = *self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The two upper bits say how a value is written, not what it is.
        Some((u16::from_ne_bytes([k0, k1]) & 0x3fff, value))
    }
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}
