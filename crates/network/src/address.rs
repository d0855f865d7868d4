//! Addresses of one subnet, given out in turn: a bitmap in memory, rebuilt from the live endpoints after a restart.
//!
//! The search goes on from the last address given, so that one that has just become free is the last to be reused:
//! neighbours and connection tracking forget it meanwhile.

use std::net::Ipv4Addr;

use crate::error::NetworkError;
use crate::subnet::Subnet4;

#[derive(Debug)]
pub(crate) struct AddressPool {
    subnet: Subnet4,
    /// One bit for each address; set: not to be given out.
    taken: Vec<u64>,
    next: u32,
    in_use: usize,
}

impl AddressPool {
    pub(crate) fn new(subnet: Subnet4) -> Self {
        let words = usize::try_from(subnet.size().div_ceil(64)).expect("at most 2^24 addresses");
        let mut pool = Self { subnet, taken: vec![0; words], next: 2, in_use: 0 };
        for offset in [0, 1, subnet.size() - 1] {
            pool.set(offset, true);
        }
        pool
    }

    pub(crate) fn allocate(&mut self) -> Result<Ipv4Addr, NetworkError> {
        let size = self.subnet.size();
        let offset = (self.next..size)
            .chain(2..self.next)
            .find(|offset| !self.is_taken(*offset))
            .ok_or_else(|| NetworkError::AddressesExhausted { subnet: self.subnet.to_string(), in_use: self.in_use })?;
        self.set(offset, true);
        self.in_use += 1;
        self.next = if offset + 1 < size { offset + 1 } else { 2 };
        Ok(self.subnet.address(offset))
    }

    /// Takes one particular address; `false` when it is taken, the gateway's or outside the subnet.
    pub(crate) fn claim(&mut self, address: Ipv4Addr) -> bool {
        match self.subnet.offset(address) {
            Some(offset) if !self.is_taken(offset) => {
                self.set(offset, true);
                self.in_use += 1;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        if let Some(offset) = self.subnet.offset(address)
            && (2..self.subnet.size() - 1).contains(&offset)
            && self.is_taken(offset)
        {
            self.set(offset, false);
            self.in_use -= 1;
        }
    }

    pub(crate) fn in_use(&self) -> usize {
        self.in_use
    }

    fn is_taken(&self, offset: u32) -> bool {
        let (word, bit) = place(offset);
        self.taken[word] & bit != 0
    }

    fn set(&mut self, offset: u32, taken: bool) {
        let (word, bit) = place(offset);
        if taken {
            self.taken[word] |= bit;
        } else {
            self.taken[word] &= !bit;
        }
    }
}

fn place(offset: u32) -> (usize, u64) {
    (usize::try_from(offset / 64).expect("at most 2^24 addresses"), 1 << (offset % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str) -> AddressPool {
        AddressPool::new(subnet.parse().unwrap())
    }

    #[test]
    fn every_address_but_network_gateway_and_broadcast_once() {
        let mut pool = pool("10.0.0.0/29");
        let given: Vec<_> = (0..5).map(|_| pool.allocate().unwrap().octets()[3]).collect();
        assert_eq!(given, [2, 3, 4, 5, 6]);
        let refused = pool.allocate().unwrap_err();
        assert_eq!(refused.to_string(), "no free address left in 10.0.0.0/29, all 5 are in use");
        pool.release(Ipv4Addr::new(10, 0, 0, 4));
        assert_eq!(pool.allocate().unwrap(), Ipv4Addr::new(10, 0, 0, 4));
    }

    #[test]
    fn a_freed_address_is_reused_last() {
        let mut pool = pool("10.0.0.0/29");
        let first = pool.allocate().unwrap();
        pool.release(first);
        let others: Vec<_> = (0..4).map(|_| pool.allocate().unwrap()).collect();
        assert!(!others.contains(&first));
        assert_eq!(pool.allocate().unwrap(), first);
    }

    #[test]
    fn claims_and_releases_are_exact() {
        let mut pool = pool("10.0.0.0/24");
        let address = Ipv4Addr::new(10, 0, 0, 9);
        assert!(pool.claim(address));
        assert!(!pool.claim(address), "twice");
        for reserved in [0, 1, 255] {
            assert!(!pool.claim(Ipv4Addr::new(10, 0, 0, reserved)), "{reserved}");
            pool.release(Ipv4Addr::new(10, 0, 0, reserved));
            assert!(!pool.claim(Ipv4Addr::new(10, 0, 0, reserved)), "{reserved} stays reserved");
        }
        assert!(!pool.claim(Ipv4Addr::new(10, 0, 1, 9)), "outside");
        pool.release(address);
        pool.release(address);
        assert_eq!(pool.in_use(), 0);
    }
}
