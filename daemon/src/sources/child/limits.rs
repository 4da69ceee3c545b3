//! What a child may use, set by itself before it reads a byte of the file.
//!
//! Used by [`super::run_as_child`] only. Invariant: no limit is left at what the
//! daemon has, and none can be raised again. Not here: how long a child may be
//! silent, which its parent watches.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Address space. A workbook of a million rows of nine columns takes 250 MiB; a file
/// of 307 KB that was made for it takes 903 MiB.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Processor time: a million rows take half a minute, on an old machine a few of them.
const CPU_SECONDS_MAX: u64 = 600;
/// Three standard streams, two copies of them, and room for what the runtime
/// opens at start.
const FILES_MAX: u64 = 16;

/// Sets all limits; the child may write `file_bytes_max` to a file.
pub(super) fn set(file_bytes_max: u64) -> io::Result<()> {
    for (resource, limit) in [
        (Resource::As, MEMORY_BYTES_MAX),
        (Resource::Cpu, CPU_SECONDS_MAX),
        (Resource::Nofile, FILES_MAX),
        (Resource::Fsize, file_bytes_max),
        // A core would hold records, in a place that nobody looks after.
        (Resource::Core, 0),
    ] {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    Ok(())
}
