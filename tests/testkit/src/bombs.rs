//! Archives that are small where they are sent and made to cost memory or time where they are read. Packed as zstd frames that repeat, so that the
//! test need not pay for them.

use serde_json::{Value, json};
use sha2::Digest as _;

use crate::archive::{gzip, outer};

const MIB: usize = 1 << 20;
/// Values of one byte, as many as fit into the largest document.
const ZEROS: usize = 4_000_000;

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Taken,
    /// With these words in the error.
    Refused(&'static str),
}

/// One archive.
#[derive(Debug, Clone)]
pub struct Bomb {
    pub what: &'static str,
    pub packed: Vec<u8>,
    pub diff_id: String,
    pub fate: Fate,
}

impl Bomb {
    /// Parts and how often each is repeated.
    fn new(what: &'static str, fate: Fate, parts: &[(Vec<u8>, usize)]) -> Self {
        let mut packed = Vec::new();
        let mut hasher = sha2::Sha256::new();
        for (part, times) in parts {
            let frame = zstd::encode_all(part.as_slice(), 1).unwrap();
            for _ in 0..*times {
                packed.extend_from_slice(&frame);
                // Who refuses it never comes to the digest.
                if fate == Fate::Taken {
                    hasher.update(part);
                }
            }
        }
        Self { what, packed, diff_id: format!("sha256:{}", hex::encode(hasher.finalize())), fate }
    }

    /// A layer: one more file, and the end.
    fn layer(what: &'static str, fate: Fate, mut parts: Vec<(Vec<u8>, usize)>) -> Self {
        parts.push(([entry(b'0', b"f", b"x"), vec![0; 1024]].concat(), 1));
        Self::new(what, fate, &parts)
    }

    /// A docker-archive of one image of this layer, called `hostile`.
    pub fn docker_archive(&self) -> Vec<u8> {
        image(&config_of(&[&self.diff_id]).to_string(), &[&self.packed])
    }

    /// The same as an OCI layout.
    pub fn oci_archive(&self) -> Vec<u8> {
        let config = config_of(&[&self.diff_id]).to_string();
        let described = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": crate::archive::digest(bytes), "size": bytes.len() });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described("config.v1+json", config.as_bytes()),
            "layers": [described("layer.v1.tar+zstd", &self.packed)],
        })
        .to_string();
        let mut named = described("manifest.v1+json", manifest.as_bytes());
        named["annotations"] = json!({ "io.containerd.image.name": "docker.io/library/hostile:latest" });
        let index = json!({ "schemaVersion": 2, "manifests": [named] }).to_string();
        let mut members = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.into_bytes()),
        ];
        for bytes in [config.as_bytes(), manifest.as_bytes(), &self.packed] {
            members.push((format!("blobs/sha256/{}", &crate::archive::digest(bytes)[7..]), bytes.to_vec()));
        }
        outer(&members)
    }
}

fn config_of(diff_ids: &[&str]) -> Value {
    let host = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    json!({
        "architecture": host, "os": "linux", "config": { "Cmd": ["/f"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
}

fn image(config: &str, layers: &[&[u8]]) -> Vec<u8> {
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}.tar")).collect();
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["hostile:latest"], "Layers": names }]).to_string();
    let mut members = vec![("c.json".to_owned(), config.as_bytes().to_vec())];
    members.extend(names.into_iter().zip(layers).map(|(name, layer)| (name, layer.to_vec())));
    members.push(("manifest.json".to_owned(), manifest.into_bytes()));
    outer(&members)
}

