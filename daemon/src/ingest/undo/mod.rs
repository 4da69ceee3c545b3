//! Taking a delivery back, and removing one record.
//!
//! Used by `creditsync delivery undo` and `creditsync record delete`. Both make a
//! change set like any other delivery, and can be taken back themselves.
//! Invariants: nothing is committed before it is known of every record that it
//! is as the delivery left it, or somebody said that it does not matter; a
//! delivery of which not all is kept is not taken back at all. Not here: what is
//! kept of deliveries (`history`), and what differs (`plan`).

mod plan;

use protocol::{
    change::Change,
    id::{DatasetId, PartitionId},
    moment::from_rfc3339,
};
use store::StoreError;

use self::plan::{Plan, Planner};
use super::{
    cut::{ChangeSpool, Cutter},
    held::Deliveries,
    history::{
        Recording,
        event::{Delivery, Description, Kind, State},
    },
    import::Importer,
    report::ImportReport,
    spool::SpoolError,
    words::{Author, ImportError},
};

/// Why a delivery is not taken back, or a record not removed.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// No such delivery.
    #[error(
        "没有编号为 '{0}' 的交付；'creditsync delivery list --all' 列出全部 / there is no delivery '{0}'; \
         'creditsync delivery list --all' shows them"
    )]
    Unknown(String),
    /// There is nothing to take back.
    #[error("{id}：没有可撤销的内容，{zh} / there is nothing to take back of {id}: {en}")]
    Nothing {
        /// The delivery.
        id: String,
        /// Why, in Chinese.
        zh: String,
        /// Why, in English.
        en: String,
    },
    /// It cannot be taken back any more.
    #[error("{id} 无法撤销：{zh} / {id} cannot be taken back: {en}")]
    Impossible {
        /// The delivery.
        id: String,
        /// Why and what to do, in Chinese.
        zh: String,
        /// Why and what to do, in English.
        en: String,
    },
    /// Records have changed since.
    #[error(
        "{id} 没有撤销：此后有 {records} 条记录又有变化，例如 {samples}；确认后可用 --force 撤销 / {id} is not taken \
         back: {records} records have changed since, for example {samples}; look at them, and use --force to take it \
         back all the same"
    )]
    Changed {
        /// The delivery.
        id: String,
        /// Records that are not as it left them.
        records: u64,
        /// Their keys, some of them.
        samples: String,
    },
    /// There is no such record.
    #[error(
        "本节点的 {dataset} 中没有主键为 {key} 的记录 / this node's own partition of {dataset} has no record with the \
         key {key}"
    )]
    NoRecord {
        /// The dataset.
        dataset: DatasetId,
        /// The key, as people read it.
        key: String,
    },
    /// What it rests on failed.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// What was kept of it cannot be read.
    #[error("{id}: {source}")]
    Images {
        /// The delivery.
        id: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl From<StoreError> for UndoError {
    fn from(error: StoreError) -> Self {
        UndoError::Import(error.into())
    }
}

impl From<SpoolError> for UndoError {
    fn from(error: SpoolError) -> Self {
        UndoError::Import(error.into())
    }
}

/// What taking a delivery back did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Undone {
    /// The delivery that took it back, and can be taken back itself.
    pub id: String,
    /// The delivery that was taken back.
    pub undoes: String,
    /// Records that had changed since: a first load leaves them, anything else
    /// has replaced them by what was there before the delivery.
    pub changed_since: u64,
    /// Their keys, some of them.
    pub samples: Vec<String>,
    /// What it did; `rows` are the records that the delivery had changed.
    #[serde(flatten)]
    pub report: ImportReport,
}

impl Importer {
    /// Takes back what a delivery did. With `force` also where records have
    /// changed since. Blocks.
    pub fn undo(
        &self,
        deliveries: &Deliveries,
        id: &str,
        force: bool,
        author: Author,
    ) -> Result<Undone, UndoError> {
        let unknown = || UndoError::Unknown(id.to_owned());
        let known = deliveries.history().delivery(id).ok_or_else(unknown)?;
        let partition = self.context.membership.own_partition(&known.what.dataset);
        self.alone(&partition, || {
            // It may have gone on while somebody else had the partition.
            let all = deliveries.history().deliveries();
            let delivery = all.iter().find(|one| one.id == id).ok_or_else(unknown)?;
            let base_seq = check(delivery, deliveries.history().limits().age_max())?;
            let head = self.context.store.seq(&partition);
            // One that was interrupted ends where the next one begins.
            let next = all.iter().filter(|one| {
                one.begun > delivery.begun && one.what.dataset == delivery.what.dataset
            });
            let end = delivery.last_seq.or_else(|| next.filter_map(|one| one.base_seq).min());
            let last_seq = end.unwrap_or(head).min(head);
            let last_seq = match delivery.state {
                State::Interrupted => self.own_last(delivery, &partition, base_seq..last_seq)?,
                _ => last_seq,
            };
            let planner = Planner {
                context: &self.context,
                history: deliveries.history(),
                partition: partition.clone(),
                schema: self.schema(
                    &*self.context.membership.current().map_err(ImportError::from)?,
                    &delivery.what.dataset,
                )?,
                delivery,
                base_seq,
                last_seq,
                force,
            };
            self.take_back(deliveries, planner, author)
        })
    }

