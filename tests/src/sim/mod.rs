//! The session machines of `protocol::session` in virtual time.
//!
//! [`run`] makes a federation of a hub and one to three members and lets it go
//! through faults and work that all follow from one seed: the machines and the
//! messages' bytes are the real ones; the store is a reference model ([`store`]),
//! the network is simulated ([`net`]), and an all-knowing observer ([`oracle`])
//! checks every step. [`session`], [`follow`] and [`provide`] do what the
//! daemon's driver does.
//!
//! Nothing here waits, reads a clock or starts a thread: a seed fails on every
//! machine or on none. What the machines are *not* tested with here is hostile
//! peers; those scenarios are in `tests/simulation.rs`, one by one.

pub mod cast;
pub mod follow;
pub mod net;
pub mod node;
pub mod oracle;
pub mod pair;
pub mod plan;
pub mod provide;
pub mod rng;
pub mod session;
pub mod store;
pub mod tree;
pub mod world;

pub use oracle::Tally;

/// Lets the federation of `seed` run, and panics if anything goes wrong.
pub fn run(seed: u64) -> Tally {
    let _guard = PrintSeed(seed);
    world::World::new(seed).run()
}

/// Says how to see a failure again.
struct PrintSeed(u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "rerun with SIM_SEED={} cargo test -p creditsync-tests --test simulation",
                self.0
            );
        }
    }
}
