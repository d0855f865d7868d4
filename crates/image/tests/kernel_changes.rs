//! `diff` against a reference: random changes in real overlays. Needs root; temporary directories and detached mounts only.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its fixtures")]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use berth_image::{ChangeKind, changes};
use berth_rootfs::OverlayRootfs;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// A tree as somebody sees it: kind, metadata and content of every path.
fn tree(root: &Path) -> BTreeMap<String, (bool, String)> {
    let mut found = BTreeMap::new();
    let mut rest = vec![(root.to_owned(), String::new())];
    while let Some((path, shown)) = rest.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap();
            let shown = format!("{shown}/{}", entry.file_name().to_str().unwrap());
            let meta = fs::symlink_metadata(entry.path()).unwrap();
            let content = if meta.is_file() {
                format!("{:?}", fs::read(entry.path()).unwrap())
            } else if meta.is_symlink() {
                format!("{:?}", fs::read_link(entry.path()).unwrap())
            } else {
                String::new()
            };
            let look = format!(
                "{:o} {} {} {}.{} {content}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec()
            );
            if meta.is_dir() {
                rest.push((entry.path(), shown.clone()));
            }
            found.insert(shown, (meta.is_dir(), look));
        }
    }
    found
}

/// The reference: two whole trees compared, then directories above changes added.
fn reference(before: &Path, after: &Path) -> Vec<(String, ChangeKind)> {
    let (before, after) = (tree(before), tree(after));
    let mut found = BTreeMap::new();
    for (path, (is_dir, look)) in &after {
        match before.get(path) {
            None => drop(found.insert(path.clone(), ChangeKind::Added)),
            Some(old) if old != &(*is_dir, look.clone()) => drop(found.insert(path.clone(), ChangeKind::Modified)),
            Some(_) => {}
        }
    }
    for path in before.keys().filter(|path| !after.contains_key(*path)) {
        // Of a deleted directory only itself: the one above it is still a directory.
        let parent = &path[..path.rfind('/').unwrap()];
        if parent.is_empty() || after.get(parent).is_some_and(|(is_dir, _)| *is_dir) {
            found.insert(path.clone(), ChangeKind::Deleted);
        }
    }
    for path in found.keys().cloned().collect::<Vec<_>>() {
        let mut parent = path.as_str();
        while let Some(slash) = parent.rfind('/').filter(|slash| *slash > 0) {
            parent = &parent[..slash];
            found.entry(parent.to_owned()).or_insert(ChangeKind::Modified);
        }
    }
    found.into_iter().collect()
}

struct Overlay {
    _dir: tempfile::TempDir,
    plan: OverlayRootfs,
}

impl Overlay {
    fn new(layers: usize) -> Self {
        // Thousands of small trees: in memory where that is possible.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let lowers: Vec<PathBuf> = (0..layers).map(|n| dir.path().join(format!("layer{n}"))).collect();
        let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
        for path in lowers.iter().chain([&upper, &work]) {
            fs::create_dir(path).unwrap();
        }
        let plan = OverlayRootfs { lowers, upper: Some(upper), work: Some(work), is_volatile: true };
        Self { _dir: dir, plan }
    }

    /// A layer as its own writable overlay on the ones below: real whiteouts and opaque directories in the middle of the stack.
    fn fill_layer(&self, layer: usize, change: impl FnOnce(&Path)) {
        let work = self.plan.lowers[layer].with_extension("work");
        fs::create_dir(&work).unwrap();
        let plan = OverlayRootfs {
            lowers: self.plan.lowers[layer + 1..].to_vec(),
            upper: Some(self.plan.lowers[layer].clone()),
            work: Some(work),
            is_volatile: true,
        };
        let mount = plan.mount_detached().unwrap();
        change(&PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())));
    }

    fn change(&self, change: impl FnOnce(&Path)) {
        let mount = self.plan.mount_detached().unwrap();
        change(&PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())));
    }

    fn check(&self, what: &str) {
        let before = OverlayRootfs { lowers: self.plan.lowers.clone(), ..OverlayRootfs::default() };
        let (before, after) = (before.mount_detached().unwrap(), self.plan.mount_detached().unwrap());
        let path = |fd: &std::os::fd::OwnedFd| PathBuf::from(format!("/proc/self/fd/{}/.", fd.as_raw_fd()));
        let expected = reference(&path(&before), &path(&after));
        drop((before, after));
        let found: Vec<_> = changes(&self.plan)
            .unwrap()
            .into_iter()
            .map(|change| (change.path.to_str().unwrap().to_owned(), change.kind))
            .collect();
        assert_eq!(found, expected, "{what}");
    }
}

