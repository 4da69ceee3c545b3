//! How much memory an input costs.
//!
//! `peak_alloc` counts what Rust code allocates in the whole process, so one
//! test runs at a time. zstd's own buffers are not seen: they are bounded
//! by the window that the codec allows, which its own test shows.

use std::sync::{Mutex, MutexGuard, PoisonError};

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

static WORKING: Mutex<()> = Mutex::new(());

/// Every test of this file holds it while it allocates.
pub fn alone() -> MutexGuard<'static, ()> {
    WORKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `work` answers, and how many more bytes than before were in use at its
/// worst moment.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let answer = work();
    (answer, ALLOCATOR.peak_usage().saturating_sub(before))
}

#[test]
fn allocations_are_counted() {
    let _alone = alone();
    let (bytes, peak) = peak_of(|| vec![1u8; 64 << 20].len());
    assert_eq!(bytes, 64 << 20);
    assert!(peak >= 64 << 20, "{peak}");
}