    /// The number of the last change set that an interrupted delivery may have committed:
    /// what was signed before it began has come back from the hub since, as to a directory
    /// that was joined anew.
    fn own_last(
        &self,
        delivery: &Delivery,
        partition: &PartitionId,
        numbers: std::ops::Range<u64>,
    ) -> Result<u64, UndoError> {
        // The log says seconds.
        let begun_ms = from_rfc3339(&delivery.at).map_or(i64::MAX, |at| at.saturating_mul(1000));
        let mut last = numbers.start;
        while last < numbers.end {
            let header = self.context.store.header_at(partition, last + 1)?;
            if header.is_none_or(|header| header.header().origin_time_ms < begun_ms) {
                break;
            }
            last += 1;
        }
        if last == numbers.start {
            return Err(UndoError::Nothing {
                id: delivery.id.clone(),
                zh: "它没有写入任何内容".to_owned(),
                en: "nothing of it was written".to_owned(),
            });
        }
        Ok(last)
    }

    /// The partition is nobody else's meanwhile.
    fn take_back(
        &self,
        deliveries: &Deliveries,
        planner: Planner<'_>,
        author: Author,
    ) -> Result<Undone, UndoError> {
        let (context, undoes) = (&self.context, planner.delivery.id.clone());
        let head = context.store.head(&planner.partition);
        let (seq, stored) = head.map_or((0, 0), |head| (head.seq(), head.summary.records));
        let what = Description {
            dataset: planner.delivery.what.dataset.clone(),
            kind: Kind::Undo,
            file: planner.delivery.what.file.clone(),
            author: Some(author),
            undoes: Some(undoes.clone()),
        };
        let id = deliveries.new_id(&what.dataset);
        let history = deliveries.history();
        let (partition, what) = (planner.partition.clone(), (id.clone(), what));
        let mut recording =
            Recording::new(history, &context.store, partition, what, seq, stored == 0);
        let mut spool = ChangeSpool::new(&context.temporary)?;
        let plan = planner.plan(&mut |change, present| {
            spool.push(&change)?;
            recording.push(change, present);
            Ok(())
        })?;
        let Plan { inserted, updated, deleted, unchanged, changed_since, samples } = plan;
        if changed_since > 0 && !planner.force {
            let samples = samples.join(", ");
            return Err(UndoError::Changed { id: undoes, records: changed_since, samples });
        }
        let version = planner.schema.version();
        let mut cutter =
            Cutter::new(&context.store, planner.partition, version, Some(&mut recording));
        spool.replay(|change| {
            context.check_stop()?;
            Ok::<_, ImportError>(cutter.push(change)?)
        })?;
        cutter.finish()?;
        let (change_sets, seq) = (cutter.change_sets, cutter.seq);
        drop(cutter);
        let rows = inserted + updated + unchanged;
        let counts = ImportReport { rows, inserted, updated, deleted, unchanged, ..<_>::default() };
        let report = ImportReport { change_sets, seq, delivery: Some(id.clone()), ..counts };
        recording.end(&report);
        Ok(Undone { id, undoes, changed_since, samples, report })
    }

    /// Removes one record of this node's own partition. Blocks.
    pub fn delete_record(
        &self,
        deliveries: &Deliveries,
        dataset: &DatasetId,
        (key, shown): (&[u8], &str),
        author: Author,
    ) -> Result<(String, ImportReport), UndoError> {
        let context = &self.context;
        let registry = context.membership.current().map_err(ImportError::from)?;
        let schema = self.schema(&registry, dataset)?;
        let partition = context.membership.own_partition(dataset);
        self.alone(&partition, || {
            let missing =
                || UndoError::NoRecord { dataset: dataset.clone(), key: shown.to_owned() };
            let before = context.store.get(&partition, key)?.ok_or_else(missing)?;
            let what = Description {
                dataset: dataset.clone(),
                kind: Kind::RecordDelete,
                file: None,
                author: Some(author),
                undoes: None,
            };
            let id = deliveries.new_id(dataset);
            let seq = context.store.seq(&partition);
            let (history, store) = (deliveries.history(), &context.store);
            let what = (id.clone(), what);
            let mut recording = Recording::new(history, store, partition.clone(), what, seq, false);
            let mut cutter =
                Cutter::new(store, partition.clone(), schema.version(), Some(&mut recording));
            cutter.push_with(Change::Delete { key: key.to_vec() }, Some(before))?;
            cutter.finish()?;
            let (change_sets, seq) = (cutter.change_sets, cutter.seq);
            drop(cutter);
            let delivery = Some(id.clone());
            let report = ImportReport { deleted: 1, change_sets, seq, delivery, ..<_>::default() };
            recording.end(&report);
            Ok((id, report))
        })
    }
}

/// The number before a delivery, if it can be taken back by what the log says.
fn check(delivery: &Delivery, age_max: std::time::Duration) -> Result<u64, UndoError> {
    let id = delivery.id.clone();
    let nothing = |zh: &str, en: &str| UndoError::Nothing {
        id: delivery.id.clone(),
        zh: zh.to_owned(),
        en: en.to_owned(),
    };
    match delivery.state {
        State::Taken | State::Approved | State::Interrupted => {}
        State::Held => {
            return Err(nothing(
                "它还在等待批准，可以丢弃",
                "it still waits, and can be discarded",
            ));
        }
        State::Discarded => return Err(nothing("它已被丢弃", "it was discarded")),
        State::Undone => return Err(nothing("它已经撤销", "it was taken back already")),
    }
    // Of one from tomorrow's clock nobody says that it is too old.
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let age_s = from_rfc3339(&delivery.at).map_or(0, |at| now.saturating_sub(at));
    if u64::try_from(age_s).unwrap_or(0) > age_max.as_secs() {
        let days = age_max.as_secs() / (24 * 3600);
        return Err(UndoError::Impossible {
            id,
            zh: format!("它已超过 {days} 天（设置 import.undo_days）；请交付更正后的文件"),
            en: format!(
                "it is older than {days} days (import.undo_days): deliver a corrected file instead"
            ),
        });
    }
    delivery.base_seq.ok_or_else(|| nothing("它没有改变任何记录", "it changed no record"))
}
