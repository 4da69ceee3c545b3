//! Who may be joining at once.
//!
//! Used by the daemon, for connections whose peer is not known yet, and by
//! [`super::enrol`]. Invariants: there is a place for whoever comes, because the one
//! who has waited longest, among those of the network that holds most places, makes
//! room; and nobody who has shown a good token does. So neither one address nor many
//! keep others out, unless they are faster than one round trip. Not here: deadlines.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio_util::sync::CancellationToken;

use crate::net::network_of;

/// Nodes that may be about to send their request. Who joins is not known yet, and may
/// fill its connection's window of 256 KiB.
const WAITING_MAX: usize = 32;
/// Of those, so many from one network: counties behind one firewall do not join at
/// the same second.
const WAITING_OF_ONE_MAX: usize = 8;
/// Nodes that are being let in. Each has shown a token that is good, and is sent all
/// of `_federation`.
const SERVED_MAX: usize = 32;

/// The places.
#[derive(Default)]
pub(in crate::app) struct Joining {
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    next: u64,
    /// The oldest first.
    held: Vec<Held>,
}

struct Held {
    id: u64,
    network: IpAddr,
    served: bool,
    makes_room: CancellationToken,
}

/// A place, until it is dropped.
pub(in crate::app) struct Place {
    of: Arc<Joining>,
    id: u64,
    /// Somebody else needs it.
    pub makes_room: CancellationToken,
}

impl Joining {
    fn lock(&self) -> MutexGuard<'_, Places> {
        // Everything done under the lock is an assignment.
        self.places.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// A place for somebody from `address`.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Place {
        let network = network_of(address);
        let mut places = self.lock();
        if places.waiting(Some(network)) >= WAITING_OF_ONE_MAX {
            places.make_room(network);
        } else if places.waiting(None) >= WAITING_MAX {
            let greediest = places.greediest();
            places.make_room(greediest.unwrap_or(network));
        }
        places.next += 1;
        let (id, makes_room) = (places.next, CancellationToken::new());
        places.held.push(Held { id, network, served: false, makes_room: makes_room.clone() });
        Place { of: self.clone(), id, makes_room }
    }
}

impl Places {
    fn waiting(&self, network: Option<IpAddr>) -> usize {
        let of_it = |held: &&Held| network.is_none_or(|network| held.network == network);
        self.held.iter().filter(|held| !held.served).filter(of_it).count()
    }

    /// The network with most places; of several, the one that has waited longest.
    fn greediest(&self) -> Option<IpAddr> {
        let waiting = self.held.iter().rev().filter(|held| !held.served);
        waiting.map(|held| held.network).max_by_key(|network| self.waiting(Some(*network)))
    }

    fn make_room(&mut self, network: IpAddr) {
        let oldest = self.held.iter().position(|held| !held.served && held.network == network);
        if let Some(oldest) = oldest {
            self.held.remove(oldest).makes_room.cancel();
        }
    }
}

impl Place {
    /// Its holder has shown a good token and makes room for nobody. False if there are
    /// too many of those, or if it had to make room just before.
    pub fn serve(&self) -> bool {
        let mut places = self.of.lock();
        let served = places.held.iter().filter(|held| held.served).count();
        match places.held.iter_mut().find(|held| held.id == self.id) {
            Some(held) if served < SERVED_MAX => {
                held.served = true;
                true
            }
            _ => false,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.lock().held.retain(|held| held.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(network: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, network])
    }

    #[test]
    fn addresses_that_hold_all_places_make_room_for_another() {
        let joining = Arc::new(Joining::default());
        let held: Vec<Place> = (0..32).map(|n| joining.enter(address(n / 8))).collect();
        let gone = || held.iter().filter(|place| place.makes_room.is_cancelled()).count();
        assert_eq!(gone(), 0);
        let honest = joining.enter(address(100));
        assert_eq!(gone(), 1);
        // More of the same make room among themselves.
        let more: Vec<Place> = (0..64).map(|n| joining.enter(address(n % 4))).collect();
        assert!(!honest.makes_room.is_cancelled());
        assert!(held.iter().all(|place| place.makes_room.is_cancelled()));
        assert_eq!(joining.lock().waiting(None), 32);
        drop((held, more, honest));
        assert_eq!(joining.lock().held.len(), 0, "nothing is kept of who is gone");
    }

    #[test]
    fn behind_one_firewall_the_one_who_has_waited_longest_makes_room() {
        let joining = Arc::new(Joining::default());
        let held: Vec<Place> = (0..9).map(|_| joining.enter(address(1))).collect();
        let gone: Vec<bool> = held.iter().map(|place| place.makes_room.is_cancelled()).collect();
        assert_eq!(gone, [&[true][..], &[false; 8]].concat());
        assert!(!held[0].serve(), "it is on its way out");
        // Who has shown a token stays, and takes no place of those who wait.
        assert!(held[1].serve());
        let more: Vec<Place> = (0..100).map(|_| joining.enter(address(1))).collect();
        assert!(!held[1].makes_room.is_cancelled());
        assert_eq!(more.iter().filter(|place| !place.makes_room.is_cancelled()).count(), 8);
    }

    #[test]
    fn many_addresses_with_one_place_each_make_room_too() {
        let joining = Arc::new(Joining::default());
        let held: Vec<Place> = (0..40).map(|n| joining.enter(address(n))).collect();
        let gone: Vec<bool> = held.iter().map(|place| place.makes_room.is_cancelled()).collect();
        assert_eq!(gone, [&[true; 8][..], &[false; 32]].concat(), "the oldest");
    }
}
