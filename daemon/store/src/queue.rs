//! The way to the writer: a bounded queue of jobs, and answers to wait for.
//!
//! Who holds a [`Queue`] keeps the store's threads running; the last one ends
//! them.

use std::{
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use tokio::sync::{mpsc::Sender, oneshot};

use crate::{
    error::StoreError,
    jobs::{Job, Reply},
};

/// The answer to a job, to be awaited or waited for.
#[must_use = "a commit has happened only when this answers"]
pub struct Pending<T>(oneshot::Receiver<Result<T, StoreError>>);

impl<T> Pending<T> {
    /// Waits on a thread of its own; never call it from asynchronous code.
    pub fn wait(self) -> Result<T, StoreError> {
        self.0.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }

    /// Waits.
    pub async fn answer(self) -> Result<T, StoreError> {
        self.0.await.unwrap_or(Err(StoreError::Closed))
    }
}

/// Gives jobs to the writer. Cheap to clone.
#[derive(Clone)]
pub struct Queue(Arc<Handle>);

/// The threads behind a store. Dropping it ends them, after what they were
/// given is durable.
struct Handle {
    jobs: Option<Sender<Job>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.jobs = None;
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(|e| e.into_inner()));
        for thread in threads {
            // A panic there was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Queue {
    /// The queue whose other end the first of these threads has.
    pub fn new(jobs: Sender<Job>, threads: Vec<JoinHandle<()>>) -> Self {
        Self(Arc::new(Handle { jobs: Some(jobs), threads: Mutex::new(threads) }))
    }

    /// Gives the writer a job.
    pub async fn submit<T>(
        &self,
        job: impl FnOnce(Reply<T>) -> Job,
    ) -> Result<Pending<T>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(job(reply)).await?;
        Ok(Pending(answer))
    }

    /// Gives the writer a job that nobody waits for.
    pub async fn send(&self, job: Job) -> Result<(), StoreError> {
        let jobs = self.0.jobs.as_ref().ok_or(StoreError::Closed)?;
        jobs.send(job).await.map_err(|_| StoreError::Closed)
    }

    /// As [`Queue::submit`], from a thread that may block.
    pub fn submit_blocking<T>(
        &self,
        job: impl FnOnce(Reply<T>) -> Job,
    ) -> Result<Pending<T>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.0.jobs.as_ref().ok_or(StoreError::Closed)?;
        jobs.blocking_send(job(reply)).map_err(|_| StoreError::Closed)?;
        Ok(Pending(answer))
    }
}
