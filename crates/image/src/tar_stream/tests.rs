use super::header::Header;
use super::*;

/// A header block with the given fields and a right checksum.
fn block(name: &str, kind: u8, size: u64) -> Vec<u8> {
    let mut header = Header::new();
    header.set_text(0..100, name.as_bytes());
    header.set_octal(100..108, 0o644);
    header.set_octal(108..116, 0);
    header.set_octal(116..124, 0);
    header.set_octal(124..136, size);
    header.set_octal(136..148, 1);
    header.set_kind(kind);
    header.seal();
    header.0.to_vec()
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut padded = data.to_vec();
    padded.resize(data.len().next_multiple_of(BLOCK), 0);
    padded
}

fn pax_block(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        pax::push(&mut text, key.as_bytes(), value.as_bytes());
    }
    [block("pax", kind, text.len() as u64), padded(&text)].concat()
}

type Read = Vec<(Entry, Vec<(u64, Vec<u8>)>)>;

fn read(archive: &[u8]) -> Result<Read, TarError> {
    let mut input = archive;
    let mut reader = TarReader::new(&mut input);
    let mut entries = Vec::new();
    while reader.next_entry()? {
        let entry = reader.entry().clone();
        let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
        while let Some((offset, piece)) = reader.next_piece()? {
            match pieces.last_mut() {
                Some((start, data)) if *start + data.len() as u64 == offset => data.extend_from_slice(piece),
                _ => pieces.push((offset, piece.to_vec())),
            }
        }
        entries.push((entry, pieces));
    }
    Ok(entries)
}

fn refused(archive: &[u8]) -> String {
    read(archive).unwrap_err().to_string()
}

fn write(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = TarWriter::new(&mut out);
    for (entry, data) in entries {
        writer.start(entry).unwrap();
        writer.data(data).unwrap();
    }
    writer.finish().unwrap();
    out
}

#[test]
fn what_is_written_is_read() {
    let long = format!("{}/{}", "d".repeat(200), "n".repeat(250));
    let cases = [
        Entry { path: b"plain".to_vec(), mode: 0o644, mtime: Mtime { seconds: 5, nanoseconds: 0 }, ..Entry::default() },
        Entry {
            path: format!("{}/{}", "p".repeat(120), "n".repeat(90)).into_bytes(),
            mode: 0o4755,
            ..Entry::default()
        },
        Entry { path: long.clone().into_bytes(), uid: 3_000_000, gid: 2_147_483_647, ..Entry::default() },
        Entry { path: b"old".to_vec(), mtime: Mtime { seconds: -2, nanoseconds: 500_000_000 }, ..Entry::default() },
        Entry { path: b"ns".to_vec(), mtime: Mtime { seconds: 1 << 40, nanoseconds: 1 }, ..Entry::default() },
        Entry { kind: EntryKind::Symlink, path: b"l".to_vec(), link: long.into_bytes(), ..Entry::default() },
        Entry { kind: EntryKind::Directory, path: b"d/".to_vec(), mode: 0o1777, ..Entry::default() },
        Entry {
            kind: EntryKind::CharDevice,
            path: b"c".to_vec(),
            device_major: 1,
            device_minor: 3,
            ..Entry::default()
        },
        Entry { path: b"\xff\xfe not text \n".to_vec(), ..Entry::default() },
        Entry {
            path: b"x".to_vec(),
            xattrs: vec![Xattr { name: b"security.capability".to_vec(), value: b"\x01\0\0\n=\xff".to_vec() }],
            ..Entry::default()
        },
    ];
    for case in cases {
        let archive = write(&[(case.clone(), b"")]);
        assert_eq!(read(&archive).unwrap(), [(case, vec![])]);
    }
    let file = Entry { path: b"f".to_vec(), size: 600, ..Entry::default() };
    let archive = write(&[(file.clone(), &[7; 600])]);
    assert_eq!(archive.len(), 512 + 1024 + 1024);
    assert_eq!(read(&archive).unwrap(), [(file, vec![(0, vec![7; 600])])]);
}

