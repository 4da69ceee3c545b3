//! Packs: pages of bulk loads, in files beside sled.
//!
//! sled writes a value of 10 KB three times until its node has settled, so the
//! new leaves of a large change set, or of a peer's tree, and their indexes are
//! appended to a file, the *pack* of their generation, and the table gets only
//! the place of each. All others lie in the table, and so does a leaf that is
//! written anew: what it was stays behind as waste in the pack until the
//! generation is dropped, which an own partition's never is. So a pack does not grow
//! while half of it is waste ([`may_grow`]), and one that is mostly waste is rewritten:
//! what is needed of it is copied to the next *edition*, a file of its own
//! ([`repack`](super::repack)). The edition stands in each page's place.
//!
//! What holds: bytes of a pack that the table refers to never change, and are on
//! the disk before the reference is (`Disk` calls [`Packs::sync`] before it
//! writes to the journal or to sled). Behind the last of them anything may lie.
//! The checksum of a page stands beside its place. Which pages belong here is the
//! writer's question.

use std::{
    collections::{BTreeMap, BTreeSet},
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
}

/// A file: a pack, and which edition of it.
type FileId = (PackId, u16);

fn file_name((id, edition): FileId) -> String {
    match edition {
        0 => format!("{}-{}", id.number, id.generation),
        edition => format!("{}-{}.{edition}", id.number, id.generation),
    }
}

fn file_of(name: &str) -> Option<FileId> {
    let (name, edition) = name.split_once('.').unwrap_or((name, "0"));
    let (number, generation) = name.split_once('-')?;
    let id = PackId { number: number.parse().ok()?, generation: generation.parse().ok()? };
    Some((id, edition.parse().ok()?))
}

/// Bits of a place's offset, behind those of the edition.
const OFFSET_BITS: u32 = 48;

/// Where a page lies in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub edition: u16,
    offset: u64,
    pub bytes: u32,
}

impl Place {
    /// The bytes of an encoded place.
    pub const BYTES: usize = 12;

    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        // A file of 256 TiB is none.
        let offset = u64::from(self.edition) << OFFSET_BITS | self.offset;
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        bytes[8..].copy_from_slice(&self.bytes.to_be_bytes());
        bytes
    }

    /// `None` if the bytes are no place.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (offset, rest) = bytes.split_first_chunk()?;
        let length = rest.try_into().ok().map(u32::from_be_bytes)?;
        let offset = u64::from_be_bytes(*offset);
        let edition = (offset >> OFFSET_BITS) as u16;
        let offset = offset & ((1 << OFFSET_BITS) - 1);
        let place = Self { edition, offset, bytes: length };
        (length as usize <= PAGE_BYTES_MAX).then_some(place)
    }
}

