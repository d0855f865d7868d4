//! Netlink: messages as bytes, and a socket that sends a batch of them and reads the answers.
//!
//! Used for both families we speak, `NETLINK_ROUTE` (links, addresses, routes) and `NETLINK_NETFILTER` (nf_tables,
//! conntrack). It knows framing and errors; what the attributes mean is in [`crate::link`] and [`crate::nft`].

pub(crate) mod message;
pub(crate) mod socket;

pub(crate) use message::{AttributeReader, Attributes, Batch, Step};
pub(crate) use socket::{Family, Socket};
