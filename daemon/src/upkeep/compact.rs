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
    let Compaction { before, after, content, stopped } = ended;
    let (before, after, content) = (before / MIB, after / MIB, content / MIB);
    if let Some(error) = stopped {
        let text = format!(
            "数据库文件 {before} MiB，内容仅 {content} MiB，但未能压缩：{error}；数据不受影响。处理后执行 'creditsync chore run \
             compact' / the database's file has {before} MiB for {content} MiB of content, and could not be compacted: \
             {error}. No data is concerned; when that is mended: creditsync chore run compact"
        );
        return Step::Ended { result: text.clone(), attention: vec![text] };
    }
    let result = if before == after {
        format!(
            "数据库文件 {before} MiB，内容 {content} MiB，无需压缩 / the database's file has {before} MiB for {content} MiB of \
             content; nothing to do"
        )
    } else {
        format!(
            "数据库文件由 {before} MiB 压缩到 {after} MiB / the database's file had {before} MiB and has {after} MiB"
        )
    };
    Step::Ended { result, attention: Vec::new() }
}