#[test]
fn writer_wants_exactly_the_size() {
    let mut out = Vec::new();
    let mut writer = TarWriter::new(&mut out);
    writer.start(&Entry { path: b"f".to_vec(), size: 3, ..Entry::default() }).unwrap();
    assert!(writer.data(b"1234").is_err());
    writer.data(b"12").unwrap();
    assert!(writer.finish().is_err());
}

/// CVE-2025-62518, RUSTSEC-2026-0112, RUSTSEC-2026-0113: a PAX size always counts, so file content is never read as entries.
#[test]
fn pax_size_is_read_one_way_only() {
    let smuggled = [block("smuggled", b'0', 0), vec![0; 1024]].concat();
    let archive = [
        pax_block(b'x', &[("size", &smuggled.len().to_string())]),
        block("outer", b'0', 0),
        smuggled.clone(),
        block("after", b'0', 0),
    ]
    .concat();
    let entries = read(&archive).unwrap();
    let names: Vec<_> = entries.iter().map(|(entry, _)| entry.path.clone()).collect();
    assert_eq!(names, [b"outer".to_vec(), b"after".to_vec()]);
    assert_eq!(entries[0].1, [(0, smuggled)]);
    // A type without data has none, whatever is said.
    let archive = [pax_block(b'x', &[("size", "512")]), block("d/", b'5', 512), block("after", b'0', 0)].concat();
    assert_eq!(read(&archive).unwrap().len(), 2);
}

/// CVE-2026-33055: the size of a PAX header counts also where the header itself gives another.
#[test]
fn cve_2026_33055_two_sizes() {
    let data = [block("smuggled", b'0', 0), vec![1; 512]].concat();
    for own in [512, 4096] {
        let archive = [
            pax_block(b'x', &[("size", &data.len().to_string())]),
            block("outer", b'0', own),
            data.clone(),
            block("after", b'0', 0),
        ]
        .concat();
        let entries = read(&archive).unwrap();
        let names: Vec<_> = entries.iter().map(|(entry, _)| entry.path.as_slice()).collect();
        assert_eq!(names, [&b"outer"[..], b"after"], "{own}");
        assert_eq!((entries[0].0.size, entries[0].1[0].1.as_slice()), (1024, data.as_slice()), "{own}");
    }
}

/// RUSTSEC-2026-0145: a PAX header is about the next file, not about the long name that comes between the two.
#[test]
fn rustsec_2026_0145_a_long_name_has_its_own_size() {
    let data = [block("smuggled", b'0', 0), vec![1; 512]].concat();
    let archive = [
        pax_block(b'x', &[("size", "1024"), ("uid", "7")]),
        block("././@LongLink", b'L', 5),
        padded(b"long\0"),
        block("short", b'0', 0),
        data.clone(),
        block("after", b'0', 0),
    ]
    .concat();
    let entries = read(&archive).unwrap();
    let names: Vec<_> = entries.iter().map(|(entry, _)| (entry.path.as_slice(), entry.uid)).collect();
    assert_eq!(names, [(&b"long"[..], 7), (b"after", 0)]);
    assert_eq!(entries[0].1[0].1, data);
}

/// CVE-2026-32766: a PAX header that is no such thing is refused, never passed over.
#[test]
fn cve_2026_32766_malformed_pax_is_no_pax() {
    let valid = b"11 path=ab\n".to_vec();
    assert_eq!(read(&[block("p", b'x', 11), padded(&valid), block("f", b'0', 0)].concat()).unwrap()[0].0.path, b"ab");
    for records in [
        &b"11 path=abc"[..],
        b"10 path=ab\n",
        b"12 path=ab\n",
        b"11 path=ab\nx",
        b"11 path=ab\n\0\0",
        b"+11 path=a\n",
        b" 11 path=a\n",
        b"11path=abc\n",
        b"0 path=ab\n",
        b"99999999999999999999 path=ab\n",
        b"9 path=\n",
        b"8 =abcd\n",
        b"11 size=-1\n",
        b"11 size= 1\n",
        b"12 size=0x1\n",
        b"13 path=a\0bc\n",
    ] {
        let archive = [block("p", b'x', records.len() as u64), padded(records), block("f", b'0', 0)].concat();
        let outcome = read(&archive);
        assert!(outcome.is_err(), "{:?}: {outcome:?}", String::from_utf8_lossy(records));
    }
}

