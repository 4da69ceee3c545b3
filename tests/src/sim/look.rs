//! A peer has announced a head of an own partition that is not in the history that is
//! here: it is asked to show it, and if this node has signed it, there are two.
//!
//! The daemon's `sync::fork::look`, one at a time for each connection. Used by
//! [`super::session`].

use std::{collections::VecDeque, time::Duration};

use protocol::{codec, id::PartitionId, message::Open};

use super::{
    asking::{head_of, other_here},
    follow::{Io, PROOF_PATIENCE},
    net::{StreamId, Wire},
};

/// Looks of one connection.
#[derive(Debug, Default)]
pub struct Looks {
    /// Partitions that are looked at next.
    pub waiting: VecDeque<PartitionId>,
    asked: Option<(StreamId, PartitionId, Duration)>,
}

impl Looks {
    /// Asks for the next head, if none is awaited.
    pub fn step(&mut self, io: &mut Io<'_>) {
        while self.asked.is_none()
            && let Some(partition) = self.waiting.pop_front()
        {
            if io.store.partition(&partition).is_some_and(|state| state.quarantined) {
                continue;
            }
            let stream = io.net.stream(io.me);
            let open = Open::Tree { partition: partition.clone(), have: None };
            io.send(stream, codec::encode(&open));
            self.asked = Some((stream, partition, io.net.now + PROOF_PATIENCE));
        }
    }

    /// Something arrived; answers whether it belongs to a look.
    pub fn handle_arrival(&mut self, io: &mut Io<'_>, stream: StreamId, wire: &Wire) -> bool {
        let Some((_, partition, _)) = self.asked.take_if(|(asked, ..)| *asked == stream) else {
            return false;
        };
        let Wire::Bytes(bytes) = wire else {
            return true;
        };
        match head_of(&partition, bytes, io) {
            Ok(theirs) => {
                // A person may have decided while it was asked.
                if other_here(io, &partition, theirs.position())
                    && !io.store.has_given_up(&partition, theirs.position())
                    && io.store.partition(&partition).is_some_and(|state| !state.quarantined)
                {
                    io.oracle.forked(io.me, io.store, &theirs);
                    io.oracle.tally.looked += 1;
                    io.store.quarantine(&partition, Some(theirs.position()));
                }
                io.net.send(io.conn, io.me, stream, Wire::Finished);
            }
            Err(problem) => io.refuse(stream, &problem),
        }
        true
    }

    /// Gives up what is not answered.
    pub fn end_silent(&mut self, now: Duration) {
        self.asked.take_if(|(.., until)| *until <= now);
    }

    /// When an answer has to have come.
    pub fn until(&self) -> Option<Duration> {
        self.asked.as_ref().map(|(.., until)| *until)
    }
}
