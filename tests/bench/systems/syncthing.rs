//! Syncthing: an instance at the hub, one at each county, a folder between them.

use std::{
    io::{Read as _, Write as _},
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use super::{
    Setting,
    whole_file::{self, FileSync, county_dir, hub_dir},
};
use crate::{
    network::{Network, PATIENCE, Process, free_port, run, text_of, wait_until},
    rows::COUNTIES,
    table::Column,
    usage::MemoryWatch,
    works::Work,
};

/// How it was used.
pub const NOTES: &str = "One instance each with a home of its own, connected over TCP on loopback before anything is measured; \
     discovery, relays, NAT traversal, usage and crash reports and upgrades are off, folders are send-only at the \
     county and receive-only at the hub. A changed file is announced with `POST /rest/db/scan`, which its documentation \
     describes, instead of waiting for a rescan, and is there when the hub's file has its size and time of change \
     (written to a temporary file, fsynced, renamed). As with rsync there is no import, and one changed row is \
     measured 5 times.";

/// What scripts show to the REST interface.
const API_KEY: &str = "bench";

/// The program's own word.
pub fn version() -> anyhow::Result<String> {
    text_of(Command::new("syncthing").arg("--version"))
}

/// One round.
pub fn measure(setting: &Setting<'_>, column: &mut Column<'_>) -> anyhow::Result<()> {
    if setting.wants_pair() {
        let dir = setting.subdir("pair")?;
        let sync = Syncthing::start(setting.network, &dir, 1)?;
        whole_file::measure_pair(setting, column, &dir, &sync)?;
    }
    if setting.wants(Work::Counties) {
        let dir = setting.subdir("counties")?;
        let sync = Syncthing::start(setting.network, &dir, usize::try_from(COUNTIES)?)?;
        whole_file::measure_counties(setting, column, &dir, &sync)?;
    }
    Ok(())
}

struct Syncthing {
    dir: PathBuf,
    hub: Instance,
    counties: Vec<Instance>,
}

impl Syncthing {
    fn start(network: &Network, dir: &Path, counties: usize) -> anyhow::Result<Self> {
        whole_file::make_dirs(dir, counties)?;
        for county in 0..counties {
            // Without its mark a folder counts as one whose disk is not there.
            std::fs::create_dir(county_dir(dir, county).join(".stfolder"))?;
            std::fs::create_dir(hub_dir(dir, county).join(".stfolder"))?;
        }
        let mut hub = Instance::make(network, &dir.join("hub-home"))?;
        let mut members = Vec::new();
        for county in 0..counties {
            members.push(Instance::make(network, &dir.join(format!("county-home-{county}")))?);
        }
        let folders = members.iter().enumerate().map(|(county, member)| Folder {
            county,
            path: hub_dir(dir, county),
            kind: "receiveonly",
            peer: member,
        });
        let config = hub.config(&folders.collect::<Vec<_>>());
        std::fs::write(hub.home.join("config.xml"), config)?;
        for (county, member) in members.iter().enumerate() {
            let path = county_dir(dir, county);
            let folder = Folder { county, path, kind: "sendonly", peer: &hub };
            std::fs::write(member.home.join("config.xml"), member.config(&[folder]))?;
        }
        hub.start(network)?;
        for member in &mut members {
            member.start(network)?;
        }
        for member in &members {
            wait_until("the county is connected", PATIENCE, || {
                let peers = member.request("GET", "/rest/system/connections")?;
                let peers: serde_json::Value = serde_json::from_str(&peers)?;
                Ok(peers["connections"][&hub.id]["connected"] == true)
            })?;
        }
        Ok(Self { dir: dir.to_owned(), hub, counties: members })
    }
}

impl FileSync for Syncthing {
    fn deliver(&self, county: usize) -> anyhow::Result<u64> {
        let member = &self.counties[county];
        let memory = member.watch_memory()?;
        member.request("POST", &format!("/rest/db/scan?folder=county-{county}"))?;
        let source = county_dir(&self.dir, county).join(whole_file::NAME).metadata()?;
        let copy = hub_dir(&self.dir, county).join(whole_file::NAME);
        wait_until("the hub has the file", PATIENCE, || {
            let stamp = |file: &std::fs::Metadata| (file.len(), file.mtime(), file.mtime_nsec());
            Ok(copy.metadata().is_ok_and(|copy| stamp(&copy) == stamp(&source)))
        })?;
        memory.peak_bytes()
    }

    fn watch_hub(&self) -> anyhow::Result<MemoryWatch> {
        self.hub.watch_memory()
    }
}

/// A shared folder as one instance sees it.
struct Folder<'a> {
    county: usize,
    path: PathBuf,
    kind: &'static str,
    peer: &'a Instance,
}

