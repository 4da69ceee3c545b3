//! Packs: pages of bulk loads, in files beside sled.
//!
//! sled writes a value of 10 KB three times until its node has settled, so the
//! new leaves of a large change set, or of a peer's tree, and their indexes are
//! appended to a file, the *pack* of their generation, and the table gets only
//! the place of each. All others lie in the table, and so does a leaf that is
//! written anew: what it was stays behind as waste in the pack until the
//! generation is dropped, which an own partition's never is. So a pack may become
//! waste altogether, but it does not grow while half of it is ([`may_grow`]).
//!
//! What holds: bytes of a pack that the table refers to never change, and are on
//! the disk before the reference is (`Disk` calls [`Packs::sync`] before it
//! writes to the journal or to sled). Behind the last of them anything may lie.
//! The checksum of a page stands beside its place. Which pages belong here is the
//! writer's question.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use protocol::page::LEAF_BYTES_MAX;

use crate::error::StoreError;

/// The directory, in the store's.
pub const DIRECTORY: &str = "packs";
/// Fewer bytes of new pages go to the table: a pack would cost them an
/// `fdatasync` of its own.
pub const APPEND_BYTES_MIN: usize = 256 * 1024;
/// Bytes that wait for `fdatasync`: with more the last one of a load would take
/// long, with fewer there would be one after each change set.
pub const UNSYNCED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Files that are kept open for reading: there is one for each partition.
const FILES_OPEN_MAX: usize = 64;
/// Longest page, as a bound on what a garbled place makes us read.
const PAGE_BYTES_MAX: usize = LEAF_BYTES_MAX + 1024;

/// Whose values a pack has: those whose keys have these two numbers behind the
/// byte of their table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackId {
    pub number: u32,
    pub generation: u32,
}

impl PackId {
    /// The pack of the value under `key`, if it can have one.
    pub fn of_key(key: &[u8]) -> Option<Self> {
        let (number, rest) = key.get(1..)?.split_first_chunk()?;
        let generation = u32::from_be_bytes(*rest.first_chunk()?);
        Some(Self { number: u32::from_be_bytes(*number), generation })
    }

    fn file_name(self) -> String {
        format!("{}-{}", self.number, self.generation)
    }
}

/// Where a page lies in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    offset: u64,
    bytes: u32,
}

impl Place {
    /// The bytes of an encoded place.
    pub const BYTES: usize = 12;

    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_be_bytes());
        bytes[8..].copy_from_slice(&self.bytes.to_be_bytes());
        bytes
    }

    /// `None` if the bytes are no place.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (offset, rest) = bytes.split_first_chunk()?;
        let length = rest.try_into().ok().map(u32::from_be_bytes)?;
        let place = Self { offset: u64::from_be_bytes(*offset), bytes: length };
        (length as usize <= PAGE_BYTES_MAX).then_some(place)
    }
}

/// The packs of a store. Only the writer appends.
pub struct Packs {
    directory: PathBuf,
    files: Mutex<BTreeMap<PackId, Arc<Pack>>>,
    /// Lets a test see what happens when a file cannot be synced.
    #[cfg(test)]
    pub no_sync: AtomicBool,
}

struct Pack {
    file: File,
    path: PathBuf,
    end: AtomicU64,
    unsynced: AtomicU64,
    /// Nobody knows what of it is on the disk.
    broken: AtomicBool,
}

