//! Making the directories. The usual case, a new name below a parent that exists, costs two system calls for each hierarchy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;

use super::{Cgroup, Member, UnifiedMember, delete, full_path};
use crate::controller::Controller;
use crate::error::CgroupError;
use crate::file::Directory;
use crate::group_path::GroupPath;
use crate::layout::{Layout, Version};
use crate::systemd::is_reference;
use crate::wait::Deadline;
use crate::{cpuset, delegation};

pub(super) fn create(layout: &Layout, path: &str) -> Result<Cgroup, CgroupError> {
    if is_reference(path) {
        let (path, reason) = (path.to_owned(), "it is of the systemd driver's form, but the cgroupfs driver was asked");
        return Err(CgroupError::BadPath { path, reason });
    }
    let checked = GroupPath::parse(path)?;
    let mut group = Cgroup { path: path.to_owned(), members: Vec::new(), unified: None, unit: None, log: None };
    let mut made = Vec::new();
    let outcome = create_in(layout, &checked, &mut group, &mut made);
    if let Err(error) = outcome {
        // Nobody is in them yet, so one attempt each is enough; what cannot be removed is not what the caller must hear about.
        for path in made.iter().rev() {
            drop(delete::delete_directory(path, &mut Deadline::after(Duration::ZERO)));
        }
        return Err(error);
    }
    Ok(group)
}

fn create_in(
    layout: &Layout,
    path: &GroupPath,
    group: &mut Cgroup,
    made: &mut Vec<PathBuf>,
) -> Result<(), CgroupError> {
    for hierarchy in &layout.hierarchies {
        let full = full_path(&hierarchy.mount, &path.below(&hierarchy.own));
        let cpuset = hierarchy.controllers.iter().any(|name| name == Controller::Cpuset.v1_name());
        let directory = make(&hierarchy.mount, full, cpuset, made)?;
        if cpuset {
            cpuset::inherit(&hierarchy.mount, &directory)?;
        }
        group.members.push(Member { directory, controllers: hierarchy.controllers.clone() });
    }
    if let Some(unified) = &layout.unified {
        let full = full_path(&unified.mount, &path.below(&unified.own));
        let directory = make(&unified.mount, full, false, made)?;
        let alone = layout.version == Version::V2;
        if alone {
            delegation::enable_all(&unified.mount, &unified.controllers, &directory)?;
        }
        group.unified = Some(UnifiedMember { directory, mount: unified.mount.clone(), alone });
    }
    Ok(())
}

fn make(mount: &Path, path: PathBuf, cpuset: bool, made: &mut Vec<PathBuf>) -> Result<Directory, CgroupError> {
    match make_one(&path, made) {
        Err(CgroupError::Create { source: Errno::NOENT, .. }) => {
            make_parents(mount, &path, cpuset, made)?;
            make_one(&path, made)?;
        }
        other => other?,
    }
    Directory::open(path.clone()).map_err(|source| CgroupError::Open { path, source })
}

fn make_parents(mount: &Path, path: &Path, cpuset: bool, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    let mut parents: Vec<&Path> = path.ancestors().skip(1).take_while(|parent| *parent != mount).collect();
    parents.reverse();
    for parent in parents {
        let before = made.len();
        make_one(parent, made)?;
        if cpuset && made.len() > before {
            cpuset::prepare_parent(mount, parent)?;
        }
    }
    Ok(())
}

fn make_one(path: &Path, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    match mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
        Ok(()) => made.push(path.to_owned()),
        Err(Errno::EXIST) => {}
        Err(source) => return Err(CgroupError::Create { path: path.to_owned(), source }),
    }
    Ok(())
}