#[test]
fn ambiguous_archives_are_refused() {
    let long_name = [block("L", b'L', 4), padded(b"name")].concat();
    let end = block("f", b'0', 0);
    let cases: [(&str, Vec<u8>); 12] = [
        ("two long names", [long_name.clone(), pax_block(b'x', &[("path", "other")]), end.clone()].concat()),
        ("same extended header twice", [long_name.clone(), long_name.clone(), end.clone()].concat()),
        ("same extended header twice", [pax_block(b'x', &[]), pax_block(b'x', &[]), end.clone()].concat()),
        ("given twice", [pax_block(b'x', &[("path", "a"), ("path", "b")]), end.clone()].concat()),
        ("global PAX header", [pax_block(b'g', &[("size", "5")]), end.clone()].concat()),
        ("without an entry", long_name.clone()),
        ("lone zero block", [vec![0; 512], end.clone()].concat()),
        ("wrong header checksum", vec![b'x'; 512]),
        ("wrong length", [block("p", b'x', 9), padded(b"99 a=bcd\n"), end.clone()].concat()),
        ("wrong length", [block("p", b'x', 8), padded(b"8 a=bcdX"), end.clone()].concat()),
        ("without a length", [block("p", b'x', 4), padded(b"a=b\n"), end.clone()].concat()),
        ("over 1 MiB", block("L", b'L', (1 << 20) + 1)),
    ];
    for (why, archive) in cases {
        let error = refused(&archive);
        assert!(error.contains(why), "expected {why:?}: {error}");
    }
    assert!(refused(&block("v", b'V', 0)).contains("'V'"));
    assert!(matches!(read(&block("f", b'0', 10)).unwrap_err(), TarError::Truncated { .. }));
    assert!(matches!(read(&block("f", b'0', 0)[..100]).unwrap_err(), TarError::Truncated { .. }));
    // A comment for all entries, as git writes it, is fine.
    assert_eq!(read(&[pax_block(b'g', &[("comment", "x")]), end].concat()).unwrap().len(), 1);
}

#[test]
fn gnu_long_names() {
    let name = "n".repeat(300);
    let long = |kind, text: &str| {
        [block("././@LongLink", kind, text.len() as u64 + 1), padded(format!("{text}\0").as_bytes())].concat()
    };
    let archive = [long(b'L', &name), long(b'K', "target"), block("n", b'2', 0)].concat();
    let entry = &read(&archive).unwrap()[0].0;
    assert_eq!((entry.path.as_slice(), entry.link.as_slice()), (name.as_bytes(), &b"target"[..]));
}

#[test]
fn sparse_files_in_all_forms() {
    let expected = vec![(512, b"one".to_vec()), (2048, b"three".to_vec())];
    let data = padded(b"onethree");
    let v00 = [
        pax_block(
            b'x',
            &[
                ("GNU.sparse.size", "3000"),
                ("GNU.sparse.numblocks", "2"),
                ("GNU.sparse.offset", "512"),
                ("GNU.sparse.numbytes", "3"),
                ("GNU.sparse.offset", "2048"),
                ("GNU.sparse.numbytes", "5"),
            ],
        ),
        block("s", b'0', 8),
        data.clone(),
    ];
    let v01 = [
        pax_block(b'x', &[("GNU.sparse.size", "3000"), ("GNU.sparse.map", "512,3,2048,5"), ("GNU.sparse.name", "s")]),
        block("GNUSparseFile.0/s", b'0', 8),
        data.clone(),
    ];
    let map = padded(b"2\n512\n3\n2048\n5\n");
    let v10 = [
        pax_block(
            b'x',
            &[
                ("GNU.sparse.major", "1"),
                ("GNU.sparse.minor", "0"),
                ("GNU.sparse.name", "s"),
                ("GNU.sparse.realsize", "3000"),
            ],
        ),
        block("GNUSparseFile.0/s", b'0', 512 + 8),
        [map, data.clone()].concat(),
    ];
    let mut old = Header(block("s", b'S', 8).try_into().unwrap());
    old.set_text(257..265, b"ustar  \0");
    for (at, number) in [512, 3, 2048, 5].into_iter().enumerate() {
        old.set_octal(386 + 12 * at..398 + 12 * at, number);
    }
    old.set_octal(483..495, 3000);
    old.seal();
    let old = [Vec::new(), old.0.to_vec(), data];
    for archive in [v00, v01, v10, old] {
        let entries = read(&archive.concat()).unwrap();
        assert_eq!((entries[0].0.path.as_slice(), entries[0].0.size), (&b"s"[..], 3000));
        assert_eq!(entries[0].1, expected);
    }
}

