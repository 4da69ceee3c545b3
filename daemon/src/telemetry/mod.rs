//! Logging: lines to standard error, never a record's values.
//!
//! Invariants: a line that cannot be written is lost and nothing else happens, as
//! whoever reads the log may go away, or stop reading, and a daemon works on ([`queue`]).
//! And an event is one
//! line of text, and nothing in it steers a terminal, whoever chose the texts in
//! its fields: names of files and nodes, what peers say of themselves, reasons. So
//! no place that logs has to think of it.

mod queue;

use std::{
    io::{self, IsTerminal as _},
    sync::{Arc, OnceLock},
    time::Duration,
};

use config::{LogConfig, LogFormat};
use protocol::text::printable;
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt as _,
    fmt,
    fmt::{FormatFields, format},
};

use self::queue::{Queue, WAITING_BYTES_MAX};

/// How long the end of the process waits for a reader that is slow to take the last
/// lines: less than whoever stops a service waits.
const LAST_LINES_MAX: Duration = Duration::from_secs(2);

/// The daemon's lines.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// Sets logging up as the configuration says, for a daemon: whoever logs never waits for
/// whoever reads. Once a process; [`finish`] at its end.
pub fn init_for_daemon(config: &LogConfig) -> io::Result<()> {
    let dropped = |lines| {
        tracing::warn!(
            lines,
            "lines of the log were dropped, because whoever reads it did not keep up / 日志读取方跟不上，部分日志行已丢弃"
        );
    };
    let queue = Queue::start(io::stderr(), WAITING_BYTES_MAX, dropped)?;
    let queue = QUEUE.get_or_init(|| queue);
    init(config, || Lines(Some(queue)));
    // The default one writes to standard error itself, and would wait for the reader.
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        say(&format!("thread '{}' {info}\n{backtrace}", thread.name().unwrap_or("?")));
        finish();
    }));
    Ok(())
}

/// A text for whoever reads standard error, after the lines that are on their way there.
pub fn say(text: &str) {
    let line = format!("{text}\n");
    // An error means that nobody reads it any more.
    let _ = io::Write::write_all(&mut Lines(QUEUE.get()), line.as_bytes());
}

/// Gives the last lines a little time to be written.
pub fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(LAST_LINES_MAX);
    }
}

fn init(config: &LogConfig, lines: impl Fn() -> Lines + Send + Sync + 'static) {
    let filter = EnvFilter::new(&config.level);
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(lines)
        // It would print, and a failed print is a panic.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // A second call in one process changes nothing.
    let _ = match config.format {
        LogFormat::Text => lines.fmt_fields(printable_fields()).try_init(),
        // JSON escapes what it has to by itself, and is for programs.
        LogFormat::Json => lines.json().try_init(),
    };
}

/// Standard error, whose errors nobody hears of; by way of the daemon's queue, if there
/// is one.
struct Lines(Option<&'static Arc<Queue>>);

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0 {
            Some(queue) => queue.push(line),
            None => {
                let _ = io::Write::write_all(&mut io::stderr(), line);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logging for a single command: only what somebody should look at.
pub fn init_for_command() {
    init(&LogConfig { level: "warn".to_owned(), format: LogFormat::Text }, || Lines(None));
}

/// As the default: the message, then `name=value`.
fn printable_fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    format::debug_fn(|out, field, value| {
        let text = format!("{value:?}");
        let text = printable(&text);
        match field.name() {
            "message" => out.write_str(&text),
            name if out.has_ansi_escapes() => {
                write!(out, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{text}")
            }
            name => write!(out, "{name}={text}"),
        }
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_others_wrote_stays_within_its_line_of_the_log() {
        let lines = Lines::default();
        let out = lines.clone();
        let subscriber = fmt()
            .with_writer(move || out.clone())
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .fmt_fields(printable_fields())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let name = "a\u{1b}[2J\nERROR \u{202e}b\u{9b}";
            let error = io::Error::other(name);
            let _in = tracing::info_span!("peer", node = %name).entered();
            tracing::warn!(%error, file = %name, quoted = name, count = 3, "refused {name}");
        });
        let shown = r"a\u{1b}[2J\u{a}ERROR \u{202e}b\u{9b}";
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let quoted = r#""a\u{1b}[2J\nERROR \u{202e}b\u{9b}""#;
        assert_eq!(
            text,
            format!(
                " WARN peer{{node={shown}}}: refused {shown} error={shown} file={shown} \
                 quoted={quoted} count=3\n"
            )
        );
    }
}
