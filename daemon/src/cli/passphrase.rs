//! The passphrase of a backup's keys: from a private file, or typed on a terminal. Never
//! an argument, which the list of processes shows to everybody.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use certs::keyfile::Passphrase;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::app::node;

/// As much as is read of a line: the longest passphrase, and its end.
const LINE_BYTES_MAX: u64 = 1024 + 2;

#[derive(clap::Args)]
pub(super) struct PassphraseArguments {
    /// A file (mode 0600) whose first line is the passphrase of the keys / 口令文件
    ///
    /// Without it: the file that CREDITSYNC_PASSPHRASE_FILE names, or it is asked for on
    /// a terminal.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseArguments {
    /// From the file that was named, or that the environment names.
    pub(super) fn of_file(&self) -> anyhow::Result<Option<Passphrase>> {
        match &self.passphrase_file {
            Some(path) => Ok(Some(read(path)?)),
            None => node::passphrase(),
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Passphrase> {
    Passphrase::read(path)
        .with_context(|| format!("口令文件 {0} / the passphrase file {0}", path.display()))
}

/// Whether there is somebody to ask.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for a new passphrase, twice; none if nothing is typed.
pub(super) fn ask_for_new(what: &str) -> anyhow::Result<Option<Passphrase>> {
    let first = type_in(what)?;
    if first.is_empty() {
        return Ok(None);
    }
    if *first != *type_in("再输入一次 / once more: ")? {
        bail!("两次输入的口令不同，请重试 / the two were not the same: try again");
    }
    passphrase(first)
}

/// Asks for a passphrase; none if nothing is typed.
pub(super) fn ask(what: &str) -> anyhow::Result<Option<Passphrase>> {
    passphrase(type_in(what)?)
}

fn passphrase(text: Zeroizing<String>) -> anyhow::Result<Option<Passphrase>> {
    if text.is_empty() {
        return Ok(None);
    }
    let passphrase = Passphrase::new(text);
    passphrase.context("口令最长 1024 字节 / a passphrase has at most 1024 bytes").map(Some)
}

/// A line of the terminal, which does not show it.
fn type_in(what: &str) -> anyhow::Result<Zeroizing<String>> {
    eprint!("{what}");
    let stdin = io::stdin();
    let shown = tcgetattr(&stdin).context("look at the terminal")?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).context("hide what is typed")?;
    // Of the final size, so that growing leaves no copy behind.
    let mut line = Zeroizing::new(String::with_capacity(2 * LINE_BYTES_MAX as usize));
    let read = stdin.lock().take(LINE_BYTES_MAX).read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Now, &shown).context("show again what is typed")?;
    eprintln!();
    read.context("read the passphrase")?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}
