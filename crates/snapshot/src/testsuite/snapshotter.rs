//! The contract of a [`Snapshotter`]: what containerd's clients count on, whoever keeps the files.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_types::{Classify, ErrorClass, Labels};

use super::{Check, Violation, expect, works};
use crate::{Kind, Mount, Snapshotter, rootfs_of_mounts};

/// What a snapshotter's `usage` counts; containerd's contract leaves it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// The bytes in regular files, of what is the snapshot's own.
    Bytes,
    /// Blocks on the disk, those of directories and of copies of the parent too.
    Blocks,
}

/// Runs every check on a snapshotter without snapshots, as root.
///
/// # Errors
/// The first promise that is not kept.
pub fn run(snapshots: &dyn Snapshotter, sizes: Sizes) -> Check {
    active_and_committed(snapshots, sizes)?;
    names(snapshots)?;
    views(snapshots)?;
    labels(snapshots)?;
    deep(snapshots)?;
    concurrent(snapshots)?;
    removal(snapshots)
}

fn class<T>(result: crate::Result<T>) -> Result<(), ErrorClass> {
    result.map(|_| ()).map_err(|error| error.class())
}

/// A snapshot mounted for a moment.
pub(super) struct Mounted {
    _tree: OwnedFd,
    pub(super) root: PathBuf,
}

/// Carries mounts out, detached.
pub(super) fn mount(mounts: &[Mount]) -> Result<Mounted, Violation> {
    let rootfs = works("mounts", rootfs_of_mounts(mounts))?;
    let tree = works("mount", rootfs.mount_detached())?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
    Ok(Mounted { _tree: tree, root })
}

fn fill(snapshots: &dyn Snapshotter, key: &str, fill: impl Fn(&Path) -> std::io::Result<()>) -> Check {
    let mounted = mount(&works("mounts", snapshots.mounts(key))?)?;
    works("fill", fill(&mounted.root))
}

fn layer(snapshots: &dyn Snapshotter, name: &str, parent: Option<&str>, file: &str) -> Check {
    let key = format!("{name}-active");
    works("prepare", snapshots.prepare(&key, parent, &Labels::new()))?;
    fill(snapshots, &key, |root| fs::write(root.join(file), name))?;
    works("commit", snapshots.commit(name, &key, &Labels::new()))
}

