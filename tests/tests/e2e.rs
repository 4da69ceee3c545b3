//! End-to-end tests: real processes, real files, real sockets.
//!
//! One binary, because each one links the whole program.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail like the test itself")]

mod e2e {
    mod backup;
    mod budgets;
    mod ca_crash;
    mod cli;
    mod clock;
    mod converge;
    mod crash;
    mod damage;
    mod damaged_log;
    mod deliveries;
    mod disk;
    mod files;
    mod forced_rotation;
    mod forks;
    mod formats;
    mod frozen;
    mod handed;
    mod identity;
    mod inbox;
    mod key_files;
    mod link;
    mod log;
    mod manual;
    mod many;
    mod meeting;
    mod moving;
    mod own_pki;
    mod owner;
    mod quota;
    mod real_data;
    mod repair;
    mod restored;
    mod rotation;
    mod soak;
}
