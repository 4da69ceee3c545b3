//! The `creditsync` program.

/// The system's allocator gives memory back and takes it again for every buffer
/// of a page or change set: a fifth of a bootstrap's processor time went there.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    daemon::cli::main()
}
