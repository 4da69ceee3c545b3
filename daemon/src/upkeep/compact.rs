//! The chore `compact`: room that the database needs no more is given back to the disk.
//!
//! The store says when its file has become so long that a look is worth it, and does the
//! work piece by piece ([`store::Store::compact_some`]); here it gets its turns. It keeps
//! no position: a copy that was interrupted is worth nothing, and begins again. One that
//! is paused is given up, so that nothing is written twice meanwhile.

use std::time::Instant;

use store::{Compacted, Compaction};

use super::{Progress, STEP, Step, Upkeep};

const MIB: u64 = 1024 * 1024;

pub(super) async fn step(upkeep: &Upkeep) -> anyhow::Result<Step> {
    let until = Instant::now() + STEP;
    loop {
        match upkeep.context.store.compact_some().await? {
            Compacted::More { done, of } if Instant::now() >= until => {
                return Ok(Step::More(Progress { done, of }));
            }
            Compacted::More { .. } => {}
            Compacted::Ended(ended) => return Ok(tell(&ended)),
        }
    }
}

/// What has come of it, for people.
fn tell(ended: &Compaction) -> Step {
    let Compaction { before, after, content, packs, stopped } = ended;
    let [before, after, content] = [before, after, content].map(|bytes| bytes / MIB);
    let packs = (packs.0 / MIB, packs.1 / MIB);
    if let Some(error) = stopped {
        let text = format!(
            "数据库文件 {before} MiB，未能全部压缩：{error}；数据不受影响。处理后执行 'creditsync chore run compact' / \
             the database's file has {before} MiB, and not all of its waste could be given back: {error}. No data is \
             concerned; when that is mended: creditsync chore run compact"
        );
        return Step::Ended { result: text.clone(), attention: vec![text] };
    }
    let result = if (before, packs.0) == (after, packs.1) {
        format!(
            "数据库文件 {before} MiB，内容 {content} MiB，无需压缩 / the database's file has {before} MiB for {content} MiB of \
             content; nothing to do"
        )
    } else {
        format!(
            "数据库文件 {before} → {after} MiB，数据页文件 {} → {} MiB / the database's file had {before} MiB and has {after}, \
             the packs of pages had {} MiB and have {}",
            packs.0, packs.1, packs.0, packs.1
        )
    };
    Step::Ended { result, attention: Vec::new() }
}
