//! What can wait until the caller has its answer: forgetting UDP flows of withdrawn and of new ports. TCP needs no help: what
//! was refused or reset has ended.
//!
//! A thread, started by the first chore. It keeps an address out of use until the flows to it are forgotten, so that no
//! packet meant for the last container reaches the next.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::conntrack::{self, Flows};
use crate::netlink::{Family, Socket};
use crate::network::Shared;
use crate::nft::Element;
use crate::port::Protocol;

/// Chores beyond this many are skipped: they are a courtesy to the packets, not to the kernel.
const CHORES_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) enum Chore {
    /// The container with these addresses, which had published a port of UDP, is gone; the IPv4 address is free afterwards.
    Gone(Vec<IpAddr>),
    /// These ports have just been published.
    Published(Vec<Element>),
}

#[derive(Debug, Default)]
pub(crate) struct Housekeeper {
    thread: Mutex<Option<(SyncSender<Chore>, JoinHandle<()>)>>,
}

impl Housekeeper {
    pub(crate) fn order(&self, shared: &Arc<Shared>, chore: Chore) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            *thread = start(shared);
        }
        let refused = match &*thread {
            Some((sender, _)) => sender.try_send(chore).err().map(|error| match error {
                std::sync::mpsc::TrySendError::Full(chore) | std::sync::mpsc::TrySendError::Disconnected(chore) => {
                    chore
                }
            }),
            None => Some(chore),
        };
        drop(thread);
        if let Some(chore) = refused {
            chore.finish(shared);
        }
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            drop(sender);
            drop(thread.join());
        }
    }
}

fn start(shared: &Arc<Shared>) -> Option<(SyncSender<Chore>, JoinHandle<()>)> {
    let (sender, receiver) = sync_channel(CHORES_MAX);
    let shared = Arc::clone(shared);
    let builder = std::thread::Builder::new().name("berth-net-tidy".to_owned()).stack_size(256 << 10);
    let thread = builder.spawn(move || work(&shared, &receiver)).ok()?;
    Some((sender, thread))
}

fn work(shared: &Shared, chores: &Receiver<Chore>) {
    // Without connection tracking there is nothing to forget, and the addresses are freed all the same.
    let mut socket = shared.in_host(|| Socket::open(Family::Netfilter)).ok();
    while let Ok(first) = chores.recv() {
        // Whatever has come together is done together: the walk through the kernel's table is what it costs.
        let together: Vec<Chore> = std::iter::once(first).chain(chores.try_iter()).collect();
        let flows: Vec<Flows> = together.iter().flat_map(Chore::flows).collect();
        if let Some(socket) = &mut socket {
            // A kernel that cannot list them keeps them until they time out, as it would without us.
            drop(conntrack::forget(socket, &flows));
        }
        together.iter().for_each(|chore| chore.finish(shared));
    }
}

impl Chore {
    fn flows(&self) -> Vec<Flows> {
        match self {
            Self::Gone(addresses) => addresses.iter().copied().map(Flows::AnsweredBy).collect(),
            Self::Published(elements) => {
                let udp = elements.iter().filter(|element| element.protocol() == Protocol::Udp);
                udp.map(|element| Flows::ToUnpublished { ipv6: element.is_ipv6(), port: element.host_port() }).collect()
            }
        }
    }

    fn finish(&self, shared: &Shared) {
        if let Self::Gone(addresses) = self {
            for address in addresses {
                if let IpAddr::V4(address) = address {
                    shared.state().addresses.release(*address);
                }
            }
        }
    }
}
