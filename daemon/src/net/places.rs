//! Places that are few: how many there are, and how many of them one address, or
//! one node, may hold.
//!
//! Used for handshakes, where nobody is known yet but by the address, and for nodes
//! that have not said hello. Only addresses that were shown to be real are counted:
//! a forged one would else keep its owner out.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard},
};

/// Places that each `K` holds some of.
#[derive(Debug)]
pub struct Places<K: Ord + Clone = IpAddr> {
    in_all: u32,
    of_one: u32,
    held: Mutex<BTreeMap<K, u32>>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub struct Place<K: Ord + Clone = IpAddr> {
    of: Arc<Places<K>>,
    holder: K,
}

impl Places {
    /// A place for `address`, if there is one for it.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        self.take_for(network_of(address))
    }
}

impl<K: Ord + Clone> Places<K> {
    /// So many places, of which one holder may have `of_one`.
    pub fn new(in_all: u32, of_one: u32) -> Arc<Self> {
        Arc::new(Self { in_all, of_one, held: Mutex::new(BTreeMap::new()) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, u32>> {
        self.held.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// A place for `holder`, if there is one for it.
    pub fn take_for(self: &Arc<Self>, holder: K) -> Option<Place<K>> {
        let mut held = self.lock();
        let of_one = held.get(&holder).copied().unwrap_or(0);
        if held.values().sum::<u32>() >= self.in_all || of_one >= self.of_one {
            return None;
        }
        held.insert(holder.clone(), of_one + 1);
        drop(held);
        Some(Place { of: self.clone(), holder })
    }
}

impl<K: Ord + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        let mut held = self.of.lock();
        match held.get_mut(&self.holder) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                held.remove(&self.holder);
            }
        }
    }
}

/// One customer has a whole network of IPv6 addresses: 64 bits count. An IPv4
/// address that came by an IPv6 socket is one customer's.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn nobody_holds_more_than_its_share_and_all_not_more_than_there_are() {
        let places = Places::new(5, 2);
        let [a, b, c] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(address);
        let first = places.take(a).unwrap();
        let _others = [places.take(a), places.take(b), places.take(b)].map(Option::unwrap);
        assert!(places.take(a).is_none(), "its share is used up");
        let last = places.take(c).unwrap();
        assert!(places.take(c).is_none(), "all are used up");
        drop(last);
        drop(first);
        let again = places.take(a).unwrap();
        assert!(places.take(a).is_none());
        drop((again, _others));
        assert!(places.lock().is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn a_network_of_ipv6_is_one_and_an_ipv4_address_is_itself() {
        let same = |a: &str, b: &str| network_of(address(a)) == network_of(address(b));
        assert!(same("2001:db8::1", "2001:db8::ffff:2"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
