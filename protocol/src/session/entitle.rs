//! Who may have which partition. One function, asked on both sides of every
//! stream.

use crate::{
    id::{Audience, FederationId, NodeId, PartitionId},
    suite::Suite,
};

/// The two ends of a connection and the federation that they meet in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// The trust domain.
    pub federation: FederationId,
    /// Its suite.
    pub suite: Suite,
    /// Its hub, which is one of the two.
    pub hub: NodeId,
    /// This node.
    pub me: NodeId,
    /// The verified peer.
    pub peer: NodeId,
}

impl Ends {
    /// Whether `follower`, one of the two ends, may follow `partition` from
    /// the other.
    ///
    /// The hub follows what a member owns, a member what the hub owns, and each may take
    /// its own history back from the other.
    pub fn may_follow(&self, follower: &NodeId, partition: &PartitionId) -> bool {
        let provider = if *follower == self.me { &self.peer } else { &self.me };
        let shared = partition.federation == self.federation && partition.audience == Audience::All;
        let is_of_both = [provider, follower].contains(&&partition.origin);
        shared && !self.is_misplaced(partition) && is_of_both
    }

    /// Whether the two ends tell each other about `partition` at all: one of
    /// them owns it.
    pub fn concerns_both(&self, partition: &PartitionId) -> bool {
        partition.federation == self.federation
            && partition.audience == Audience::All
            && !self.is_misplaced(partition)
            && (partition.origin == self.me || partition.origin == self.peer)
    }

    /// Whether somebody else than the hub claims to say who belongs to the
    /// federation.
    fn is_misplaced(&self, partition: &PartitionId) -> bool {
        partition.dataset.is_system() && partition.origin != self.hub
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_follows_what_the_other_owns_and_takes_back_its_own() {
        let node = |name: &str| NodeId::new(name).unwrap();
        let ends = Ends {
            suite: Suite::One,
            federation: FederationId::new("zhengzhou").unwrap(),
            hub: node("hub"),
            me: node("hub"),
            peer: node("a"),
        };
        let may = |follower: &str, partition: &str| {
            ends.may_follow(&node(follower), &PartitionId::parse_full(partition).unwrap())
        };
        assert!(may("hub", "zhengzhou/enterprise/a/*"));
        assert!(may("a", "zhengzhou/enterprise/hub/*"));
        assert!(may("a", "zhengzhou/_federation/hub/*"));
        assert!(may("a", "zhengzhou/enterprise/a/*"), "its own history back");
        assert!(may("hub", "zhengzhou/enterprise/hub/*"), "also the hub's");
        assert!(may("hub", "zhengzhou/_federation/hub/*"));
        assert!(!may("a", "zhengzhou/enterprise/b/*"));
        assert!(!may("hub", "zhengzhou/enterprise/b/*"));
        assert!(!may("hub", "luoyang/enterprise/a/*"));
        assert!(!may("a", "zhengzhou/enterprise/hub/b"));
        assert!(!may("hub", "zhengzhou/_federation/a/*"), "only the hub's _federation counts");
        let foreign = PartitionId::parse_full("zhengzhou/_federation/a/*").unwrap();
        assert!(!ends.concerns_both(&foreign));
    }
}
