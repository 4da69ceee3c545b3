//! The `creditsync` program with the artificial suite beside the others, for tests of
//! a federation that has it. It is built with this crate and never released.

fn main() -> std::process::ExitCode {
    daemon::cli::main()
}
