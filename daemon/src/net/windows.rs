//! How much may be on its way of each connection, of a memory that all of them share.
//!
//! What has arrived and is not read, and what was sent and may have to be sent again, lies
//! in memory as long as the peer likes. Invariant: a connection that begins while there are
//! `n` has at most [`IN_ALL`] / `n` for that in each direction, or [`LEAST`]; those from
//! before get less as they read. Not here: what connections may have on their way before
//! their peer is known (`endpoint`).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// What all connections may have on their way, in each direction: with a city's 16 counties
/// 4 MiB each, which keeps a line of 100 Mbit/s busy over 300 ms.
const IN_ALL: u32 = 64 * 1024 * 1024;
/// What one may have at most.
pub(super) const MOST: u32 = 16 * 1024 * 1024;
/// And however many there are: some streams that wait for memory here must not keep the
/// others of their connection waiting.
const LEAST: u32 = 4 * STREAM;
/// What one stream may have on its way: 100 Mbit/s over 80 ms, and more streams more.
pub(super) const STREAM: u32 = 1024 * 1024;

/// The connections that share it.
#[derive(Default)]
pub struct Windows(Mutex<State>);

#[derive(Default)]
struct State {
    open: BTreeMap<usize, Open>,
    /// What a new one has.
    each: u32,
}

struct Open {
    connection: quinn::Connection,
    receives: u32,
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
        state.open.insert(id, Open { connection: connection.clone(), receives: MOST });
        state.share();
        let each = state.each;
        if let Some(open) = state.open.get_mut(&id) {
            connection.set_receive_window(each.into());
            connection.set_send_window(each.into());
            open.receives = each;
        }
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
            self.open.values_mut().for_each(|open| open.set(each));
        }
    }
}

fn each_of(connections: usize) -> u32 {
    let steps = connections.next_power_of_two().try_into().unwrap_or(u32::MAX);
    (IN_ALL / steps).clamp(LEAST, MOST)
}

impl Open {
    /// What the peer may send is only ever made less: QUIC cannot take credit back, and
    /// quinn gives all of it again with each step up, whether the last one was used or not.
    fn set(&mut self, bytes: u32) {
        self.connection.set_send_window(bytes.into());
        if bytes < self.receives {
            self.connection.set_receive_window(bytes.into());
            self.receives = bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_together_have_what_there_is() {
        assert_eq!([1, 4, 5, 13].map(each_of), [MOST, MOST, MOST / 2, MOST / 4]);
        assert_eq!([16, 17, 10_000, usize::MAX / 2 + 1].map(each_of), [LEAST; 4]);
        for connections in 1..300 {
            let all = each_of(connections) as usize * connections;
            assert!(all <= IN_ALL as usize || each_of(connections) == LEAST, "{connections}");
        }
    }
}
