//! The systems that are compared, and what each is given to work with.

pub mod creditsync;
mod iroh_docs;
mod negentropy;
mod postgres;
mod rsync;
mod syncthing;
mod whole_file;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use crate::{files::Files, network::Network, table::Column, works::Work};

/// A system under test; the order is that of the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// What this is about.
    Creditsync,
    /// PostgreSQL's logical replication.
    Postgres,
    /// rsync of the file.
    Rsync,
    /// Syncthing with the file.
    Syncthing,
    /// The crate that finds differences of sets.
    Negentropy,
    /// The crate with documents of entries.
    IrohDocs,
}

/// How often one row is changed, one after the other.
const SINGLE_CHANGES: u32 = 1000;

/// What a system is given for a round.
pub struct Setting<'a> {
    /// The rows.
    pub files: &'a Files,
    /// An empty directory of its own.
    pub dir: &'a Path,
    /// A network of its own.
    pub network: &'a Network,
    /// What it is asked to do. Import and copy come before most others and are
    /// done anyway.
    pub works: &'a BTreeSet<Work>,
}

impl Setting<'_> {
    /// Whether a work is asked for.
    pub fn wants(&self, work: Work) -> bool {
        self.works.contains(&work)
    }

    /// Whether anything is asked for that needs a county and a hub.
    pub fn wants_pair(&self) -> bool {
        self.works.iter().any(|work| !matches!(work, Work::Counties | Work::Messy | Work::Workbook))
    }

    /// A directory below the system's own.
    pub fn subdir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl System {
    /// All, creditsync first.
    pub const ALL: [Self; 6] = [
        Self::Creditsync,
        Self::Postgres,
        Self::Rsync,
        Self::Syncthing,
        Self::Negentropy,
        Self::IrohDocs,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creditsync => "creditsync",
            Self::Postgres => "postgres",
            Self::Rsync => "rsync",
            Self::Syncthing => "syncthing",
            Self::Negentropy => "negentropy",
            Self::IrohDocs => "iroh-docs",
        }
    }

    /// Its name in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Creditsync => "creditsync",
            Self::Postgres => "PostgreSQL 15",
            Self::Rsync => "rsync",
            Self::Syncthing => "Syncthing",
            Self::Negentropy => "negentropy (ids)",
            Self::IrohDocs => "iroh-docs",
        }
    }

    /// Whether all rows would take it too long.
    pub fn takes_few_rows(self) -> bool {
        self == Self::IrohDocs
    }

    /// What was run, exactly.
    pub fn version(self) -> anyhow::Result<String> {
        match self {
            Self::Creditsync => creditsync::version(),
            Self::Postgres => postgres::version(),
            Self::Rsync => rsync::version(),
            Self::Syncthing => syncthing::version(),
            Self::Negentropy => negentropy::version(),
            Self::IrohDocs => iroh_docs::version(),
        }
    }

    /// How it was used, for a reader who wants to do the same; and what its
    /// numbers do not say. Markdown.
    pub fn notes(self) -> &'static str {
        match self {
            Self::Creditsync => creditsync::NOTES,
            Self::Postgres => postgres::NOTES,
            Self::Rsync => rsync::NOTES,
            Self::Syncthing => syncthing::NOTES,
            Self::Negentropy => negentropy::NOTES,
            Self::IrohDocs => iroh_docs::NOTES,
        }
    }

    /// One round.
    pub fn measure(self, setting: &Setting<'_>, column: &mut Column<'_>) -> anyhow::Result<()> {
        match self {
            Self::Creditsync => creditsync::measure(setting, column),
            Self::Postgres => postgres::measure(setting, column),
            Self::Rsync => rsync::measure(setting, column),
            Self::Syncthing => syncthing::measure(setting, column),
            Self::Negentropy => negentropy::measure(setting, column),
            Self::IrohDocs => iroh_docs::measure(setting, column),
        }
    }
}

/// The program of peers that are crates, which is built apart from this one.
fn peers_program() -> anyhow::Result<PathBuf> {
    let target = std::env::current_exe()?;
    let target = target.ancestors().nth(2).context("target/release/bench")?;
    let program = target.join("peers/release/bench-peers");
    ensure!(program.exists(), "{} is missing: tests/bench/run.sh builds it", program.display());
    Ok(program)
}
