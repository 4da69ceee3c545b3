//! What has to change so that a delivery is taken back.
//!
//! Used by [`super`]. Invariant: changes come in key order, and of records that
//! are not as the delivery left them only if that was asked for. Not here:
//! committing them.

use std::collections::BTreeSet;

use protocol::{change::Change, id::PartitionId, schema::Schema};

use super::UndoError;
use crate::ingest::{
    context::Context,
    diff::{Cursor, Stored},
    history::{
        History,
        event::Delivery,
        images::{Image, digest},
        touched::touched_since,
    },
    hold::{SAMPLES_MAX, key_text},
    words::ImportError,
};

/// What takes a delivery back, and how it came to be known.
pub(super) struct Planner<'a> {
    pub context: &'a Context,
    pub history: &'a History,
    pub partition: PartitionId,
    pub schema: Schema,
    pub delivery: &'a Delivery,
    /// The partition's number before the delivery, and after it.
    pub base_seq: u64,
    pub last_seq: u64,
    /// Also where records have changed since.
    pub force: bool,
}

/// What the changes come to.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Records that are as they were before the delivery.
    pub unchanged: u64,
    /// Records that are not as the delivery left them, and the keys of some.
    pub changed_since: u64,
    pub samples: Vec<String>,
}

/// Takes a change, and what is stored under its key now.
type Take<'t> = &'t mut dyn FnMut(Change, Option<Vec<u8>>) -> Result<(), ImportError>;

impl Planner<'_> {
    pub fn plan(&self, take: Take<'_>) -> Result<Plan, UndoError> {
        if self.delivery.first_load { self.plan_first_load(take) } else { self.plan_images(take) }
    }

    fn cursor(&self) -> Cursor {
        Cursor::new(self.context.store.live_pages(&self.partition), false)
    }

    fn impossible(&self, zh: &str, en: &str) -> UndoError {
        let (id, zh, en) = (self.delivery.id.clone(), zh.to_owned(), en.to_owned());
        UndoError::Impossible { id, zh, en }
    }

    /// A first load is taken back by deleting everything that nobody has touched
    /// since. Whether a key that was touched came with the load is not known, so
    /// it always stays.
    fn plan_first_load(&self, take: Take<'_>) -> Result<Plan, UndoError> {
        let touched = self.touched()?;
        let mut plan = Plan::default();
        let mut cursor = self.cursor();
        cursor.records_between(None, None, &mut |key, value| {
            if touched.contains(key) {
                plan.note_changed(&self.schema, key);
                return Ok(());
            }
            plan.deleted += 1;
            self.context.check_stop()?;
            take(Change::Delete { key: key.to_vec() }, Some(value.to_vec()))
        })?;
        Ok(plan)
    }

    /// Keys that may not be as a first load left them.
    fn touched(&self) -> Result<BTreeSet<Vec<u8>>, UndoError> {
        let store = &self.context.store;
        let left = store.header_at(&self.partition, self.last_seq)?;
        let left = left.map(|header| header.header().root);
        // What came since was taken back, too.
        if left.is_some() && left == store.head(&self.partition).map(|head| head.root()) {
            return Ok(BTreeSet::new());
        }
        let touched = touched_since(store, &self.partition, self.last_seq)?;
        touched.ok_or_else(|| {
            self.impossible(
                "此后的变更过多，无法逐条核对；请交付更正后的全量文件",
                "too much has changed since to look at each record: deliver a corrected full file",
            )
        })
    }

    fn plan_images(&self, take: Take<'_>) -> Result<Plan, UndoError> {
        let damaged = |source| UndoError::Images { id: self.delivery.id.clone(), source };
        let committed = self.committed_changes()?;
        let mut images = self.history.images(self.delivery).map_err(damaged)?;
        let (mut plan, mut cursor, mut count) = (Plan::default(), self.cursor(), 0);
        let mut last: Option<Vec<u8>> = None;
        while let Some(frame) = images.next_frame().map_err(damaged)? {
            self.context.check_stop()?;
            for image in frame {
                // What was interrupted may have more images than changes: those of the
                // last ones were not committed, or somebody else has made them since.
                if count == committed {
                    return Ok(plan);
                }
                let key = image.before.key().to_vec();
                if last.as_ref().is_some_and(|last| *last >= key) {
                    return Err(self.incomplete());
                }
                count += 1;
                self.look_at(image, &mut cursor, &mut plan, take)?;
                last = Some(key);
            }
        }
        if count < committed { Err(self.incomplete()) } else { Ok(plan) }
    }

    fn look_at(
        &self,
        image: Image,
        cursor: &mut Cursor,
        plan: &mut Plan,
        take: Take<'_>,
    ) -> Result<(), UndoError> {
        let Image { before, after } = image;
        let present = match cursor.get(before.key())? {
            Stored::Record(value) => Some(value),
            Stored::Nothing | Stored::Digest(_) => None,
        };
        if present == before.entry().map(|(_, value)| value) {
            plan.unchanged += 1;
            return Ok(());
        }
        if present.map(|value| digest(before.key(), value)) != after {
            plan.note_changed(&self.schema, before.key());
            if !self.force {
                return Ok(());
            }
        }
        match (present.is_some(), before.entry().is_some()) {
            (false, _) => plan.inserted += 1,
            (true, true) => plan.updated += 1,
            (true, false) => plan.deleted += 1,
        }
        let present = present.map(<[u8]>::to_vec);
        Ok(take(before, present)?)
    }

    /// Changes that the delivery's change sets have, as their headers say.
    fn committed_changes(&self) -> Result<u64, UndoError> {
        let mut changes = 0;
        for seq in self.base_seq + 1..=self.last_seq {
            let header = self.context.store.header_at(&self.partition, seq)?;
            let header = header.ok_or_else(|| self.incomplete())?;
            changes += u64::from(header.header().change_count);
        }
        Ok(changes)
    }

    fn incomplete(&self) -> UndoError {
        self.impossible(
            "导入前的内容没有完整保留（空间不足、已过期，或本机未保存）；请交付更正后的文件",
            "what was stored before was not kept in full (for want of room, or it has expired): deliver a corrected \
             file instead",
        )
    }
}

impl Plan {
    fn note_changed(&mut self, schema: &Schema, key: &[u8]) {
        self.changed_since += 1;
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(key_text(schema, key));
        }
    }
}
