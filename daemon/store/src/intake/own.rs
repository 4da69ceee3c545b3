//! What this node has where pages of a peer's tree are or would be.

use protocol::{
    difference::Own,
    page::{PageRef, decode_inner},
    tree::Pages as _,
};

use crate::{engine::Disk, error::StoreError, tree::GenerationPages};

/// The replica's pages where these pages of a tree are or would be. What cannot
/// be read is as good as not there: it is fetched. The answer ends behind the page
/// with which it comes to `bytes_max` bytes.
pub fn own_pages(
    disk: &Disk,
    number: u32,
    generation: u32,
    level: u8,
    pages: &[PageRef],
    bytes_max: usize,
) -> Result<Vec<Own>, StoreError> {
    let mut stored = GenerationPages::new(disk, number, generation);
    let mut own = |page: &PageRef| {
        let found = match level {
            0 => {
                stored.seek_leaf(&page.first_key).map(|leaf| leaf.map(|(_, leaf)| Own::Leaf(leaf)))
            }
            _ => stored.seek(level, &page.first_key).map(|page| {
                page.and_then(|(_, body)| decode_inner(disk.suite, &body).ok().map(Own::Inner))
            }),
        };
        match found {
            Err(StoreError::Damaged { .. }) => Ok(Own::Nothing),
            found => found.map(|own| own.unwrap_or(Own::Nothing)),
        }
    };
    let (mut answer, mut bytes) = (Vec::new(), 0);
    for page in pages {
        let own = own(page)?;
        bytes += own.bytes();
        answer.push(own);
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(answer)
}
