//! Files as they are delivered, against a real store and a simple reference.

mod cases;
mod deliveries;
mod holds;
mod import;
mod inbox;
mod properties;
mod recall;
mod undo;

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use certs::enrol::Anchor;
use protocol::{
    federation::Entry,
    hash::Hash,
    id::{DatasetId, FederationId, NodeId, PartitionId},
    page::Leaf,
    record::Record,
    schema::{Field, FieldType, RawSchema, Schema},
    suite::Suite,
    tree::Pages as _,
};
use store::{Options, OwnChanges, Store};
use tokio_util::sync::CancellationToken;

use super::{DeliveredFile, Links, Reading, error::FileError};
use crate::{
    ingest::{
        ImportError, ImportRequest, Importer,
        deliver::import_or_hold,
        held::{Deliveries, Held},
        history::UndoLimits,
        hold::HoldLimits,
        random::Random,
        report::ImportReport,
        source::SourceError,
        words::{Approval, Author},
    },
    membership::Membership,
};

/// Records by their first field, each as its values' texts.
type Content = BTreeMap<String, Vec<String>>;

/// A hub with a dataset `list`, and files for it.
struct World {
    dir: tempfile::TempDir,
    store: Store,
    membership: Arc<Membership>,
    importer: Arc<Importer>,
    deliveries: Arc<Deliveries>,
    stop: CancellationToken,
    files: Cell<u32>,
}

fn dataset() -> DatasetId {
    DatasetId::new("list").unwrap()
}

fn field(name: &str, kind: FieldType, required: bool) -> Field {
    Field {
        name: name.into(),
        title_zh: format!("栏{name}"),
        title_en: format!("the {name}"),
        kind,
        required,
        ..Field::default()
    }
}

/// `code` (the key), `name`, both required, then `note` and `amount`.
fn raw_schema(version: u32) -> RawSchema {
    RawSchema {
        dataset: "list".into(),
        version,
        title_zh: "名单".into(),
        title_en: "a list".into(),
        key: vec!["code".into()],
        fields: vec![
            field("code", FieldType::Code, true),
            field("name", FieldType::Text, true),
            field("note", FieldType::Text, false),
            field("amount", FieldType::Integer, false),
        ],
        ..RawSchema::default()
    }
}

impl World {
    fn new() -> Self {
        Self::with_memory(1 << 20)
    }

