//! What a store is after the host went down: nothing is mounted, no process holds anything, what never reached the disk is not trusted.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::{Check, chain, expect, works};
use crate::{SnapshotStore, recovery};

/// `open` opens the store of one directory; it is closed in between as a process closes everything when it ends.
///
/// # Errors
/// The first promise that is not kept.
pub fn run(open: &dyn Fn() -> crate::Result<SnapshotStore>) -> Check {
    let store = works("open", open())?;
    let root = store.root.clone();
    for number in [40, 41] {
        let below = (number == 41).then(|| store.lower(&chain(40)));
        let layer = works("begin", store.begin_layer_on(&chain(number), below.as_deref()))?;
        works("fill", fs::write(layer.dir().join(number.to_string()), "layer"))?;
        works("commit", layer.commit(5))?;
        if number == 40 {
            works("settle", store.settle())?;
        }
    }
    let lowers = vec![store.lower(&chain(40))];
    for (id, is_throw_away) in [("kept", false), ("thrown-away", true)] {
        let rootfs = works("prepare", store.prepare(id, lowers.clone(), is_throw_away))?;
        let mount = works("mount", rootfs.mount_detached())?;
        works("write", fs::write(format!("/proc/self/fd/{}/written", mount.as_raw_fd()), id))?;
    }
    drop(store);
    works("another boot", another_boot(&root))?;

    let store = works("open after a reboot", open())?;
    expect("only what was settled", works("list", store.layers())?, vec![chain(40)])?;
    expect("only what was to be kept", works("list", store.prepared())?, vec!["kept".to_owned()])?;
    expect("its files", works("read", fs::read(store.layer_dir(&chain(40)).join("40")))?, b"layer".to_vec())?;
    let rootfs = works("rootfs", store.rootfs("kept", vec![store.lower(&chain(40))]))?;
    let mount = works("mount", rootfs.mount_detached())?;
    let seen = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    expect("what was written", works("read", fs::read_to_string(seen.join("written")))?, "kept".to_owned())?;
    expect("the layer below", seen.join("40").exists(), true)?;
    drop(mount);
    // What was dropped can be made again, and what is left can go.
    let again = works("begin", store.begin_layer_on(&chain(41), Some(&store.lower(&chain(40)))))?;
    works("commit", again.commit(0))?;
    works("discard", store.discard("kept"))?;
    for number in [41, 40] {
        works("remove", store.remove_layer(&chain(number)))?;
    }
    works("empty the trash", store.trash().empty())?;
    expect("the trash is empty", works("empty some", store.trash().empty_some(1))?, false)
}

/// Everything on the disk says that it was written in another boot.
fn another_boot(root: &Path) -> std::io::Result<()> {
    let this = recovery::boot_id().unwrap_or_default();
    let mut files = vec![root.join("boot")];
    for layer in fs::read_dir(root.join("layers"))? {
        files.push(layer?.path().join("layer.json"));
    }
    for file in files {
        let text = fs::read_to_string(&file)?;
        fs::write(&file, text.replace(&this, "another-boot"))?;
    }
    Ok(())
}
