//! Lines of the daemon's log on their way to standard error, which its own thread
//! writes.
//!
//! Whoever reads the log may stop reading: then a write to its pipe waits for ever.
//! Invariants: whoever logs never waits; what waits to be written is bounded; lines for
//! which there is no room are counted, and their number is logged as soon as the reader
//! goes on.
//!
//! Not here: what a line looks like (the parent module).

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::ThreadId,
    time::Duration,
};

/// Bytes that wait, while as many are being written. More than a thousand lines: more than
/// a start, an end, or a peer that misbehaves for a minute can say, and little memory.
pub(super) const WAITING_BYTES_MAX: usize = 256 * 1024;

/// The lines that are not written yet.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Lines that found no room.
    dropped: u64,
    is_writing: bool,
    /// The writer's own lines are always taken: one says how many were not.
    writer: Option<ThreadId>,
}

impl Queue {
    /// Starts the thread that writes to `out`; what it cannot write is lost. `dropped`
    /// is called by it with the number of lines that were not taken, when `out` takes
    /// lines again, and may log.
    pub(super) fn start(
        mut out: impl Write + Send + 'static,
        bytes_max: usize,
        dropped: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let waiting = Mutex::default();
        let queue = Arc::new(Self { waiting, changed: Condvar::new(), bytes_max });
        let of_thread = queue.clone();
        let work = move || {
            of_thread.lock().writer = Some(std::thread::current().id());
            loop {
                let (bytes, lines) = of_thread.next();
                // Whoever reads the log may have gone away: the node works on.
                let _ = out.write_all(&bytes);
                if lines > 0 {
                    dropped(lines);
                }
                of_thread.lock().is_writing = false;
                of_thread.changed.notify_all();
            }
        };
        std::thread::Builder::new().name("log".into()).spawn(work)?;
        Ok(queue)
    }

    /// Takes a line, or counts it as dropped. Never waits for the reader.
    pub(super) fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        let has_room = waiting.bytes.len().saturating_add(line.len()) <= self.bytes_max;
        if has_room || waiting.writer == Some(std::thread::current().id()) {
            waiting.bytes.extend_from_slice(line);
        } else {
            waiting.dropped += 1;
        }
        drop(waiting);
        self.changed.notify_all();
    }

    /// Waits until all is written, for at most `longest`; answers whether it is.
    pub(super) fn flush(&self, longest: Duration) -> bool {
        let unwritten = |waiting: &mut Waiting| waiting.is_writing || !waiting.bytes.is_empty();
        let waited = self.changed.wait_timeout_while(self.lock(), longest, unwritten);
        !waited.unwrap_or_else(|error| error.into_inner()).1.timed_out()
    }

    /// Waits for lines, and takes all that wait; with them, how many had no room behind
    /// them.
    fn next(&self) -> (Vec<u8>, u64) {
        let is_empty = |waiting: &mut Waiting| waiting.bytes.is_empty();
        let waiting = self.changed.wait_while(self.lock(), is_empty);
        let mut waiting = waiting.unwrap_or_else(|error| error.into_inner());
        waiting.is_writing = true;
        (mem::take(&mut waiting.bytes), mem::take(&mut waiting.dropped))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Everything done under it leaves it whole.
        self.waiting.lock().unwrap_or_else(|error| error.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Longer than anything here takes, unless it never happens.
    const LONG: Duration = Duration::from_secs(60);

    /// A reader that takes a piece only when it is asked to.
    struct Reader(mpsc::Sender<Vec<u8>>, mpsc::Receiver<()>);

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            self.1.recv().map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_does_not_keep_up_costs_lines_and_nobody_waits_for_it() {
        let (to_reader, written) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel();
        let (to_told, told) = mpsc::channel();
        let tell = move |lines| to_told.send(lines).unwrap();
        let queue = Queue::start(Reader(to_reader, goes_on), 8, tell).unwrap();
        queue.push(b"first\n");
        // The reader has it and does not answer.
        assert_eq!(written.recv_timeout(LONG).unwrap(), b"first\n");
        assert!(!queue.flush(Duration::ZERO));
        queue.push(b"second\n");
        for _ in 0..1000 {
            queue.push(b"third\n");
        }
        assert!(queue.lock().bytes.len() <= 8);
        go_on.send(()).unwrap();
        assert_eq!(written.recv_timeout(LONG).unwrap(), b"second\n");
        go_on.send(()).unwrap();
        assert_eq!(told.recv_timeout(LONG).unwrap(), 1000);
        assert!(queue.flush(LONG), "all is written");
        queue.push(b"fourth\n");
        assert_eq!(written.recv_timeout(LONG).unwrap(), b"fourth\n");
        drop(go_on);
        // Nobody reads any more.
        assert!(queue.flush(LONG));
        queue.push(b"fifth\n");
        assert!(queue.flush(LONG));
    }

    #[test]
    fn the_number_of_dropped_lines_is_logged_however_full_it_is() {
        let (to_reader, written) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel();
        let slot: Arc<Mutex<Option<Arc<Queue>>>> = Arc::default();
        let own = slot.clone();
        let tell = move |lines: u64| {
            let queue = own.lock().unwrap().clone().unwrap();
            queue.push(b"full\n");
            queue.push(format!("{lines} dropped\n").as_bytes());
        };
        let queue = Queue::start(Reader(to_reader, goes_on), 5, tell).unwrap();
        *slot.lock().unwrap() = Some(queue.clone());
        for line in [&b"a\n"[..], b"b\n", b"c\n"] {
            queue.push(line);
            if line == b"a\n" {
                assert_eq!(written.recv_timeout(LONG).unwrap(), line);
            }
        }
        queue.push(b"too long\n");
        for expected in ["b\nc\n", "full\n1 dropped\n"] {
            go_on.send(()).unwrap();
            assert_eq!(written.recv_timeout(LONG).unwrap(), expected.as_bytes());
        }
    }
}
