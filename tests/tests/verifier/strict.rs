//! Encodings that a decoder has to refuse: limits, tags, order, and anything left
//! over. Each with its reason, so that no check hides another.

use super::{
    Checked, Refused,
    anchor::{Anchor, Freshness, RootKey},
    change::{self, Change, SignedHeader},
    hashes::{self, Hash},
    layout::{self, Header},
    made::{self, Origin, compressed, key},
    pages,
    pages::decompress,
    record::{self, Value},
    tree,
};

#[track_caller]
pub fn refused<T>(read: Checked<T>, why: &'static str) {
    assert_eq!(read.map(|_| ()), Err(Refused(why)));
}

/// So many zeros behind some bytes.
pub fn longer(bytes: &[u8], by: usize) -> Vec<u8> {
    [bytes, &vec![0; by]].concat()
}

#[test]
fn anchors_and_statements_outside_of_their_rules_are_refused() {
    let root = made::root();
    let read = |fields: &layout::AnchorFields| Anchor::verified(&made::anchor(fields), &root);
    let plain = made::fields(&key(1));
    assert!(read(&plain).is_ok());
    let public = made::public(&key(2));
    let based = layout::AnchorFields {
        epoch: 2,
        base: Some((7, [7; 32])),
        earlier: vec![public],
        ..plain.clone()
    };
    assert!(read(&based).is_ok());
    let alter = |alter: &dyn Fn(&mut layout::AnchorFields)| {
        let mut fields = based.clone();
        alter(&mut fields);
        read(&fields)
    };
    refused(alter(&|fields| fields.epoch = 1), "a base in a first epoch");
    refused(alter(&|fields| fields.base = Some((0, [7; 32]))), "a number that cannot be");
    refused(alter(&|fields| fields.earlier = vec![]), "a wrong number of earlier keys");
    assert!(alter(&|fields| fields.earlier = vec![public; 64]).is_ok());
    refused(alter(&|fields| fields.earlier = vec![public; 65]), "a wrong number of earlier keys");
    refused(alter(&|fields| fields.earlier = vec![[0; 32]]), "a public key of small order");
    refused(
        alter(&|fields| fields.earlier = vec![public, fields.hub_key]),
        "its own key among the earlier ones",
    );
    refused(alter(&|fields| fields.hub_key = [0; 32]), "a public key of small order");
    refused(alter(&|fields| fields.hub = "Hub".into()), "a name outside of its alphabet");
    refused(alter(&|fields| fields.hub = String::new()), "a name outside of its alphabet");
    refused(alter(&|fields| fields.hub = "x".repeat(64)), "longer than its limit");

    let bytes = made::anchor(&plain);
    refused(Anchor::verified(&longer(&bytes, 1), &root), "bytes are left over");
    refused(
        Anchor::verified(&longer(&bytes, layout::ANCHOR_BYTES_MAX), &root),
        "an anchor over its limit",
    );
    let other = [&[3], &bytes[1..]].concat();
    refused(Anchor::verified(&other, &root), "an anchor of another version");
    let mut long = layout::encode_anchor(&plain);
    super::reader::write_bytes(&mut long, &[0; 81]);
    refused(Anchor::verified(&long, &root), "longer than its limit");

    let prefix = hashes::unhex(layout::P256_KEY_PREFIX).unwrap();
    refused(RootKey::new(&longer(&prefix, 64)), "a root key of another length");
    refused(RootKey::new(&longer(&[0x30], 90)), "a root key of another kind");

    let of_number = |version: u8, number: u64, more: usize| {
        let mut bytes = vec![layout::SUITE];
        bytes.extend([0; 64]);
        bytes.push(version);
        super::reader::write_bytes(&mut bytes, b"made-city/_federation/410100/*");
        bytes.extend(number.to_be_bytes());
        bytes.push(layout::SUITE);
        bytes.extend([0; 32 + 8]);
        bytes.push(layout::SUITE);
        longer(&bytes, 32 + more)
    };
    let statement = |version: u8, more: usize| of_number(version, 7, more);
    refused(Freshness::decode(&of_number(1, 0, 0)), "a number that cannot be");
    assert!(Freshness::decode(&statement(1, 0)).is_ok());
    refused(Freshness::decode(&statement(2, 0)), "a statement of another version");
    refused(Freshness::decode(&statement(1, 1)), "bytes are left over");
    refused(Freshness::decode(&statement(1, 400)), "a statement over its limit");
    let read = Freshness::decode(&statement(1, 0)).unwrap();
    refused(read.verify(&public), "another key's id");
}