const NAMES: [&str; 6] = ["a", "b", "c-d", "c", "e", "f"];

/// One random change somewhere in a small tree; every change leaves a time of its own, so that none is undone by chance.
fn change_something(root: &Path, random: &mut Random, time: &mut u64) {
    let mut path = root.join(NAMES[random.below(NAMES.len())]);
    for _ in 0..random.below(3) {
        path.push(NAMES[random.below(NAMES.len())]);
    }
    *time += 1;
    let stamp = |path: &Path| {
        if let Ok(file) = fs::File::open(path) {
            file.set_modified(UNIX_EPOCH + Duration::from_secs(*time)).unwrap();
        }
    };
    let meta = fs::symlink_metadata(&path).ok();
    let meta = meta.as_ref();
    match random.below(9) {
        0 | 1 => {
            fs::create_dir_all(&path).ok();
        }
        2 | 3
            if path.parent().is_some_and(Path::is_dir)
                && !meta.is_some_and(|meta| meta.is_symlink())
                && fs::write(&path, time.to_string()).is_ok() =>
        {
            stamp(&path);
        }
        4 => drop(fs::remove_file(&path)),
        5 => drop(fs::remove_dir_all(&path)),
        6 if meta.is_some_and(|meta| meta.is_dir()) => {
            fs::remove_dir_all(&path).unwrap();
            fs::create_dir(&path).unwrap();
            stamp(&path);
        }
        7 if fs::symlink_metadata(&path).is_err() => drop(symlink(time.to_string(), &path)),
        8 => {
            let other = root.join(NAMES[random.below(NAMES.len())]).join("moved");
            if meta.is_some_and(|meta| meta.is_file()) && fs::rename(&path, &other).is_ok() {
                stamp(&other);
            } else if meta.is_some_and(|meta| !meta.is_symlink()) {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700 + u32::try_from(*time % 64).unwrap())).ok();
                stamp(&path);
            }
        }
        _ => {}
    }
}

/// S-106: A, C and D of 500 random change sequences equal a comparison of the whole trees.
#[test]
fn s106_changes_match_a_reference_walk() {
    for seed in 1..=500 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let overlay = Overlay::new(1 + random.below(3));
        let mut time = 1_000_000_000;
        for layer in (0..overlay.plan.lowers.len()).rev() {
            let count = 5 + random.below(20);
            let mut fill = |root: &Path| (0..count).for_each(|_| change_something(root, &mut random, &mut time));
            if layer == overlay.plan.lowers.len() - 1 {
                fill(&overlay.plan.lowers[layer]);
            } else {
                overlay.fill_layer(layer, fill);
            }
        }
        let count = random.below(15);
        overlay.change(|root| (0..count).for_each(|_| change_something(root, &mut random, &mut time)));
        overlay.check(&format!("seed {seed}"));
    }
}

/// S-100, S-104: the commands of the reference article.
#[test]
fn s104_kinds_by_hand() {
    let overlay = Overlay::new(2);
    fs::create_dir_all(overlay.plan.lowers[1].join("etc/keep")).unwrap();
    fs::write(overlay.plan.lowers[1].join("etc/old"), "x").unwrap();
    fs::write(overlay.plan.lowers[0].join("top"), "x").unwrap();
    overlay.change(|root| {
        fs::write(root.join("new"), "hi").unwrap();
        fs::remove_file(root.join("etc/old")).unwrap();
        fs::write(root.join("top"), "changed").unwrap();
    });
    let found: Vec<String> = changes(&overlay.plan)
        .unwrap()
        .iter()
        .map(|change| format!("{:?} {}", change.kind, change.path.display()))
        .collect();
    assert_eq!(found, ["Modified /etc", "Deleted /etc/old", "Added /new", "Modified /top"]);
}
