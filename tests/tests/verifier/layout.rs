//! The numbers of `protocol/SPEC.md`, and the order of fields of what is signed:
//! all that changes when a format does.
//!
//! Nothing is checked here but that fields are there and have their form; what
//! they have to say to each other is the business of the modules that use them.

use super::{
    Checked, Refused, ensure,
    reader::{Reader, is_audience, is_dataset, is_label, is_partition, write_bytes},
};

/// Contexts of hashes, section 3.
pub mod hash {
    pub const KEY: &str = "creditsync/1 record key";
    pub const ENTRY: &str = "creditsync/1 entry";
    pub const PAGE: &str = "creditsync/1 tree page";
    pub const CHANGES: &str = "creditsync/1 change set body";
    pub const HEADER: &str = "creditsync/1 change set header";
    pub const HISTORY: &str = "creditsync/1 change set history";
    pub const NAME: &str = "creditsync/1 entry name";
    pub const KEY_ID: &str = "creditsync/1 signing key id";
    pub const TOKEN_SECRET: &str = "creditsync/1 join token secret";
    pub const CHECKSUM: &str = "creditsync/1 checksum";
}

/// Contexts of signatures, sections 4 and 16.
pub mod signature {
    pub const HEADER: &str = "creditsync/1 header signature";
    pub const POSSESSION: &str = "creditsync/1 signing key possession";
    pub const SUCCESSION: &str = "creditsync/1 signing key succession";
    pub const FRESHNESS: &str = "creditsync/1 freshness";
    pub const ANCHOR: &str = "creditsync/1 anchor";
}

/// Sections 1 and 3: BLAKE3 with 256 bits, Ed25519.
pub const SUITE: u8 = 1;
/// What stands before a signed header's own bytes, and a statement's: the suite and
/// the signature.
pub const SIGNED_AT: usize = 1 + 64;
/// What hashed messages are filled to.
pub const BLOCK_BYTES: usize = 64;
/// Stands before the key whose id is made.
pub const KEY_ID_PREFIX: &[u8] = b"ed25519";

pub const NAME_BYTES_MAX: usize = 63;
pub const SEQ_LIMIT: u64 = 1 << 62;
/// Numbers that a replica may pass over at once.
pub const PASSED_OVER_MAX: u64 = 1 << 32;
pub const KEY_BYTES_MAX: usize = 1024;
pub const RECORD_BYTES_MAX: usize = 65_536;
pub const TEXT_BYTES_MAX: usize = 65_536;
pub const DECIMAL_CHARACTERS_MAX: usize = 41;
pub const DECIMAL_DIGITS_MAX: usize = 38;
pub const FIELDS_MAX: usize = 128;

pub const PAGE_ENTRIES_MAX: usize = 160;
pub const LEAF_BYTES_MAX: usize = 10_650_562;
pub const INNER_BYTES_MAX: usize = 173_442;
/// What stands before the entries of all pieces in which a page may be told.
pub const PIECES_BYTES_MAX: usize = 5 * PAGE_ENTRIES_MAX;
pub const LEVELS_MAX: usize = 16;
/// Pages above a tree's leaves: so many, and one more for each full so many records.
pub const INNER_PAGES_MAX: u64 = 1024;
pub const RECORDS_FOR_AN_INNER_PAGE: u64 = 256;
pub const CHANGES_MAX: usize = 10_000;
pub const BODY_BYTES_MAX: usize = 8 << 20;
/// Of the leaves, and of the pages above them, that a change set may touch.
pub const TOUCHED_LEAF_BYTES_MAX: u64 = 64 << 20;
pub const TOUCHED_INNER_BYTES_MAX: u64 = 128 << 20;
/// Pages that a change set may make, and as many that it may end.
pub const TURNED_OVER_MAX: u64 = 16_384;
pub const SIGNED_HEADER_BYTES_MAX: usize = 1024;
pub const PROOF_HASHES_MAX: usize = 62;
/// Above this length a frame's window is limited, to 8 MiB.
pub const ANY_WINDOW_BYTES_MAX: usize = 1 << 20;
/// 8 MiB, as a power of two.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

pub const FEDERATION_DATASET: &str = "_federation";
pub const FEDERATION_BODY_BYTES_MAX: usize = 61_440;
pub const LAST_RECORDS_MAX: u32 = 127;
/// How a signing key came, and where an authority is in its life.
pub const INTRODUCTIONS: [&str; 4] = ["anchor", "enrolment", "succession", "reenrolment"];
pub const CERTIFICATE_STATES: [&str; 4] = ["next", "active", "retiring", "retired"];

