//! The session machines of `protocol::session` in virtual time.
//!
//! [`run`] makes a federation of a hub and one to three members and lets it go
//! through faults and work that all follow from one seed: the machines and the
//! messages' bytes are the real ones; the store is a reference model ([`store`]),
//! the network is simulated ([`net`]), and an all-knowing observer ([`oracle`])
//! checks every step. [`session`], [`follow`], [`asking`], [`look`] and [`provide`] do what
//! the daemon's driver does: what it decides of claims, quarantines and lost histories is
//! in `daemon/src/sync` and modelled here, not run.
//!
//! In [`run_put_back`] nodes go back to earlier states of their own, the hub as well, and
//! go on: some write before they have heard what others hold. Where two histories came of
//! that a [`resolve::Person`] ends them, and all has to become equal. Logs are pruned after
//! few change sets ([`lapse`]), so whoever comes late takes pages. After each step of every
//! run [`in_sync`] looks whether anybody shows as in sync what is different.
//!
//! In [`run_hostile`] one node lies: a member, or in a third of the runs the hub. It
//! is an honest one whose messages are altered on their way out ([`hostile`]), into
//! bytes that do not decode or into lies that do ([`lies`], [`giant`]); its own key
//! is all that it has. The others refuse what the protocol forbids as the daemon
//! does. Between two honest nodes a refusal is a failure of the run.
//!
//! Nothing here waits, reads a clock or starts a thread: a seed fails on every
//! machine or on none. What needs a certain message at a certain moment is in
//! `tests/simulation.rs`, scenario by scenario.

/// The suite of runs in which a node lies: what it makes up has its lengths.
pub const HOSTILE_SUITE: protocol::suite::Suite = protocol::suite::Suite::One;

pub mod asking;
pub mod cast;
pub mod claims;
pub mod follow;
pub mod giant;
pub mod hostile;
pub mod in_sync;
pub mod lapse;
pub mod lies;
pub mod look;
pub mod net;
pub mod node;
pub mod oracle;
pub mod pages;
pub mod pair;
pub mod plan;
pub mod provide;
pub mod resolve;
pub mod rng;
pub mod session;
pub mod store;
pub mod tree;
pub mod world;

pub use hostile::Met;
pub use oracle::Tally;

/// Lets the federation of `seed` run, and panics if anything goes wrong.
pub fn run(seed: u64) -> Tally {
    let _guard = PrintSeed(seed, "every_federation");
    world::World::new(seed).run()
}

/// The same with nodes, the hub as well, that go back to earlier states of their own.
pub fn run_put_back(seed: u64) -> Tally {
    let _guard = PrintSeed(seed, "a_directory_that_is_put_back");
    world::World::put_back(seed).run_put_back()
}

/// The same with one node that lies.
pub fn run_hostile(seed: u64) -> (Tally, Met) {
    let _guard = PrintSeed(seed, "a_hostile_node");
    world::World::hostile(seed).run_hostile()
}

/// Says how to see a failure again.
struct PrintSeed(u64, &'static str);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "rerun with SIM_SEED={} cargo test -p creditsync-tests --test simulation {}",
                self.0, self.1
            );
        }
    }
}
