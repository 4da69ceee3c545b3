//! The `creditsync` program.

fn main() {}