pub const KEY_FIELDS_MAX: usize = 8;
pub const FIELD_TYPES: [&str; 6] = ["text", "code", "uscc", "integer", "decimal", "date"];
/// Of titles, aliases, listed values and texts that are null or ignored.
pub const LABEL_BYTES_MAX: usize = 256;
/// Of a dataset's own titles and its source.
pub const TITLE_BYTES_MAX: usize = 1024;
/// Names, titles and aliases of all fields together.
pub const LABELS_MAX: usize = 4096;
pub const LISTED_VALUES_MAX: usize = 4096;
/// Of texts that are null, and of labels that are ignored.
pub const LISTED_TEXTS_MAX: usize = 64;
pub const YEARS: std::ops::RangeInclusive<u16> = 1..=9999;
pub const DATASETS_MAX: usize = 256;
pub const DATASET_VERSIONS_MAX: usize = 64;
pub const SCHEMA_BYTES_MAX: usize = 8 << 20;

pub const FRAME_BYTES_MAX: usize = 9 << 20;
pub const CONTROL_FRAME_BYTES_MAX: usize = 3_751_088;
pub const TREE_FRAME_BYTES_MAX: usize = 1_049_600;
/// Of any suite, section 3.
pub const SIGNATURE_BYTES_MAX: usize = 96;
pub const PUBLIC_KEY_BYTES_MAX: usize = 64;
pub const HEADS_MAX: usize = 10_000;
pub const VERSIONS_MAX: usize = 16;
pub const BUILD_BYTES_MAX: usize = 64;
pub const ROOTS_MAX: usize = 16;
pub const REQUEST_BYTES_MAX: usize = 4096;
/// Pages in a request for whole ones, and for differences.
pub const ASKED_MAX: usize = 256;
pub const COMPARED_MAX: usize = 64;
/// An entry's name.
pub const NAME_BYTES: usize = 8;
pub const PART_BYTES_MAX: usize = 1 << 20;
pub const ROOT_PAGE_BYTES_MAX: usize = 16_384;
pub const ANCHOR_BYTES_MAX: usize = 5120;
pub const FRESHNESS_BYTES_MAX: usize = 512;
pub const EARLIER_KEYS_MAX: usize = 64;
pub const ANCHOR_SIGNATURE_BYTES_MAX: usize = 80;

pub const TOKEN_PREFIX: &str = "creditsync-join-1.";
pub const TOKEN_TEXT_BYTES_MAX: usize = 65_536;
pub const TOKEN_CHECKSUM_PREFIX: &[u8] = b"1";
pub const TOKEN_CHECKSUM_BYTES: usize = 4;
pub const TOKEN_FIELD_BYTES_MAX: usize = 4096;
pub const ADDRESSES_MAX: usize = 64;
pub const ADDRESS_BYTES_MAX: usize = 259;
/// Of a hub in `_federation`.
pub const HUB_ADDRESSES_MAX: usize = 8;
pub const HOST_BYTES_MAX: usize = 253;
/// Of a root's key: all that stands before the point of an ECDSA P-256 key.
pub const P256_KEY_PREFIX: &str = "301306072a8648ce3d020106082a8648ce3d030107034200";
pub const P256_POINT_BYTES: usize = 65;

/// A header's fields, section 10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub federation: String,
    pub dataset: String,
    pub origin: String,
    pub audience: String,
    pub seq: u64,
    pub previous: [u8; 32],
    pub history: [u8; 32],
    pub federation_head: Option<(u64, [u8; 32])>,
    pub time_ms: i64,
    pub schema_version: u32,
    pub change_count: u32,
    pub changes_hash: [u8; 32],
    pub root: [u8; 32],
    pub records: u64,
    pub key_id: [u8; 32],
}

/// A header's fields in their order.
pub fn header(bytes: &[u8]) -> Checked<Header> {
    let mut reader = Reader::new(bytes);
    ensure(reader.u8()? == 1, "a header of another version")?;
    let header = Header {
        federation: reader.name(is_label)?,
        dataset: reader.name(is_dataset)?,
        origin: reader.name(is_label)?,
        audience: reader.name(is_audience)?,
        seq: reader.u64()?,
        previous: reader.hash()?,
        history: reader.hash()?,
        federation_head: match reader.u8()? {
            0 => None,
            1 => Some((reader.u64()?, reader.hash()?)),
            _ => return Err(Refused("an unknown tag before a head")),
        },
        time_ms: reader.i64()?,
        schema_version: reader.u32()?,
        change_count: reader.u32()?,
        changes_hash: reader.hash()?,
        root: reader.hash()?,
        records: reader.u64()?,
        key_id: reader.hash()?,
    };
    reader.end()?;
    Ok(header)
}

