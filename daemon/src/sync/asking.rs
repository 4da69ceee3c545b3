//! Whose turn it is to ask a peer for a proof, or to take own history back from it.
//!
//! Used by [`super::follow`] and [`super::fork`]. A peer that is asked may keep silent until
//! the deadline, so nobody may hold more than one turn, and what waits for one is bounded.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};

/// Looks at other histories that wait for a connection's turn; who announces more of them
/// is asked at the next announcement.
const LOOKS_MAX: usize = 256;

/// The turn at taking own history back, and how many wait for it.
pub(super) struct TakingBack {
    turn: Semaphore,
    waiting: watch::Sender<usize>,
}

impl Default for TakingBack {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), waiting: watch::Sender::new(0) }
    }
}

impl TakingBack {
    /// The turn, when it is there.
    pub(super) async fn acquire(&self) -> Option<SemaphorePermit<'_>> {
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _left = Left(self);
        // The semaphore is never closed.
        self.turn.acquire().await.ok()
    }

    /// Answers once somebody waits.
    pub(super) async fn somebody_waits(&self) {
        // The sender is here.
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await;
    }
}

/// One who does not wait any more, served or not.
struct Left<'a>(&'a TakingBack);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|waiting| *waiting -= 1);
    }
}

/// Looks at other histories over one connection: one at a time, so that a peer that
/// answers none keeps no turn from the others for longer than one takes.
#[derive(Clone)]
pub(super) struct Looks {
    turn: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// A place in a connection's line, and the line.
pub(super) struct Look {
    turn: Arc<Semaphore>,
    _place: OwnedSemaphorePermit,
}

impl Default for Looks {
    fn default() -> Self {
        let [turn, places] = [1, LOOKS_MAX].map(Semaphore::new).map(Arc::new);
        Self { turn, places }
    }
}

impl Looks {
    /// A place in the line, if there is one.
    pub(super) fn place(&self) -> Option<Look> {
        let _place = self.places.clone().try_acquire_owned().ok()?;
        Some(Look { turn: self.turn.clone(), _place })
    }
}

impl Look {
    /// The connection's turn, and then one of those that `all` have.
    pub(super) async fn turn<'a>(&'a self, all: &'a Semaphore) -> [Option<SemaphorePermit<'a>>; 2] {
        // The semaphores are never closed.
        let of_connection = self.turn.acquire().await.ok();
        [of_connection, all.acquire().await.ok()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_takes_back_goes_on_while_nobody_waits() {
        let taking = Arc::new(TakingBack::default());
        let turn = taking.acquire().await;
        let waits = tokio::spawn({
            let taking = taking.clone();
            async move { taking.acquire().await.is_some() }
        });
        taking.somebody_waits().await;
        drop(turn);
        assert!(waits.await.unwrap());
        assert_eq!(*taking.waiting.borrow(), 0);
    }
}