#[test]
fn headers_outside_of_their_rules_are_refused() {
    let mut origin = Origin::new("enterprise", made::COUNTY);
    let change = Change::Put { key: b"a".to_vec(), record: vec![] };
    origin.next(std::slice::from_ref(&change), Some((1, [1; 32])), &key(2));
    let header = origin.header(&[], Some((1, [1; 32])));
    let whole = made::signed(header.clone(), &key(2));
    let read = SignedHeader::decode(&whole).unwrap();
    assert_eq!(read.verify(&made::public(&key(2))), Ok(()));
    refused(read.verify(&made::public(&key(3))), "another key's id");
    let alter = |alter: &dyn Fn(&mut Header)| {
        let mut header = header.clone();
        alter(&mut header);
        SignedHeader::decode(&made::signed(header, &key(2)))
    };
    refused(alter(&|header| header.seq = 0), "a number that cannot be");
    refused(alter(&|header| header.seq = 1 << 62), "a number that cannot be");
    let head = alter(&|header| header.federation_head = Some((1 << 62, [1; 32])));
    refused(head, "a head that cannot be");
    assert!(alter(&|header| header.seq = (1 << 62) - 1).is_ok());
    refused(alter(&|header| header.seq = 1), "a first header, or not");
    refused(alter(&|header| header.previous = [0; 32]), "a first header, or not");
    let none = super::history::root(&[]);
    refused(alter(&|header| header.history = none), "a first history, or not");
    let alphabet = "a name outside of its alphabet";
    refused(alter(&|header| header.origin = "*".into()), alphabet);
    refused(alter(&|header| header.dataset = "_other".into()), alphabet);
    refused(alter(&|header| header.federation = "_federation".into()), alphabet);
    refused(alter(&|header| header.audience = "a/b".into()), alphabet);
    let system = alter(&|header| header.dataset = "_federation".into());
    refused(system, "a head where none belongs, or none");
    let absent = alter(&|header| header.federation_head = None);
    refused(absent, "a head where none belongs, or none");

    refused(SignedHeader::decode(&longer(&whole, 1)), "bytes are left over");
    refused(SignedHeader::decode(&longer(&whole, 1024)), "a header over its limit");
    let at = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[layout::SIGNED_AT + at] = byte;
        SignedHeader::decode(&bytes)
    };
    refused(at(0, 2), "a header of another version");
    refused(at(5, 0xff), "text that is not UTF-8");
    // Behind the version, four names and the number.
    let previous = 1 + 4 * 4 + "made-cityenterprise410122*".len() + 8;
    refused(at(previous, 2), "another suite");
    refused(at(previous + 2 * 33, 2), "an unknown tag before a head");
}

