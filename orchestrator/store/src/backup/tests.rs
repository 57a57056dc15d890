//! A backup reads back as it was written, and whatever happened to it in between is noticed.

use proptest::prelude::*;

use super::*;

fn entry(key: &str, value: &[u8], expires_unix_seconds: Option<u64>) -> Entry {
    let value = bytes::Bytes::copy_from_slice(value);
    Entry {
        record: Record { key: key.to_owned(), value, created: Revision(3), modified: Revision(5) },
        expires_unix_seconds,
    }
}

fn written(entries: &[Entry]) -> (Summary, Vec<u8>) {
    let header = Header { revision: Revision(77), taken_unix_seconds: 1_700_000_000, source: Source::Etcd };
    let mut writer = Writer::new(Vec::new(), header).unwrap();
    entries.iter().for_each(|entry| writer.put(entry).unwrap());
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<(Vec<Entry>, Summary), BackupError> {
    let mut reader = Reader::new(bytes)?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.next()? {
        entries.push(entry);
    }
    Ok((entries, reader.summary()?))
}

/// More than one section of records.
fn many() -> Vec<Entry> {
    (0..40).map(|n| entry(&format!("/registry/a/{n:02}"), &vec![n; 10_000], Some(n.into()))).collect()
}

proptest! {
    #[test]
    fn a_backup_reads_back_as_it_was_written(
        rows in prop::collection::vec(("[^\0]{1,40}", any::<Vec<u8>>(), prop::option::of(0..u64::MAX)), 0..20),
    ) {
        let entries: Vec<_> = rows.iter().map(|(key, value, expires)| entry(key, value, *expires)).collect();
        let (summary, bytes) = written(&entries);
        prop_assert_eq!(read(&bytes).unwrap(), (entries, summary));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed(position: prop::sample::Index, bit in 0u32..8) {
        let (_, mut bytes) = written(&many());
        let at = position.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn bytes_of_anything_are_refused_and_never_a_panic(bytes: Vec<u8>) {
        prop_assert!(read(&bytes).is_err());
        prop_assert!(read(&[format::MAGIC.as_slice(), &bytes].concat()).is_err());
    }
}

#[test]
fn damage_says_in_which_section_it_is() {
    let (_, whole) = written(&many());
    let header = format::MAGIC.len() + 2;
    for (at, expected) in [
        (0, "no backup"),
        (format::MAGIC.len(), "damaged in its header"),
        (header + 10, "damaged in its header"),
        (100_000, "damaged in its records, at byte 46"),
        (whole.len() - 1, "damaged in its end"),
        (whole.len() - 10, "damaged in its end"),
    ] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        let error = verify(&bytes[..], &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(expected), "byte {at}: {error}");
    }
}

#[test]
fn a_cut_or_lengthened_backup_is_refused() {
    let (_, whole) = written(&many());
    for length in [format::MAGIC.len(), 60, 200_000, whole.len() - 1] {
        let error = read(&whole[..length]).unwrap_err();
        assert!(matches!(error, BackupError::Truncated { .. }), "{length}: {error}");
    }
    assert!(matches!(read(&whole[..3]), Err(BackupError::NotABackup)));
    let longer = [whole.as_slice(), b"x"].concat();
    assert!(matches!(read(&longer), Err(BackupError::Trailing { .. })));
}

#[test]
fn sections_that_were_left_out_or_changed_places_are_noticed() {
    let (_, whole) = written(&many());
    let mut at = format::MAGIC.len();
    let mut sections = Vec::new();
    while at < whole.len() {
        let length = u32::from_le_bytes(whole[at + 1..at + 5].try_into().unwrap()) as usize;
        let end = at + format::SECTION_HEAD_BYTES + length + format::CRC_BYTES;
        sections.push(&whole[at..end]);
        at = end;
    }
    assert_eq!(sections.len(), 4, "header, two of records, end");
    for order in [vec![0, 2, 3], vec![0, 2, 1, 3], vec![0, 1, 1, 2, 3], vec![0, 3], vec![1, 2, 3]] {
        let parts: Vec<&[u8]> = order.iter().map(|n| sections[*n]).collect();
        let bytes = [format::MAGIC.as_slice(), &parts.concat()].concat();
        assert!(read(&bytes).is_err(), "{order:?}");
    }
}

#[test]
fn a_later_format_is_told_from_damage() {
    let mut content = format::encode_header(&Header::now(Revision(1), Source::Embedded));
    content[0] = 9;
    let mut head = vec![1];
    head.extend_from_slice(&u32::try_from(content.len()).unwrap().to_le_bytes());
    let crc = format::chained(0, &head, &content).to_le_bytes();
    let bytes = [format::MAGIC.as_slice(), &head, &content, &crc].concat();
    assert!(matches!(read(&bytes), Err(BackupError::UnknownFormat { found: 9, .. })));
}