fn active_and_committed(snapshots: &dyn Snapshotter, sizes: Sizes) -> Check {
    expect("an unknown key", class(snapshots.stat("base-active")), Err(ErrorClass::NotFound))?;
    expect("no snapshots", works("walk", snapshots.walk())?.len(), 0)?;
    let mounts = works("prepare", snapshots.prepare("base-active", None, &Labels::new()))?;
    expect("mounts are those of prepare", works("mounts", snapshots.mounts("base-active"))?, mounts)?;
    let info = works("stat", snapshots.stat("base-active"))?;
    expect("an active one", (info.kind, info.parent, info.name.as_str()), (Kind::Active, None, "base-active"))?;
    fill(snapshots, "base-active", |root| {
        fs::write(root.join("kept"), "base")?;
        fs::write(root.join("deleted"), "base")?;
        fs::create_dir(root.join("dir"))?;
        fs::write(root.join("dir/x"), "x")
    })?;
    let usage = works("usage", snapshots.usage("base-active"))?;
    match sizes {
        Sizes::Bytes => expect("usage of an active one", usage.size_bytes, 9)?,
        Sizes::Blocks => expect("usage of an active one is not less than its bytes", usage.size_bytes >= 9, true)?,
    }
    works("commit", snapshots.commit("base", "base-active", &Labels::new()))?;
    expect("the key is gone", class(snapshots.stat("base-active")), Err(ErrorClass::NotFound))?;
    expect("a committed one", works("stat", snapshots.stat("base"))?.kind, Kind::Committed)?;
    expect("usage stays", works("usage", snapshots.usage("base"))?, usage)?;
    expect("a committed one is not mounted", class(snapshots.mounts("base")), Err(ErrorClass::FailedPrecondition))?;

    works("prepare a child", snapshots.prepare("child-active", Some("base"), &Labels::new()))?;
    let child = works("usage", snapshots.usage("child-active"))?.size_bytes;
    expect("a child begins empty", child == 0 || sizes == Sizes::Blocks, true)?;
    fill(snapshots, "child-active", |root| {
        fs::write(root.join("kept"), "changed")?;
        fs::remove_file(root.join("deleted"))?;
        fs::remove_dir_all(root.join("dir"))?;
        fs::create_dir(root.join("dir"))
    })?;
    works("commit the child", snapshots.commit("child", "child-active", &Labels::new()))?;
    works("view the child", snapshots.view("child-view", Some("child"), &Labels::new()))?;
    let mounted = mount(&works("mounts", snapshots.mounts("child-view"))?)?;
    expect("changed", works("read", fs::read_to_string(mounted.root.join("kept")))?, "changed".to_owned())?;
    expect("deleted", mounted.root.join("deleted").exists(), false)?;
    expect("emptied", works("list", fs::read_dir(mounted.root.join("dir")))?.count(), 0)?;
    works("view the base", snapshots.view("base-view", Some("base"), &Labels::new()))?;
    let mounted = mount(&works("mounts", snapshots.mounts("base-view"))?)?;
    expect("the base stays", works("read", fs::read_to_string(mounted.root.join("kept")))?, "base".to_owned())?;
    works("remove the views", snapshots.remove("base-view").and_then(|()| snapshots.remove("child-view")))
}

fn names(snapshots: &dyn Snapshotter) -> Check {
    let labels = Labels::new();
    works("prepare", snapshots.prepare("a", Some("base"), &labels))?;
    expect("a key twice", class(snapshots.prepare("a", None, &labels)), Err(ErrorClass::AlreadyExists))?;
    expect("a view of that key", class(snapshots.view("a", None, &labels)), Err(ErrorClass::AlreadyExists))?;
    expect("commit to a name in use", class(snapshots.commit("base", "a", &labels)), Err(ErrorClass::AlreadyExists))?;
    expect("an unknown parent", class(snapshots.prepare("b", Some("no"), &labels)), Err(ErrorClass::NotFound))?;
    expect("an active parent", class(snapshots.prepare("b", Some("a"), &labels)), Err(ErrorClass::InvalidArgument))?;
    expect("commit of nothing", class(snapshots.commit("b", "no", &labels)), Err(ErrorClass::NotFound))?;
    expect(
        "commit of a committed",
        class(snapshots.commit("b", "base", &labels)),
        Err(ErrorClass::FailedPrecondition),
    )?;
    expect("an empty key", class(snapshots.prepare("", None, &labels)), Err(ErrorClass::InvalidArgument))?;
    expect("the failed ones left nothing", class(snapshots.stat("b")), Err(ErrorClass::NotFound))?;
    works("remove", snapshots.remove("a"))
}

fn views(snapshots: &dyn Snapshotter) -> Check {
    works("view of nothing", snapshots.view("empty", None, &Labels::new()))?;
    let mounted = mount(&works("mounts", snapshots.mounts("empty"))?)?;
    expect("it is empty", works("list", fs::read_dir(&mounted.root))?.count(), 0)?;
    let committed = class(snapshots.commit("v", "empty", &Labels::new()));
    expect("a view is not committed", committed, Err(ErrorClass::FailedPrecondition))?;
    works("remove", snapshots.remove("empty"))
}