/// The packs of a store. Only the writer appends.
pub struct Packs {
    directory: PathBuf,
    files: Mutex<BTreeMap<FileId, Arc<Pack>>>,
    /// All that there are.
    editions: Mutex<BTreeMap<PackId, BTreeSet<u16>>>,
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
        let mut editions = BTreeMap::<PackId, BTreeSet<u16>>::new();
        let failed = |problem: io::Error| file_error(&directory, &problem);
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            if let Some((id, edition)) =
                entry.map_err(failed)?.file_name().to_str().and_then(file_of)
            {
                editions.entry(id).or_default().insert(edition);
            }
        }
        Ok(Self {
            directory,
            files: Mutex::default(),
            editions: Mutex::new(editions),
            #[cfg(test)]
            no_sync: AtomicBool::new(false),
        })
    }

    /// Appends pages to the newest edition; answers the place of each.
    pub fn append(&self, id: PackId, pages: &[&[u8]]) -> Result<Vec<Place>, StoreError> {
        let edition = self.editions(id).last().copied().unwrap_or(0);
        let pack = self.writable((id, edition))?;
        let mut offset = pack.end.load(Ordering::Relaxed);
        let content = pages.concat();
        let written = pack.file.write_all_at(&content, offset);
        written.map_err(|problem| file_error(&pack.path, &problem))?;
        let place = |page: &&[u8]| {
            let place = Place { edition, offset, bytes: page.len() as u32 };
            offset += page.len() as u64;
            place
        };
        let places = pages.iter().map(place).collect();
        pack.end.fetch_add(content.len() as u64, Ordering::Relaxed);
        pack.unsynced.fetch_add(content.len() as u64, Ordering::Relaxed);
        Ok(places)
    }

    /// How long a pack is, with all its editions.
    pub fn length(&self, id: PackId) -> Result<u64, StoreError> {
        let length = |edition| {
            let pack = self.find((id, edition))?;
            Ok(pack.map_or(0, |pack| pack.end.load(Ordering::Relaxed)))
        };
        self.editions(id).into_iter().map(length).sum()
    }

    /// The editions of a pack, the newest last: two only while it is rewritten, or if that
    /// was interrupted.
    pub fn editions(&self, id: PackId) -> BTreeSet<u16> {
        self.known().get(&id).cloned().unwrap_or_default()
    }

    /// From now on pages are appended to a new edition.
    pub fn begin_edition(&self, id: PackId) -> Result<(), StoreError> {
        let newest = self.editions(id).last().copied().unwrap_or(0);
        let next = newest.checked_add(1).ok_or_else(|| {
            StoreError::Database(format!(
                "{DIRECTORY}/{} has no further edition",
                file_name((id, 0))
            ))
        })?;
        self.writable((id, next)).map(drop)
    }

    /// Removes all editions but the newest, to which nothing may refer any more.
    pub fn remove_earlier(&self, id: PackId) -> Result<(), StoreError> {
        let newest = self.editions(id).last().copied();
        self.remove_files(|file| file.0 == id && Some(file.1) != newest)
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
            place: format!("{DIRECTORY}/{}", file_name((id, place.edition))),
            problem: problem.into(),
        };
        let pack = self.find((id, place.edition))?.ok_or_else(|| damaged("the file is missing"))?;
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
        self.remove_files(|(id, _)| {
            id.number == number && generation.is_none_or(|generation| id.generation == generation)
        })
    }

    /// Removes all packs whose first number is this one or above.
    pub fn remove_from(&self, number: u32) -> Result<(), StoreError> {
        self.remove_files(|(id, _)| id.number >= number)
    }

    fn remove_files(&self, is_meant: impl Fn(&FileId) -> bool) -> Result<(), StoreError> {
        self.lock().retain(|file, _| !is_meant(file));
        let mut known = self.known();
        let all = known.iter();
        let files = all.flat_map(|(id, editions)| editions.iter().map(|edition| (*id, *edition)));
        let meant: Vec<FileId> = files.filter(is_meant).collect();
        for (id, edition) in meant {
            let path = self.directory.join(file_name((id, edition)));
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file_error(&path, &error));
                }
                _ => {}
            }
            if let Some(editions) = known.get_mut(&id) {
                editions.remove(&edition);
                if editions.is_empty() {
                    known.remove(&id);
                }
            }
        }
        Ok(())
    }

    /// All that there are.
    pub fn list(&self) -> Vec<PackId> {
        self.known().keys().copied().collect()
    }

    fn find(&self, id: FileId) -> Result<Option<Arc<Pack>>, StoreError> {
        let mut files = self.lock();
        if let Some(pack) = files.get(&id) {
            return Ok(Some(pack.clone()));
        }
        let path = self.directory.join(file_name(id));
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(Some(keep_open(&mut files, id, file, path)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file_error(&path, &error)),
        }
    }

    fn writable(&self, id: FileId) -> Result<Arc<Pack>, StoreError> {
        if let Some(pack) = self.find(id)? {
            return Ok(pack);
        }
        let path = self.directory.join(file_name(id));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let made = options.open(&path);
        let file = made.map_err(|problem| file_error(&path, &problem))?;
        // Its name has to survive a power cut, too.
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|problem| file_error(&self.directory, &problem))?;
        self.known().entry(id.0).or_default().insert(id.1);
        keep_open(&mut self.lock(), id, file, path)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<FileId, Arc<Pack>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<PackId, BTreeSet<u16>>> {
        self.editions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep_open(
    files: &mut BTreeMap<FileId, Arc<Pack>>,
    id: FileId,
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
