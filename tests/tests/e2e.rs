//! End-to-end tests: real processes, real files, real sockets.
//!
//! One binary, because each one links the whole program.

mod e2e {
    mod converge;
    mod crash;
    mod link;
    mod real_data;
}