fn labels(snapshots: &dyn Snapshotter) -> Check {
    let of = |pairs: &[(&str, &str)]| -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    works("prepare", snapshots.prepare("l", Some("base"), &of(&[("a", "1"), ("b", "2")])))?;
    expect("labels", works("stat", snapshots.stat("l"))?.labels, of(&[("a", "1"), ("b", "2")]))?;
    let one = works("update one", snapshots.update("l", &of(&[("b", "3")]), &["labels.b".to_owned()]))?;
    expect("one changed", one.labels, of(&[("a", "1"), ("b", "3")]))?;
    expect("it was touched", one.updated > one.created, true)?;
    let all = works("update all", snapshots.update("l", &of(&[("c", "4")]), &[]))?;
    expect("all changed", all.labels, of(&[("c", "4")]))?;
    let refused = class(snapshots.update("l", &Labels::new(), &["parent".to_owned()]));
    expect("a fixed field", refused, Err(ErrorClass::InvalidArgument))?;
    works("commit", snapshots.commit("labelled", "l", &of(&[("d", "5")])))?;
    expect("labels of the commit", works("stat", snapshots.stat("labelled"))?.labels, of(&[("d", "5")]))?;
    works("remove", snapshots.remove("labelled"))
}

/// More layers than fit into one page of mount options.
fn deep(snapshots: &dyn Snapshotter) -> Check {
    const DEPTH: usize = 70;
    let name = |n: usize| format!("deep-{n}");
    for n in 0..DEPTH {
        let parent = n.checked_sub(1).map(name);
        layer(snapshots, &name(n), parent.as_deref(), &name(n))?;
    }
    works("prepare", snapshots.prepare("deep", Some(&name(DEPTH - 1)), &Labels::new()))?;
    let mounted = mount(&works("mounts", snapshots.mounts("deep"))?)?;
    for n in [0, 1, DEPTH / 2, DEPTH - 1] {
        expect("a file of a deep layer", works("read", fs::read_to_string(mounted.root.join(name(n))))?, name(n))?;
    }
    drop(mounted);
    works("remove", snapshots.remove("deep"))?;
    for n in (0..DEPTH).rev() {
        works("remove a layer", snapshots.remove(&name(n)))?;
    }
    Ok(())
}

fn concurrent(snapshots: &dyn Snapshotter) -> Check {
    let outcomes: Vec<Check> = std::thread::scope(|scope| {
        let work = |n: usize| {
            move || {
                for round in 0..4 {
                    let name = format!("c-{n}-{round}");
                    layer(snapshots, &name, Some("base"), &name)?;
                }
                // One of those who want a name gets it.
                let key = format!("race-{n}");
                works("prepare", snapshots.prepare(&key, Some("base"), &Labels::new()))?;
                match class(snapshots.commit("race", &key, &Labels::new())) {
                    Ok(()) => Ok(()),
                    Err(ErrorClass::AlreadyExists) => works("remove the loser", snapshots.remove(&key)),
                    Err(other) => Err(Violation { check: "race", problem: format!("{other:?}") }),
                }
            }
        };
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(work(n))).collect();
        let died = || Err(Violation { check: "concurrent use", problem: "a thread panicked".to_owned() });
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| died())).collect()
    });
    outcomes.into_iter().collect::<Check>()?;
    let found = works("walk", snapshots.walk())?;
    expect("all are there", found.iter().filter(|info| info.name.starts_with("c-")).count(), 16)?;
    expect("one won", found.iter().filter(|info| info.name.starts_with("race")).count(), 1)?;
    for info in found.iter().filter(|info| info.name.starts_with("c-") || info.name == "race") {
        works("remove", snapshots.remove(&info.name))?;
    }
    Ok(())
}

fn removal(snapshots: &dyn Snapshotter) -> Check {
    let refused = class(snapshots.remove("base"));
    expect("others are based on it", refused, Err(ErrorClass::FailedPrecondition))?;
    works("remove the child", snapshots.remove("child"))?;
    works("remove the base", snapshots.remove("base"))?;
    expect("twice", class(snapshots.remove("base")), Err(ErrorClass::NotFound))?;
    expect("nothing left", works("walk", snapshots.walk())?.len(), 0)?;
    works("clean up", snapshots.cleanup())
}