/// The bytes of a header.
pub fn encode_header(header: &Header) -> Vec<u8> {
    let mut out = vec![1];
    for name in [&header.federation, &header.dataset, &header.origin, &header.audience] {
        write_bytes(&mut out, name.as_bytes());
    }
    let hash = |out: &mut Vec<u8>, hash: &[u8; 32]| {
        out.push(SUITE);
        out.extend(hash);
    };
    out.extend(header.seq.to_be_bytes());
    hash(&mut out, &header.previous);
    hash(&mut out, &header.history);
    out.push(u8::from(header.federation_head.is_some()));
    if let Some((seq, head)) = &header.federation_head {
        out.extend(seq.to_be_bytes());
        hash(&mut out, head);
    }
    out.extend(header.time_ms.to_be_bytes());
    out.extend(header.schema_version.to_be_bytes());
    out.extend(header.change_count.to_be_bytes());
    hash(&mut out, &header.changes_hash);
    hash(&mut out, &header.root);
    out.extend(header.records.to_be_bytes());
    hash(&mut out, &header.key_id);
    out
}

/// An anchor's fields, section 16.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorFields {
    pub federation: String,
    pub hub: String,
    pub hub_key: [u8; 32],
    pub epoch: u32,
    /// Of version 2 only: the number and the hash of the last good header, and
    /// the keys of earlier anchors.
    pub base: Option<(u64, [u8; 32])>,
    pub earlier: Vec<[u8; 32]>,
    pub signature: Vec<u8>,
    /// How many bytes stand before the signature's length.
    pub signed_bytes: usize,
}

/// An anchor's fields in their order.
pub fn anchor(bytes: &[u8]) -> Checked<AnchorFields> {
    let mut reader = Reader::new(bytes);
    let fields = anchor_from(&mut reader)?;
    reader.end()?;
    Ok(fields)
}

/// The same where more stands behind it, as in a token.
pub fn anchor_from(reader: &mut Reader<'_>) -> Checked<AnchorFields> {
    let all = reader.left();
    let version = reader.u8()?;
    ensure(version == 1 || version == 2, "an anchor of another version")?;
    reader.suite()?;
    let (federation, hub) = (reader.name(is_label)?, reader.name(is_label)?);
    let (hub_key, epoch) = (reader.raw()?, reader.u32()?);
    let (mut base, mut earlier) = (None, Vec::new());
    if version == 2 {
        base = Some((reader.u64()?, reader.raw()?));
        let count = usize::from(reader.u16()?);
        ensure((1..=EARLIER_KEYS_MAX).contains(&count), "a wrong number of earlier keys")?;
        for _ in 0..count {
            earlier.push(reader.raw()?);
        }
    }
    let signed_bytes = all - reader.left();
    let signature = reader.bytes(ANCHOR_SIGNATURE_BYTES_MAX)?.to_vec();
    Ok(AnchorFields { federation, hub, hub_key, epoch, base, earlier, signature, signed_bytes })
}

/// The bytes of an anchor that are signed.
pub fn encode_anchor(anchor: &AnchorFields) -> Vec<u8> {
    let mut out = vec![if anchor.base.is_some() { 2 } else { 1 }, SUITE];
    write_bytes(&mut out, anchor.federation.as_bytes());
    write_bytes(&mut out, anchor.hub.as_bytes());
    out.extend(anchor.hub_key);
    out.extend(anchor.epoch.to_be_bytes());
    if let Some((seq, hash)) = &anchor.base {
        out.extend(seq.to_be_bytes());
        out.extend(hash);
        let count = u16::try_from(anchor.earlier.len()).expect("there are few");
        out.extend(count.to_be_bytes());
        out.extend(anchor.earlier.concat());
    }
    out
}

/// A statement of freshness without its signature, section 16.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreshnessFields {
    pub partition: String,
    pub seq: u64,
    pub head: [u8; 32],
    pub time_ms: i64,
    pub key_id: [u8; 32],
}

/// The fields of a statement of freshness in their order.
pub fn freshness(signed: &[u8]) -> Checked<FreshnessFields> {
    let mut reader = Reader::new(signed);
    ensure(reader.u8()? == 1, "a statement of another version")?;
    let fields = FreshnessFields {
        partition: reader.text(FRESHNESS_BYTES_MAX)?.to_owned(),
        seq: reader.u64()?,
        head: reader.hash()?,
        time_ms: reader.i64()?,
        key_id: reader.hash()?,
    };
    ensure(is_partition(&fields.partition), "no full name of a partition")?;
    ensure((1..SEQ_LIMIT).contains(&fields.seq), "a number that cannot be")?;
    reader.end()?;
    Ok(fields)
}

/// The bytes of a statement of freshness that are signed.
pub fn encode_freshness(fields: &FreshnessFields) -> Vec<u8> {
    let mut out = vec![1];
    write_bytes(&mut out, fields.partition.as_bytes());
    out.extend(fields.seq.to_be_bytes());
    out.push(SUITE);
    out.extend(fields.head);
    out.extend(fields.time_ms.to_be_bytes());
    out.push(SUITE);
    out.extend(fields.key_id);
    out
}