struct Instance {
    home: PathBuf,
    id: String,
    port: u16,
    process: Option<Process>,
}

impl Instance {
    fn make(network: &Network, home: &Path) -> anyhow::Result<Self> {
        let home_option = format!("--home={}", home.display());
        run(network.command("syncthing").args(["generate", "--no-default-folder", &home_option]))?;
        let id = text_of(network.command("syncthing").args([&home_option, "--device-id"]))?;
        Ok(Self {
            home: home.to_owned(),
            id: id.trim().to_owned(),
            port: free_port()?,
            process: None,
        })
    }

    fn address(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    fn socket(&self) -> PathBuf {
        self.home.join("rest.sock")
    }

    fn config(&self, folders: &[Folder<'_>]) -> String {
        let mut text = format!(
            "<configuration version=\"36\">\n<gui enabled=\"true\" tls=\"false\"><address>{}</address>\
             <apikey>{API_KEY}</apikey></gui>\n<options><listenAddress>{}</listenAddress>\
             <globalAnnounceEnabled>false</globalAnnounceEnabled><localAnnounceEnabled>false</localAnnounceEnabled>\
             <relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled><urAccepted>-1</urAccepted>\
             <crashReportingEnabled>false</crashReportingEnabled><autoUpgradeIntervalH>0</autoUpgradeIntervalH>\
             <startBrowser>false</startBrowser><setLowPriority>false</setLowPriority></options>\n\
             <device id=\"{}\"><address>dynamic</address></device>\n",
            self.socket().display(),
            self.address(),
            self.id
        );
        for Folder { county, path, kind, peer } in folders {
            text.push_str(&format!(
                "<device id=\"{peer}\"><address>{}</address></device>\n<folder id=\"county-{county}\" \
                 path=\"{}\" type=\"{kind}\" rescanIntervalS=\"0\" fsWatcherEnabled=\"false\">\
                 <device id=\"{}\"></device><device id=\"{peer}\"></device></folder>\n",
                peer.address(),
                path.display(),
                self.id,
                peer = peer.id
            ));
        }
        text.push_str("</configuration>\n");
        text
    }

    fn start(&mut self, network: &Network) -> anyhow::Result<()> {
        let log = std::fs::File::create(self.home.join("bench.log"))?;
        let mut command = network.command("syncthing");
        command
            .args(["serve", "--no-browser", "--no-upgrade", "--no-restart"])
            .arg(format!("--home={}", self.home.display()))
            .env("STNORESTART", "1")
            .env("STNOUPGRADE", "1")
            .stdout(log.try_clone()?)
            .stderr(Stdio::from(log));
        let mut process = Process::start(&mut command, Signal::TERM)?;
        wait_until("syncthing answers", PATIENCE, || {
            let log = || std::fs::read_to_string(self.home.join("bench.log"));
            ensure!(!process.has_ended()?, "syncthing ended: {}", log()?);
            Ok(self.request("GET", "/rest/system/ping").is_ok())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Asks the REST interface.
    fn request(&self, method: &str, path: &str) -> anyhow::Result<String> {
        let mut stream = UnixStream::connect(self.socket())?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nX-API-Key: {API_KEY}\r\nContent-Length: 0\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer of HTTP")?;
        ensure!(head.contains(" 200 "), "{method} {path}: {answer}");
        Ok(body.to_owned())
    }

    fn watch_memory(&self) -> anyhow::Result<MemoryWatch> {
        Ok(MemoryWatch::start(vec![self.process.as_ref().context("it does not run")?.id()]))
    }
}
