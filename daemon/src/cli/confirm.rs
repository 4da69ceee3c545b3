//! Asking a person before something is done that cannot be taken back.
//!
//! Not here: what a person is shown before, and `--yes`, which is the command's.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// What came of a question.
pub(super) enum Asked {
    Yes,
    No,
    /// Nobody sits there.
    Nobody,
}

/// Asks on standard error, since standard output is for the answer.
pub(super) fn confirm(question: &str) -> anyhow::Result<Asked> {
    if !std::io::stdin().is_terminal() {
        return Ok(Asked::Nobody);
    }
    eprint!("{question}");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let yes = matches!(line.trim().to_lowercase().as_str(), "y" | "yes" | "是");
    Ok(if yes { Asked::Yes } else { Asked::No })
}
