//! Asynchronous work of a command: on the daemon's runtime, or on one of its own.

use anyhow::Context as _;

/// Commands run on threads that may block, in the daemon beside its runtime.
pub(super) fn with_runtime<T>(
    work: impl FnOnce(&tokio::runtime::Handle) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => work(&runtime),
        Err(_) => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .context("start the runtime")?;
            work(runtime.handle())
        }
    }
}
