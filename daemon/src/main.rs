//! The `creditsync` program.

/// The system's allocator gives pages back and takes them again for every
/// buffer of a page or change set: a third of a bootstrap's time went there.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    daemon::cli::main()
}
