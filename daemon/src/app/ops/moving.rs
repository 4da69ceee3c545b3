//! `hub move`: where the hub is dialled from now on, and who has heard of it.

use super::Answer;
use crate::app::node::Node;

impl Node {
    pub(in crate::app) fn hub_move(&self, addresses: &[String]) -> anyhow::Result<Answer> {
        // Nobody is connected to a daemon that ends.
        let connected = || match self.shutdown.is_cancelled() {
            true => Vec::new(),
            false => self.sync.peers.connected_nodes(),
        };
        self.registrar()?.move_to(addresses, &connected)
    }
}
