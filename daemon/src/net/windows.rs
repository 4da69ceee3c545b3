//! How much may be on its way of each connection, of a memory that all of them share.
//!
//! What has arrived and is not read, and what was sent and may have to be sent again, lies
//! in memory as long as the peer likes. Invariant: that is no more than [`IN_ALL`] in each
//! direction, and [`LEAST`] of each connection. Not here: what connections may have on its
//! way before their peer is known (`endpoint`).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// What all connections may have on its way, in each direction: with a city's 16 counties
/// 4 MiB each, which keeps a line of 100 Mbit/s busy over 300 ms.
const IN_ALL: u32 = 64 * 1024 * 1024;
/// What one may have at most, and however many there are: more than what an answer of one
/// round trip takes.
pub(super) const MOST: u32 = 16 * 1024 * 1024;
const LEAST: u32 = 256 * 1024;

/// The connections that share it.
#[derive(Default)]
pub struct Windows(Mutex<State>);

#[derive(Default)]
struct State {
    open: BTreeMap<usize, quinn::Connection>,
    /// What each of them has.
    each: u32,
}

/// One connection's window, until it is dropped.
pub struct Window {
    of: Arc<Windows>,
    id: usize,
}

impl Windows {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Lets the peer have as much on its way as a known one may.
    pub(super) fn open(self: &Arc<Self>, connection: &quinn::Connection) -> Window {
        let mut state = self.lock();
        let id = connection.stable_id();
        state.open.insert(id, connection.clone());
        state.share();
        set(connection, state.each);
        Window { of: self.clone(), id }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let mut state = self.of.lock();
        state.open.remove(&self.id);
        state.share();
    }
}

impl State {
    /// Shares it out anew; in steps, so that many connections are seldom told of it.
    fn share(&mut self) {
        let each = each_of(self.open.len());
        if std::mem::replace(&mut self.each, each) != each {
            self.open.values().for_each(|connection| set(connection, each));
        }
    }
}

fn each_of(connections: usize) -> u32 {
    let steps = connections.next_power_of_two().try_into().unwrap_or(u32::MAX);
    (IN_ALL / steps).clamp(LEAST, MOST)
}

/// What is on its way already stays; only when it has been read the peer gets less.
fn set(connection: &quinn::Connection, bytes: u32) {
    connection.set_receive_window(bytes.into());
    connection.set_send_window(bytes.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_together_have_what_there_is() {
        assert_eq!([1, 4, 5, 13, 50].map(each_of), [MOST, MOST, MOST / 2, MOST / 4, MOST / 16]);
        assert_eq!([256, 257, 10_000, usize::MAX / 2 + 1].map(each_of), [LEAST; 4]);
        for connections in 1..300 {
            let all = each_of(connections) as usize * connections;
            assert!(all <= IN_ALL as usize || each_of(connections) == LEAST, "{connections}");
        }
    }
}