#[test]
fn bodies_and_pages_outside_of_their_rules_are_refused() {
    let put = |key: &[u8], record: &[u8]| Change::Put { key: key.into(), record: record.into() };
    let read = |changes: &[Change]| change::changes(&made::body(changes));
    assert_eq!(read(&[]), Ok(vec![]));
    refused(read(&[put(b"b", b""), put(b"a", b"")]), "keys out of order");
    refused(read(&[put(b"a", b""), Change::Delete { key: b"a".to_vec() }]), "keys out of order");
    let many = |count: u32| (0..count).map(|n| put(&n.to_be_bytes(), b"")).collect::<Vec<_>>();
    assert!(read(&many(10_000)).is_ok());
    refused(read(&many(10_001)), "too many changes");
    assert!(read(&[put(&[1; 1024], &[1; 65_536])]).is_ok());
    refused(read(&[put(&[1; 1025], b"")]), "longer than its limit");
    refused(read(&[put(b"a", &[1; 65_537])]), "longer than its limit");
    let large: Vec<Change> = (0..129u8).map(|n| put(&[n], &[1; 65_536])).collect();
    refused(read(&large), "a body over its limit");
    refused(change::changes(&[3, 0, 0, 0, 1, 9]), "an unknown kind of change");
    refused(change::changes(&[2, 0, 0, 0, 2, 9]), "cut short");

    let leaf = |keys: &[u16]| {
        let count = u16::try_from(keys.len()).unwrap();
        let entries = keys
            .iter()
            .flat_map(|key| [&[0, 2], &key.to_be_bytes()[..], &[0, 0, 0, 1, 9]].concat());
        count.to_be_bytes().into_iter().chain(entries).collect::<Vec<u8>>()
    };
    let whole: Vec<u16> = (0..160).collect();
    assert_eq!(pages::leaf(&leaf(&whole)).unwrap().len(), 160);
    let over: Vec<u16> = (0..161).collect();
    refused(pages::leaf(&leaf(&over)), "a wrong number of entries");
    refused(pages::leaf(&leaf(&[])), "a wrong number of entries");
    refused(pages::leaf(&leaf(&[2, 2])), "keys out of order");
    refused(pages::leaf(&longer(&leaf(&[2]), 1)), "bytes are left over");
    refused(pages::leaf(&[0, 1, 4, 1]), "a key over its limit");
    refused(pages::leaf(&longer(&[], 10_650_563)), "a leaf over its limit");

    let inner = |children: &[(u8, u64, u16)]| {
        let mut body = u16::try_from(children.len()).unwrap().to_be_bytes().to_vec();
        for (key, records, entries) in children {
            body.extend([0, 1, *key]);
            body.extend([7; 32]);
            body.extend(records.to_be_bytes());
            body.extend(entries.to_be_bytes());
        }
        body
    };
    assert!(pages::inner(&inner(&[(1, 160, 160), (2, 1, 1)])).is_ok());
    for counts in [(1, 3, 0), (1, 200, 161), (1, 2, 3)] {
        refused(pages::inner(&inner(&[counts])), "counts that cannot be");
    }
    refused(pages::inner(&inner(&[(2, 1, 1), (1, 1, 1)])), "keys out of order");
    refused(pages::inner(&inner(&[])), "a wrong number of entries");
    refused(pages::inner(&longer(&inner(&[(1, 1, 1)]), 1)), "bytes are left over");
    let entry = |key: &[u8]| vec![(key.to_vec(), vec![])];
    refused(pages::state([entry(b"b"), entry(b"a")]), "keys out of order across pages");

    let known = [(b"a".to_vec(), vec![])];
    refused(pages::leaf_difference(&known, &[0, 0, 0, 0, 0]), "an empty piece");
    refused(pages::leaf_difference(&known, &[1, 0, 0]), "an empty piece");
    refused(pages::leaf_difference(&known, &[2, 0, 1]), "an unknown kind of piece");
    let again = [0, 0, 0, 0, 1].repeat(161);
    refused(pages::leaf_difference(&known, &again), "a wrong number of entries");
}

#[test]
fn compressed_fields_outside_of_their_rules_are_refused() {
    let content = b"creditsync".repeat(100);
    let field = compressed(&content);
    assert_eq!(decompress(&[0; 4], 0), Ok(vec![]), "no frame, and no bytes");
    // A frame that claims 254 bytes and has none.
    let claim = [0, 0, 0, 0, 0x28, 0xb5, 0x2f, 0xfd, 0x20, 0xfe, 1, 0, 0];
    refused(decompress(&claim, 1000), "bytes that zstd refuses");
    let two = [&field[..4], &compressed(&content[..400])[4..], &compressed(&content[400..])[4..]];
    assert_eq!(decompress(&two.concat(), 1000).as_ref(), Ok(&content), "frames, one or more");
    refused(decompress(&field, 999), "longer than its limit");
    refused(decompress(&longer(&field, 4), 1000), "bytes that zstd refuses");
    let length = |length: u32| [&length.to_be_bytes(), &field[4..]].concat();
    refused(decompress(&length(999), 1000), "bytes that zstd refuses");
    refused(decompress(&length(1001), 2000), "compressed bytes of another length");
    // Up to 1 MiB no window is too large: nobody has to reserve it.
    let small = [0, 0, 0, 0, 0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3, 1, 0, 0];
    assert_eq!(decompress(&small, 1000), Ok(vec![]));
    // Without a length a frame has no window smaller than what it was made with.
    let window = |log: u32| {
        let content = vec![5; 9 << 20];
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        std::io::Write::write_all(&mut encoder, &content).unwrap();
        [&(9u32 << 20).to_be_bytes()[..], &encoder.finish().unwrap()].concat()
    };
    assert!(decompress(&window(23), layout::LEAF_BYTES_MAX).is_ok());
    refused(decompress(&window(24), layout::LEAF_BYTES_MAX), "bytes that zstd refuses");
    let less = [&(8u32 << 20).to_be_bytes()[..], &window(20)[4..]].concat();
    refused(decompress(&less, layout::LEAF_BYTES_MAX), "compressed bytes of another length");
}

