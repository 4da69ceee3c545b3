//! End-to-end tests: real processes, real files, real sockets.
//!
//! One binary, because each one links the whole program.

mod e2e {
    mod cli;
    mod converge;
    mod crash;
    mod disk;
    mod inbox;
    mod link;
    mod real_data;
}