impl Packs {
    /// The packs below a store's directory.
    pub fn open(store: &Path) -> Result<Self, StoreError> {
        let directory = store.join(DIRECTORY);
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&directory);
        made.map_err(|problem| file_error(&directory, &problem))?;
        Ok(Self {
            directory,
            files: Mutex::default(),
            #[cfg(test)]
            no_sync: AtomicBool::new(false),
        })
    }

    /// Appends pages; answers the place of each.
    pub fn append(&self, id: PackId, pages: &[&[u8]]) -> Result<Vec<Place>, StoreError> {
        let pack = self.writable(id)?;
        let mut offset = pack.end.load(Ordering::Relaxed);
        let content = pages.concat();
        let written = pack.file.write_all_at(&content, offset);
        written.map_err(|problem| file_error(&pack.path, &problem))?;
        let place = |page: &&[u8]| {
            let place = Place { offset, bytes: page.len() as u32 };
            offset += page.len() as u64;
            place
        };
        let places = pages.iter().map(place).collect();
        pack.end.fetch_add(content.len() as u64, Ordering::Relaxed);
        pack.unsynced.fetch_add(content.len() as u64, Ordering::Relaxed);
        Ok(places)
    }

    /// How long a pack is.
    pub fn length(&self, id: PackId) -> Result<u64, StoreError> {
        Ok(self.find(id)?.map_or(0, |pack| pack.end.load(Ordering::Relaxed)))
    }

    /// Waits until all that was appended is on the disk; answers how many files
    /// had to be synced.
    pub fn sync(&self) -> Result<u64, StoreError> {
        let waiting = |pack: &&Arc<Pack>| pack.unsynced.load(Ordering::Relaxed) > 0;
        let packs: Vec<_> = self.lock().values().filter(waiting).cloned().collect();
        for pack in &packs {
            if pack.broken.load(Ordering::Relaxed) {
                let problem = "an earlier fdatasync failed; restart the node once the disk is well";
                return Err(StoreError::File { path: pack.path.clone(), problem: problem.into() });
            }
            if let Err(problem) = self.sync_data(&pack.file) {
                // The next one would succeed without what this one lost.
                pack.broken.store(true, Ordering::Relaxed);
                return Err(file_error(&pack.path, &problem));
            }
            pack.unsynced.store(0, Ordering::Relaxed);
        }
        Ok(packs.len() as u64)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        if self.no_sync.load(Ordering::Relaxed) {
            return Err(io::Error::other("broken by a test"));
        }
        file.sync_data()
    }

    /// Bytes that are not synced yet.
    pub fn unsynced_bytes(&self) -> u64 {
        self.lock().values().map(|pack| pack.unsynced.load(Ordering::Relaxed)).sum()
    }

    /// The page at a place, or why there is none.
    pub fn read(&self, id: PackId, place: Place) -> Result<Vec<u8>, StoreError> {
        let damaged = |problem: &str| StoreError::Damaged {
            place: format!("{DIRECTORY}/{}", id.file_name()),
            problem: problem.into(),
        };
        let pack = self.find(id)?.ok_or_else(|| damaged("the file is missing"))?;
        let mut page = vec![0; place.bytes as usize];
        match pack.file.read_exact_at(&mut page, place.offset) {
            Ok(()) => Ok(page),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(damaged("it ends before a page"))
            }
            Err(error) => Err(file_error(&pack.path, &error)),
        }
    }

    /// Removes all packs with this first number, or the one with this generation.
    pub fn remove(&self, number: u32, generation: Option<u32>) -> Result<(), StoreError> {
        let is_meant = |id: &PackId| {
            id.number == number && generation.is_none_or(|generation| id.generation == generation)
        };
        self.lock().retain(|id, _| !is_meant(id));
        for id in self.list()?.iter().filter(|id| is_meant(id)) {
            let path = self.directory.join(id.file_name());
            std::fs::remove_file(&path).map_err(|problem| file_error(&path, &problem))?;
        }
        Ok(())
    }

    /// Removes all packs whose first number is this one or above.
    pub fn remove_from(&self, number: u32) -> Result<(), StoreError> {
        let packs = self.list()?;
        let mut above = packs.iter().filter(|id| id.number >= number);
        above.try_for_each(|id| self.remove(id.number, Some(id.generation)))
    }

    /// All that there are.
    pub fn list(&self) -> Result<Vec<PackId>, StoreError> {
        let failed = |problem: io::Error| file_error(&self.directory, &problem);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let parts = name.to_str().and_then(|name| name.split_once('-'));
            if let Some((number, generation)) = parts
                && let (Ok(number), Ok(generation)) = (number.parse(), generation.parse())
            {
                found.push(PackId { number, generation });
            }
        }
        Ok(found)
    }

    fn find(&self, id: PackId) -> Result<Option<Arc<Pack>>, StoreError> {
        let mut files = self.lock();
        if let Some(pack) = files.get(&id) {
            return Ok(Some(pack.clone()));
        }
        let path = self.directory.join(id.file_name());
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(Some(keep_open(&mut files, id, file, path)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file_error(&path, &error)),
        }
    }

    fn writable(&self, id: PackId) -> Result<Arc<Pack>, StoreError> {
        if let Some(pack) = self.find(id)? {
            return Ok(pack);
        }
        let path = self.directory.join(id.file_name());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let made = options.open(&path);
        let file = made.map_err(|problem| file_error(&path, &problem))?;
        // Its name has to survive a power cut, too.
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|problem| file_error(&self.directory, &problem))?;
        keep_open(&mut self.lock(), id, file, path)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PackId, Arc<Pack>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep_open(
    files: &mut BTreeMap<PackId, Arc<Pack>>,
    id: PackId,
    file: File,
    path: PathBuf,
) -> Result<Arc<Pack>, StoreError> {
    if files.len() >= FILES_OPEN_MAX {
        let in_use = |pack: &Arc<Pack>| Arc::strong_count(pack) > 1;
        files.retain(|_, pack| in_use(pack) || pack.unsynced.load(Ordering::Relaxed) > 0);
    }
    let end = file.metadata().map_err(|problem| file_error(&path, &problem))?.len();
    let (end, unsynced) = (AtomicU64::new(end), AtomicU64::new(0));
    let pack = Arc::new(Pack { file, path, end, unsynced, broken: AtomicBool::new(false) });
    files.insert(id, pack.clone());
    Ok(pack)
}

/// What a tree has, of which some pages go to a pack: so many pages, and bytes before they
/// are packed. Pages alone would not do: those that are added may be larger than all others.
#[derive(Debug, Clone, Copy)]
pub struct InTree {
    pub pages: u64,
    pub bytes: u64,
}

/// Whether a pack of so many bytes may get `added` bytes of `pages` pages, for a
/// tree of so many pages: not where half of it would then be waste.
pub fn may_grow(length: u64, added: u64, pages: u64, in_tree: InTree) -> bool {
    let page_bytes = added / pages.max(1) + 1;
    (length + added) / page_bytes <= 2 * in_tree.pages.max(pages)
        && length + added <= 2 * in_tree.bytes.max(added)
}

fn file_error(path: &Path, problem: &io::Error) -> StoreError {
    StoreError::File { path: path.to_owned(), problem: problem.to_string() }
}
