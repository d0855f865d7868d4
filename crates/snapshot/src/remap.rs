//! Snapshots for user namespaces, as containerd's overlay snapshotter makes them (2.0 and later, capability `remap-ids`): labels of an active
//! snapshot say which owners of its layers are seen as which, and its mounts carry that on as `uidmap=` and `gidmap=`. Whoever mounts maps the lower
//! directories; no file is copied or given to anybody. The writable directory is as it is: it belongs to the namespace's root.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use berth_types::Labels;

use crate::{Mount, Result, SnapshotError};

/// `container:host:size`, several with commas between them.
pub(crate) const UIDS: &str = "containerd.io/snapshot/uidmapping";
pub(crate) const GIDS: &str = "containerd.io/snapshot/gidmapping";

/// What the labels ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remap<'l> {
    uids: &'l str,
    gids: &'l str,
}

impl<'l> Remap<'l> {
    /// Nothing without labels. The two belong together.
    pub(crate) fn of(labels: &'l Labels) -> Result<Option<Self>> {
        let label = |name: &'static str| labels.get(name).map(String::as_str).filter(|text| !text.is_empty());
        let remap = match (label(UIDS), label(GIDS)) {
            (None, None) => return Ok(None),
            (Some(uids), Some(gids)) => Self { uids, gids },
            (Some(_), None) => return Err(SnapshotError::Mapping { label: GIDS, value: String::new() }),
            (None, Some(_)) => return Err(SnapshotError::Mapping { label: UIDS, value: String::new() }),
        };
        for (label, text) in [(UIDS, remap.uids), (GIDS, remap.gids)] {
            let bad = || SnapshotError::Mapping { label, value: text.chars().take(200).collect() };
            let mut triples = text.split(',').map(triple);
            triples.try_for_each(|found| found.map(drop)).ok_or_else(bad)?;
        }
        Ok(Some(remap))
    }

    /// The writable directory's owner, who is one of the layer's below, becomes who that is on the host.
    pub(crate) fn give(&self, upper: &Path) -> Result<()> {
        let failed = |source| SnapshotError::io("give to the namespace's root", upper, source);
        let found = std::fs::symlink_metadata(upper).map_err(failed)?;
        let (uid, gid) = (mapped(self.uids, found.uid()), mapped(self.gids, found.gid()));
        std::os::unix::fs::lchown(upper, uid, gid).map_err(failed)?;
        // The change takes bits away.
        std::fs::set_permissions(upper, found.permissions()).map_err(failed)
    }

    pub(crate) fn add_to(&self, mounts: &mut [Mount]) {
        for mount in mounts.iter_mut().filter(|mount| mount.kind == "overlay") {
            mount.options.push(format!("uidmap={}", self.uids));
            mount.options.push(format!("gidmap={}", self.gids));
        }
    }
}

fn triple(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.split(':').map(|number| number.parse::<u32>().ok());
    let found = (numbers.next()??, numbers.next()??, numbers.next()??);
    let is_range =
        found.2 > 0 && found.0.checked_add(found.2 - 1).is_some() && found.1.checked_add(found.2 - 1).is_some();
    (numbers.next().is_none() && is_range).then_some(found)
}

/// Who an owner is on the host; an owner that the mapping does not have stays.
fn mapped(mapping: &str, id: u32) -> Option<u32> {
    let ranges = mapping.split(',').filter_map(triple);
    ranges
        .filter(|(first, _, size)| (*first..=first + (size - 1)).contains(&id))
        .map(|(first, host, _)| host + (id - first))
        .next()
}

/// Overlays of mapped layers: since Linux 5.19.
pub(crate) fn kernel_maps_overlays() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 19)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read() {
        let labels = |uids: &str, gids: &str| -> Labels {
            [(UIDS.to_owned(), uids.to_owned()), (GIDS.to_owned(), gids.to_owned())].into()
        };
        assert_eq!(Remap::of(&Labels::new()).unwrap(), None);
        let known = labels("0:100000:10,10:5:2", "0:200000:65536");
        let remap = Remap::of(&known).unwrap().unwrap();
        assert_eq!(
            (mapped(remap.uids, 9), mapped(remap.uids, 11), mapped(remap.uids, 12)),
            (Some(100_009), Some(6), None)
        );
        let overlay = Mount { kind: "overlay".to_owned(), source: String::new(), options: Vec::new() };
        let mut mounts = vec![overlay];
        remap.add_to(&mut mounts);
        assert_eq!(mounts[0].options, ["uidmap=0:100000:10,10:5:2", "gidmap=0:200000:65536"]);
        for (uids, gids) in [
            ("0:1", "0:1:1"),
            ("0:1:0", "0:1:1"),
            ("0:1:1:1", "0:1:1"),
            ("0:4294967295:2", "0:1:1"),
            ("", "0:1:1"),
            ("0:1:1,x", "0:1:1"),
        ] {
            Remap::of(&labels(uids, gids)).unwrap_err();
        }
    }
}
