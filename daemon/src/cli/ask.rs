//! Doing a request: by the running daemon, or here if none runs.
//!
//! A daemon that starts or ends, and another command, have the directory without
//! answering: they are waited for ([`crate::app::lock`]). A request is asked
//! again only if nobody can have begun with it.

use std::{
    fs::File,
    io::IsTerminal as _,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value as Json;

use crate::{
    admin::{self, Reply, Request},
    app::{
        dir::NodeDir,
        lock::{LOOK_EVERY, Occupant, Wait},
        node::Node,
        owner::become_owner,
    },
    ingest::Progress,
    telemetry,
    upkeep::backup::Copied,
};

/// Without a terminal, a line of progress is printed this often.
const PLAIN_PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// What only a daemon can do waits this long for one that a script has started
/// just before and that has not taken the directory yet: it reads one file until
/// then. Where none comes, the user learns that after this time.
const DAEMON_AWAITED: Duration = Duration::from_secs(2);

/// Does a request that has no pieces.
pub(super) fn ask(dir: &NodeDir, request: &Request) -> anyhow::Result<(Json, bool)> {
    ask_with(dir, request, None, &mut |_| Ok(()))
}

/// Does a request, with its file if it brings one; pieces of an export go to
/// `chunk`, progress is shown.
pub(super) fn ask_with(
    dir: &NodeDir,
    request: &Request,
    file: Option<File>,
    chunk: &mut dyn FnMut(String) -> anyhow::Result<()>,
) -> anyhow::Result<(Json, bool)> {
    let mut shown = ShownProgress::new();
    let mut heed = |reply: Reply| match reply {
        Reply::Progress(progress) => {
            shown.show(progress);
            Ok(())
        }
        Reply::Copied(copied) => {
            shown.show_copied(copied);
            Ok(())
        }
        Reply::Chunk(text) => chunk(text),
        Reply::Waiting | Reply::Taken | Reply::Working | Reply::Done { .. } | Reply::Failed(_) => {
            Ok(())
        }
    };
    let mut wait = Wait::new(dir, Occupant::Command);
    let mut ready = false;
    // Before the node, which is closed before it.
    let mut owner = None;
    let awaited =
        (request.needs_daemon() && dir.is_node()).then(|| Instant::now() + DAEMON_AWAITED);
    let node = loop {
        let handed = file.as_ref().map(File::as_fd);
        if let Some(answer) = admin::ask(&dir.socket(), request, handed, &mut heed)? {
            return Ok(answer);
        }
        if !std::mem::replace(&mut ready, true) {
            telemetry::init_for_command();
        }
        if awaited.is_some_and(|until| Instant::now() < until) {
            std::thread::sleep(LOOK_EVERY);
            continue;
        }
        if owner.is_none() {
            owner = become_owner(dir)?;
        }
        // In this order: who has the directory by now may be a daemon that can be
        // asked the next time.
        if let Some(node) = Node::try_open(dir)? {
            break node;
        }
        wait.pause()?;
    };
    let heed = std::cell::RefCell::new(heed);
    node.execute(request.clone(), file, &|reply| (heed.borrow_mut())(reply))
}

/// Progress of an import or a backup: a bar on a terminal, plain lines elsewhere.
pub(super) struct ShownProgress {
    bar: Option<ProgressBar>,
    terminal: bool,
    last_line: Instant,
}

impl ShownProgress {
    pub(super) fn new() -> Self {
        Self { bar: None, terminal: std::io::stderr().is_terminal(), last_line: Instant::now() }
    }

    /// How far a backup has come. Of one that is read its length is not known.
    pub(super) fn show_copied(&mut self, copied: Copied) {
        let Copied { records, records_total, bytes } = copied;
        let mib = bytes / 1_048_576;
        let text = match records_total {
            0 => format!("{records} records, {mib} MiB"),
            total => format!("{records} of {total} records, {mib} MiB"),
        };
        if self.terminal {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::no_length();
                if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
                    bar.set_style(style);
                }
                bar
            });
            bar.set_message(text);
            bar.tick();
        } else if self.last_line.elapsed() >= PLAIN_PROGRESS_EVERY {
            self.last_line = Instant::now();
            eprintln!("{text}");
        }
    }

    fn show(&mut self, progress: Progress) {
        let Progress { bytes_read, bytes_total, rows, compared } = progress;
        let stage = if compared > 0 {
            format!("compared {compared} of {rows} rows")
        } else {
            format!("read {rows} rows")
        };
        if self.terminal {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::new(0);
                if let Ok(style) =
                    ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {elapsed} {msg}")
                {
                    bar.set_style(style);
                }
                bar
            });
            bar.set_length(bytes_total);
            bar.set_position(bytes_read);
            bar.set_message(stage);
        } else if self.last_line.elapsed() >= PLAIN_PROGRESS_EVERY {
            self.last_line = Instant::now();
            eprintln!("{bytes_read} of {bytes_total} bytes, {stage}");
        }
    }
}

impl Drop for ShownProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