/// CVE-2025-58183, CVE-2017-14992: nothing is allocated because an archive says so.
#[test]
fn bad_sparse_maps_are_refused() {
    let with_map = |map: &str, size: &str| {
        [
            pax_block(b'x', &[("GNU.sparse.size", size), ("GNU.sparse.map", map)]),
            block("s", b'0', 8),
            padded(b"12345678"),
        ]
        .concat()
    };
    assert!(read(&with_map("0,8", "8")).is_ok());
    for (map, size) in
        [("8,4,0,4", "100"), ("0,8", "7"), ("0,7", "100"), ("0,8,9", "100"), ("9223372036854775807,8", "100")]
    {
        assert!(read(&with_map(map, size)).is_err(), "{map} {size}");
    }
    let count = "99999999999\n";
    let archive = [
        pax_block(b'x', &[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9")]),
        block("s", b'0', 512),
        padded(count.as_bytes()),
    ]
    .concat();
    assert!(refused(&archive).contains("too many pieces"));
    let unknown =
        [pax_block(b'x', &[("GNU.sparse.major", "2"), ("GNU.sparse.realsize", "9")]), block("s", b'0', 0)].concat();
    assert!(refused(&unknown).contains("unknown version"));
}

#[test]
fn numbers() {
    let cases: [(&[u8], Option<i64>); 8] = [
        (b"0000644\0", Some(0o644)),
        (b"   644 \0", Some(0o644)),
        (b"\0\0\0\0\0\0\0\0", Some(0)),
        (b"9", None),
        (b"-1", None),
        (b"\x80\0\0\0\0\0\0\0\0\0\x01\x00", Some(256)),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
        (b"\x80\0\0\x01\0\0\0\0\0\0\0\x00", None),
    ];
    for (field, expected) in cases {
        assert_eq!(header::number(field), expected, "{field:?}");
    }
}

/// Garbage never panics, and ends.
#[test]
fn mutated_archives_do_not_panic() {
    let archive = [
        pax_block(
            b'x',
            &[("mtime", "1.5"), ("SCHILY.xattr.user.a", "b"), ("GNU.sparse.map", "0,3"), ("GNU.sparse.size", "9")],
        ),
        block("f", b'0', 3),
        padded(b"abc"),
        block("L", b'L', 5),
        padded(b"name\0"),
        block("g", b'1', 0),
    ]
    .concat();
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound as u64).unwrap()
    };
    for _ in 0..20_000 {
        let mut mutated = archive.clone();
        let header = random(archive.len() / BLOCK) * BLOCK;
        for _ in 0..=random(3) {
            let at = (header + random(BLOCK)).min(mutated.len() - 1);
            mutated[at] = u8::try_from(random(256)).unwrap();
        }
        if random(2) == 0 {
            let mut fixed = Header(mutated[header..header + BLOCK].try_into().unwrap());
            fixed.seal();
            mutated[header..header + BLOCK].copy_from_slice(&fixed.0);
        }
        mutated.truncate(mutated.len() - random(3) * 100);
        drop(read(&mutated));
    }
}