    fn with_memory(memory_bytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["store", "spool", "rejects", "files"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let options = Options { suite: Suite::One, cache_mb: 16, disk_reserve_mb: Some(1) };
        let store = Store::open(&dir.path().join("store"), &options).unwrap();
        let key = Arc::new(Suite::One.signing_key(&[7; 32]).unwrap());
        let hub = NodeId::new("410100").unwrap();
        let anchor = Anchor {
            federation: FederationId::new("zhengzhou").unwrap(),
            hub: hub.clone(),
            hub_key: key.public(),
            epoch: 1,
            base: None,
            earlier: vec![],
            signature: vec![],
        };
        store.set_signer(key);
        let membership = Arc::new(Membership::new(store.clone(), anchor, hub));
        let stop = CancellationToken::new();
        let importer = Arc::new(Importer::new(
            store.clone(),
            membership.clone(),
            dir.path().join("spool"),
            dir.path().join("recall"),
            memory_bytes,
            HoldLimits::default(),
            stop.clone(),
        ));
        let deliveries =
            Arc::new(Deliveries::new(dir.path().join("deliveries"), UndoLimits::default()));
        let files = Cell::new(0);
        let world = Self { dir, store, membership, importer, deliveries, stop, files };
        world.apply_schema(raw_schema(1));
        world
    }

    /// An importer of the same store that nobody has stopped.
    fn another_importer(&self) -> Importer {
        Importer::new(
            self.store.clone(),
            self.membership.clone(),
            self.path("spool"),
            self.path("recall"),
            1 << 20,
            HoldLimits::default(),
            CancellationToken::new(),
        )
    }

    fn apply_schema(&self, raw: RawSchema) {
        let changes = OwnChanges {
            partition: self.membership.partition().clone(),
            changes: vec![Entry::Schema(Schema::check(raw).unwrap()).put().unwrap()],
            schema_version: 1,
            keep_body: true,
        };
        self.store.commit_own_later(changes).unwrap().wait().unwrap();
    }

    fn partition(&self) -> PartitionId {
        self.membership.own_partition(&dataset())
    }

    fn seq(&self) -> u64 {
        self.store.seq(&self.partition())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, text: &str) -> PathBuf {
        self.files.set(self.files.get() + 1);
        let path = self.path(&format!("files/{}.csv", self.files.get()));
        fs::write(&path, text).unwrap();
        path
    }

    fn request(&self, path: &Path, full: bool) -> ImportRequest {
        self.try_request(path, full).unwrap()
    }

    fn try_request(&self, path: &Path, full: bool) -> Result<ImportRequest, FileError> {
        self.files.set(self.files.get() + 1);
        Ok(ImportRequest {
            dataset: dataset(),
            source: Arc::new(DeliveredFile::open(path, Links::Follow, Reading::default())?),
            full,
            approved: None,
            rejects: self.path(&format!("rejects/{}.csv", self.files.get())),
        })
    }

    /// What imports a held delivery after all.
    fn approval(&self, held: &Held, rejects: &str) -> ImportRequest {
        let reading = serde_json::from_value(held.settings.clone()).unwrap();
        let path = self.deliveries.data_path(held);
        ImportRequest {
            dataset: held.dataset.clone(),
            source: Arc::new(DeliveredFile::open(&path, Links::Refuse, reading).unwrap()),
            full: held.full,
            approved: Some(approved(&held.id)),
            rejects: self.path(rejects),
        }
    }

    fn try_import(&self, text: &str, full: bool) -> Result<ImportReport, ImportError> {
        self.importer.import(&self.request(&self.file(text), full), &|_| {})
    }

    fn import(&self, text: &str, full: bool) -> ImportReport {
        let report = self.try_import(text, full).unwrap();
        assert!(report.adds_up(), "{report:?}");
        assert_eq!(report.seq, self.seq());
        report
    }

    /// As a person lets it in whom no rule of holding keeps from it.
    fn import_anyway(&self, text: &str, full: bool) -> ImportReport {
        let mut request = self.request(&self.file(text), full);
        request.approved = Some(approved("list-1"));
        let report = self.importer.import(&request, &|_| {}).unwrap();
        assert!(report.adds_up(), "{report:?}");
        report
    }

    fn root(&self) -> Hash {
        self.store.head(&self.partition()).map_or(Suite::One.none(), |head| head.root())
    }

    /// As an administrator does, who is asked.
    fn import_or_hold(&self, text: &str, full: bool) -> ImportReport {
        let request = self.request(&self.file(text), full);
        let report = import_or_hold(&self.importer, &self.deliveries, &request, &|_| {}).unwrap();
        assert!(report.adds_up(), "{report:?}");
        report
    }

    fn content(&self) -> Content {
        self.content_of_partition(&self.partition())
    }

    fn content_of_partition(&self, partition: &PartitionId) -> Content {
        let mut content = Content::new();
        let Some(mut pages) = self.store.live_pages(partition) else {
            return content;
        };
        let mut page = pages.seek(0, &[]).unwrap();
        while let Some((first_key, body)) = page {
            for (_, value) in Leaf::decode(&body).unwrap().entries() {
                let record = Record::decode(value).unwrap();
                let mut texts =
                    record.values.iter().map(|value| value.canonical_text().into_owned());
                content.insert(texts.next().unwrap(), texts.collect());
            }
            let next = pages.next_key(0, &first_key).unwrap();
            page = next.and_then(|next| pages.seek(0, &next).unwrap());
        }
        let records = self.store.head(partition).unwrap().summary.records;
        assert_eq!(content.len() as u64, records);
        content
    }
}

/// What lets a delivery in, without a look at what it would do.
fn approved(id: &str) -> Approval {
    let author = Author::new("tester", Some("a reason"));
    Approval { id: id.to_owned(), author, seen_seq: None }
}

/// The numbers of a report that tests compare as a whole.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    inserted: u64,
    updated: u64,
    deleted: u64,
    unchanged: u64,
    rejected: u64,
    duplicates: u64,
    warnings: u64,
    change_sets: u64,
}

fn counts(report: &ImportReport) -> Counts {
    Counts {
        inserted: report.inserted,
        updated: report.updated,
        deleted: report.deleted,
        unchanged: report.unchanged,
        rejected: report.rejected,
        duplicates: report.duplicates,
        warnings: report.warnings,
        change_sets: report.change_sets,
    }
}

/// A file with these rows under the four columns.
fn csv(rows: impl IntoIterator<Item = String>) -> String {
    let mut text = String::from("code,name,note,amount\n");
    for row in rows {
        text.push_str(&row);
        text.push('\n');
    }
    text
}

fn row(number: u64, name: &str) -> String {
    format!("c{number:07},{name},note {number},{number}")
}

fn rows(numbers: impl IntoIterator<Item = u64>, name: &str) -> String {
    csv(numbers.into_iter().map(|number| row(number, name)))
}

fn content_of(numbers: impl IntoIterator<Item = u64>, name: &str) -> Content {
    let values = |number: u64| vec![name.into(), format!("note {number}"), number.to_string()];
    numbers.into_iter().map(|number| (format!("c{number:07}"), values(number))).collect()
}