#[test]
fn records_and_keys_outside_of_their_rules_are_refused() {
    let read = |value: &[u8]| record::decode(&[&[0, 0, 0, 1, 0, 1], value].concat());
    let counted = |tag: u8, text: &str| {
        let mut value = vec![tag];
        super::reader::write_bytes(&mut value, text.as_bytes());
        value
    };
    assert!(read(&counted(1, &"x".repeat(65_536 - 11))).is_ok());
    refused(read(&counted(1, &"x".repeat(65_537 - 11))), "a record over its limit");
    refused(read(&counted(1, "")), "an empty text is null");
    refused(read(&[1, 0, 0, 0, 1, 0xff]), "text that is not UTF-8");
    refused(read(&[5]), "an unknown kind of value");
    refused(read(&[0, 0]), "bytes are left over");
    let nulls =
        |count: u16| [&[0, 0, 0, 1], &count.to_be_bytes()[..], &vec![0; count.into()]].concat();
    assert!(record::decode(&nulls(128)).is_ok());
    refused(record::decode(&nulls(129)), "a record with too many fields");
    let digits = "9".repeat(38);
    let good = ["0", "15800.5", "-0.5", "10", "-1", &digits, &format!("-0.{digits}")];
    for text in good {
        assert_eq!(read(&counted(3, text)), Ok((1, vec![Value::Decimal(text.to_owned())])));
    }
    let long = "9".repeat(39);
    let bad = ["", "-", "+1", "00", "01", "1.", ".5", "1.50", "-0", "0.0", "1e3", "1 ", &long];
    for text in bad {
        refused(read(&counted(3, text)), "a decimal in another spelling");
    }
    refused(read(&counted(3, &"9".repeat(42))), "longer than its limit");
    let date = |year: u16, month, day| [&[4], &year.to_be_bytes()[..], &[month, day]].concat();
    for (year, month, day) in [(2020, 2, 29), (2000, 2, 29), (1, 1, 1), (9999, 12, 31)] {
        assert!(read(&date(year, month, day)).is_ok(), "{year}-{month}-{day}");
    }
    for (year, month, day) in [
        (2021, 2, 29),
        (1900, 2, 29),
        (0, 1, 1),
        (10_000, 1, 1),
        (1, 13, 1),
        (1, 0, 1),
        (1, 4, 31),
        (1, 1, 0),
    ] {
        refused(read(&date(year, month, day)), "no day of the calendar");
    }

    assert_eq!(record::decode_key(&[]), Ok(vec![]));
    refused(record::decode_key(&[1, 0x61, 0, 1, 0, 0]), "a wrong escape in a key");
    refused(record::decode_key(&[1, 0x61, 0]), "cut short");
    refused(record::decode_key(&[1, 0, 0]), "an empty text is null");
    refused(record::decode_key(&[3, 0x30, 0x31, 0, 0]), "a decimal in another spelling");
    refused(record::decode_key(&[9]), "an unknown kind of value");
    refused(record::decode_key(&[0; 1025]), "a key over its limit");
    refused(hashes::key_length(&[0; 1025]), "a key over its limit");
    refused(hashes::unhex("0"), "half a byte of hexadecimal digits");
    refused(hashes::unhex("0A"), "no lower-case hexadecimal digit");
    refused(hashes::unhex_exactly::<2>("00"), "another number of hexadecimal digits");
}

#[test]
fn a_tree_has_at_most_16_levels() {
    // Groups that hold one key more each, so a level is shorter by 159 only.
    let tree = |count: usize| {
        let keys = made::nested_keys(count);
        let entries: Vec<(&[u8], Hash)> = keys.iter().map(|key| (&key[..], [7; 32])).collect();
        tree::of_entries(&entries).map(|tree| tree.levels.len())
    };
    let most = 160 + 15 * 159;
    assert_eq!(tree(most), Ok(16));
    refused(tree(most + 1), "a tree with too many levels");
}
