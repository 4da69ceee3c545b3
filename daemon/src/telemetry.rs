//! Logging: lines to standard error, never a record's values.
//!
//! Invariant: a line that cannot be written is lost and nothing else happens.
//! Whoever reads the log may go away, and a daemon works on.

use std::io::{self, IsTerminal as _};

use config::{LogConfig, LogFormat};
use tracing_subscriber::{EnvFilter, fmt};

/// Sets logging up as the configuration says. Once a process.
pub fn init(config: &LogConfig) {
    let filter = EnvFilter::new(&config.level);
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(|| Lines)
        // It would print, and a failed print is a panic.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // A second call in one process changes nothing.
    let _ = match config.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}

/// Standard error, whose errors nobody hears of.
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = io::Write::write_all(&mut io::stderr(), line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logging for a single command: only what somebody should look at.
pub fn init_for_command() {
    init(&LogConfig { level: "warn".to_owned(), format: LogFormat::Text });
}
