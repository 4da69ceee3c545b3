//! Work that is shared out among all cores.

use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

/// What comes of each of these, in their order. Blocks.
pub fn on_all_cores<T: Send, R: Send>(of: Vec<T>, make: impl Fn(T) -> R + Sync + Send) -> Vec<R> {
    match of.len() {
        // Waking another thread would take longer.
        0..=2 => of.into_iter().map(make).collect(),
        _ => of.into_par_iter().map(make).collect(),
    }
}