/// One 512-byte header of a tar, with what no builder would write.
pub fn header(kind: u8, name: &[u8], target: &[u8], size: u64) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, b"0000644\x000000000\x000000000\0");
    // Octal, or beyond 8 GiB the number itself with the highest bit set.
    match size < 1 << 33 {
        true => put(124, format!("{size:011o}\0").as_bytes()),
        false => put(124, &[&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat()),
    }
    put(136, b"00000000000\0        ");
    put(156, &[kind]);
    put(157, target);
    put(257, b"ustar\x0000");
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// An entry with its data, padded.
pub fn entry(kind: u8, name: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, name, b"", data.len() as u64);
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A record of a PAX header.
pub fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let bare = key.len() + value.len() + 3;
    let mut length = bare + 1;
    while length != bare + length.to_string().len() {
        length = bare + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn sparse(real_size: u64, map: &[u8]) -> Vec<u8> {
    let records = [
        pax_record("GNU.sparse.major", b"1"),
        pax_record("GNU.sparse.minor", b"0"),
        pax_record("GNU.sparse.name", b"sparse"),
        pax_record("GNU.sparse.realsize", real_size.to_string().as_bytes()),
    ];
    [entry(b'x', b"pax", &records.concat()), entry(b'0', b"sparse", map)].concat()
}

/// Layers whose headers are too large for what they say.
pub fn headers() -> Vec<Bomb> {
    let over = Fate::Refused("over 1 MiB");
    // The data of one long header, of 66 MiB.
    let long = |kind: u8, head: &[u8]| {
        let first = [header(kind, b"long", b"", (head.len() + 66 * MIB) as u64), head.to_vec()].concat();
        vec![(first, 1), (vec![b'n'; MIB], 66), (vec![0; 512 - head.len() % 512], 1)]
    };
    let many_records: Vec<u8> = (0..60_000).flat_map(|n| pax_record(&format!("SCHILY.xattr.user.{n}"), b"v")).collect();
    let map: Vec<u8> = std::iter::once("2000000\n".to_owned())
        .chain((0..150_000).map(|n| format!("{}\n1\n", n * 1024)))
        .collect::<String>()
        .into_bytes();
    vec![
        Bomb::layer("a pax header that claims a terabyte", over, vec![(header(b'x', b"pax", b"", 1 << 40), 1)]),
        Bomb::layer("a pax value of 66 MiB", over, long(b'x', b"69206036 comment=")),
        Bomb::layer("60,000 pax records", over, vec![(entry(b'x', b"pax", &many_records), 1)]),
        Bomb::layer("a name of 66 MiB", over, long(b'L', b"")),
        Bomb::layer("a link target of 66 MiB", over, long(b'K', b"")),
        Bomb::layer(
            "a map of 2,000,000 pieces",
            Fate::Refused("too many pieces in a sparse file"),
            vec![(sparse(9_000_000_000_000, &map), 1)],
        ),
        Bomb::layer(
            "200,000 levels",
            Fate::Refused("too long or too deep"),
            vec![(entry(b'x', b"pax", &pax_record("path", &b"d/".repeat(200_000))), 1)],
        ),
    ]
}

/// Layers of which each entry is fine; there are many. `scale`: more of them, for a long run.
pub fn entries(scale: usize) -> Vec<Bomb> {
    let globals: Vec<u8> =
        (0..100).flat_map(|n| entry(b'g', b"g", &pax_record(&format!("k{n}"), &[b'v'; 400]))).collect();
    let target = [&[b't'; 4000][..], &[0; 96]].concat();
    let link = [entry(b'K', b"long", &target), header(b'2', b"link", b"", 0)].concat();
    let attributes: Vec<u8> = (0..30_000).flat_map(|n| pax_record(&format!("SCHILY.xattr.user.{n}"), b"v")).collect();
    let attributes = [entry(b'x', b"pax", &attributes), header(b'0', b"attributes", b"", 0)].concat();
    let hole = sparse(256 * MIB as u64, &[b"1\n0\n1\n".to_vec(), vec![0; 506], b"x".to_vec()].concat());
    let files = |n: usize| header(b'0', format!("many/{n}").as_bytes(), b"", 0);
    let names: Vec<u8> = (0..10_000 * scale).flat_map(files).collect();
    vec![
        // In an image maps of holes, targets and attributes wait in memory: beyond its limit the layer becomes a directory.
        Bomb::layer("250 holes of 256 MiB", Fate::Taken, vec![(hole, 250 * scale)]),
        Bomb::layer(
            "16 files of 30,000 attributes",
            Fate::Refused("extended attribute"),
            vec![(attributes, 16 * scale)],
        ),
        Bomb::layer("5,000 global headers", Fate::Taken, vec![(globals, 50 * scale)]),
        Bomb::layer("2,000 links of 4,000 bytes", Fate::Taken, vec![(link.repeat(100), 20 * scale)]),
        Bomb::layer("many files", Fate::Taken, vec![(names, 1)]),
    ]
}

/// Archives whose documents or members cost memory: with the words they are refused with.
pub fn archives() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let layer = gzip(&[entry(b'0', b"f", b"x"), vec![0; 1024]].concat());
    let manifest = |text: String| outer(&[("manifest.json".to_owned(), text.into_bytes())]);
    let config = |more: String| {
        let plain = config_of(&[]).to_string();
        image(&format!("{},{more}}}", &plain[..plain.len() - 1]), &[&layer])
    };
    let spaces = |count: usize| " ".repeat(count);
    // One config of almost 8 MiB, named by every image.
    let items: Vec<Value> = (0..1000).map(|_| json!({ "Config": "c.json", "Layers": [] })).collect();
    let named_often = outer(&[
        ("c.json".to_owned(), format!("{}{}", config_of(&[]), spaces(7 * MIB)).into_bytes()),
        ("manifest.json".to_owned(), json!(items).to_string().into_bytes()),
    ]);
    let members = |count: usize, length: usize| {
        let name = |n: usize| [format!("{n:06}").into_bytes(), vec![b'm'; length]].concat();
        let member = |n: usize| match length {
            0 => header(b'5', format!("d{n}").as_bytes(), b"", 0),
            _ => [entry(b'L', b"long", &name(n)), header(b'2', b"m", b"t", 0)].concat(),
        };
        [(0..count).flat_map(member).collect::<Vec<u8>>(), vec![0; 1024]].concat()
    };
    vec![
        ("a manifest of 9 MiB", manifest(format!("[{}]", spaces(9 * MIB))), "larger than"),
        ("a manifest of 2,000,000 levels", manifest("[".repeat(2_000_000)), "manifest.json"),
        (
            "a manifest of 1,000,000 images",
            manifest(format!("[{}{{}}]", "{},".repeat(1_000_000))),
            "more than 50000 values",
        ),
        ("a config of 9 MiB", config(format!("\"x\":\"{}\"", spaces(9 * MIB))), "larger than"),
        (
            "a config of 4,000,000 numbers",
            config(format!("\"x\":[{}0]", "0,".repeat(ZEROS - 100))),
            "more than 50000 values",
        ),
        (
            "a config of 1,000,000 objects",
            config(format!("\"x\":[{}0]", "{\"a\":0},".repeat(1_000_000))),
            "more than 50000 values",
        ),
        ("a config that is named 1,000 times", named_often, "each as often as it is named"),
        ("9,000 names of 1,000 bytes", members(9_000, 990), "the names in it"),
        ("66,000 members", members(66_000, 0), "more than 65536 entries"),
    ]
}

/// Two layers that are unpacked side by side, each packed so that its reader must keep 32 MiB.
pub fn wide_windows() -> Vec<u8> {
    let plain = [entry(b'0', b"f", b"x"), vec![0; 40 * MIB]].concat();
    let packed = |salt: u8| {
        let mut plain = plain.clone();
        plain[512] = salt;
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(25).unwrap();
        encoder.include_contentsize(false).unwrap();
        std::io::Write::write_all(&mut encoder, &plain).unwrap();
        (crate::archive::digest(&plain), encoder.finish().unwrap())
    };
    let [(one, first), (two, second)] = [packed(b'1'), packed(b'2')];
    image(&config_of(&[&one, &two]).to_string(), &[&first, &second])
}
