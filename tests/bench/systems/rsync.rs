//! rsync: a daemon at the hub, a client at the county.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;
use rustix::process::Signal;

use super::{
    Setting,
    whole_file::{self, FileSync, county_dir, hub_dir},
};
use crate::{
    network::{Network, PATIENCE, Process, free_port, text_of, wait_until},
    rows::COUNTIES,
    table::Column,
    usage::MemoryWatch,
    works::Work,
};

/// How it was used.
pub const NOTES: &str = "`rsync --daemon` at the hub, at the county `rsync --archive --fsync --modify-window=-1 FILE rsync://…` each time the file has \
     changed, which compares it block by block (the window: a change within the same second counts too). It keeps one file the same and checks no row; the county's file is \
     its own database, so there is no import, and nothing to restart. Without `--compress`, which its manual \
     recommends for slow links. One changed row: 5 times, no 99th percentile. Differences: repaired at the hub from \
     the county's file.";

/// The program's own word.
pub fn version() -> anyhow::Result<String> {
    let text = text_of(Command::new("rsync").arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// One round.
pub fn measure(setting: &Setting<'_>, column: &mut Column<'_>) -> anyhow::Result<()> {
    if setting.wants_pair() {
        let dir = setting.subdir("pair")?;
        whole_file::measure_pair(setting, column, &dir, &Rsync::start(setting.network, &dir, 1)?)?;
    }
    if setting.wants(Work::Counties) {
        let dir = setting.subdir("counties")?;
        let sync = Rsync::start(setting.network, &dir, usize::try_from(COUNTIES)?)?;
        whole_file::measure_counties(setting, column, &dir, &sync)?;
    }
    Ok(())
}

struct Rsync<'a> {
    network: &'a Network,
    dir: PathBuf,
    port: u16,
    daemon: Process,
}

impl<'a> Rsync<'a> {
    fn start(network: &'a Network, dir: &Path, counties: usize) -> anyhow::Result<Self> {
        whole_file::make_dirs(dir, counties)?;
        let config = dir.join("rsyncd.conf");
        let module = format!(
            "use chroot = no\nread only = no\nuid = {0}\ngid = {1}\n[hub]\npath = {2}\n",
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
            dir.join("hub").display()
        );
        std::fs::write(&config, module)?;
        let port = free_port()?;
        let mut command = network.command("rsync");
        command
            .args(["--daemon", "--no-detach", "--address=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--config={}", config.display()))
            .arg(format!("--log-file={}", dir.join("rsyncd.log").display()));
        let daemon = Process::start(&mut command, Signal::TERM)?;
        let mut sync = Self { network, dir: dir.to_owned(), port, daemon };
        wait_until("the rsync daemon answers", PATIENCE, || {
            ensure!(!sync.daemon.has_ended()?, "the rsync daemon ended");
            let listed = network.command("rsync").arg(sync.address("")).output()?;
            Ok(listed.status.success())
        })?;
        Ok(sync)
    }

    fn address(&self, path: &str) -> String {
        format!("rsync://127.0.0.1:{}/{path}", self.port)
    }
}

impl FileSync for Rsync<'_> {
    fn deliver(&self, county: usize) -> anyhow::Result<u64> {
        let file = county_dir(&self.dir, county).join(whole_file::NAME);
        let copy = hub_dir(&self.dir, county);
        let below = copy.strip_prefix(self.dir.join("hub"))?.display().to_string();
        let mut command = self.network.command("rsync");
        command
            .args(["--archive", "--fsync", "--modify-window=-1"])
            .arg(file)
            .arg(self.address(&format!("hub/{below}/")));
        let mut client = Process::start(&mut command, Signal::TERM)?;
        let memory = MemoryWatch::start(vec![client.id()]);
        let status = client.child().wait()?;
        ensure!(status.success(), "rsync failed: {status}");
        memory.peak_bytes()
    }

    fn watch_hub(&self) -> anyhow::Result<MemoryWatch> {
        Ok(MemoryWatch::start(vec![self.daemon.id()]))
    }
}
