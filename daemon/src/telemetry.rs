//! Logging: lines to standard error, never a record's values.

use std::io::IsTerminal as _;

use config::{LogConfig, LogFormat};
use tracing_subscriber::{EnvFilter, fmt};

/// Sets logging up as the configuration says. Once a process.
pub fn init(config: &LogConfig) {
    let filter = EnvFilter::new(&config.level);
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // A second call in one process changes nothing.
    let _ = match config.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}

/// Logging for a single command: only what somebody should look at.
pub fn init_for_command() {
    init(&LogConfig { level: "warn".to_owned(), format: LogFormat::Text });
}
