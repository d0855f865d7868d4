//! Groups derived from another without making anything: a part of it, and one that is not there.

use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::{Cgroup, Member, UnifiedMember};
use crate::error::CgroupError;
use crate::file::Directory;

impl Cgroup {
    /// A group that exists in no hierarchy: it has no processes, and every change to it is refused or does nothing. Stands for
    /// one that is gone, and for a container that could not have any.
    pub fn absent(path: &str) -> Self {
        Self { path: path.to_owned(), members: Vec::new(), unified: None, unit: None, log: None }
    }

    /// Whether it is a directory in some hierarchy.
    pub fn is_absent(&self) -> bool {
        self.members.is_empty() && self.unified.is_none()
    }

    /// This group with existing sub-groups in its place: those of a v1 hierarchy by the name of one of its controllers, that of the
    /// v2 hierarchy by the empty name, as in `/proc/self/cgroup`. Hierarchies that are not named stay as they are.
    ///
    /// # Errors
    /// `InvalidArgument` for a path that leaves the group and for a controller no hierarchy has; `NotFound`.
    pub fn below<'a>(&self, subs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, CgroupError> {
        let mut group = Self {
            path: self.path.clone(),
            members: self.members.iter().map(Member::again).collect::<Result<_, _>>()?,
            unified: self.unified.as_ref().map(UnifiedMember::again).transpose()?,
            // What is below a scope is delegated to us.
            unit: None,
            log: None,
        };
        for (controller, sub) in subs {
            let wrong = |reason| CgroupError::BadPath { path: sub.chars().take(80).collect(), reason };
            let below = relative(sub).ok_or_else(|| wrong("it has . or .. in it"))?;
            let unified = group.unified.as_mut().filter(|unified| controller.is_empty() || unified.alone);
            let member = group.members.iter_mut().find(|member| member.controllers.iter().any(|own| own == controller));
            let directory = match (member, unified) {
                (Some(member), _) => &mut member.directory,
                (None, Some(unified)) => &mut unified.directory,
                (None, None) => return Err(wrong("its controller is in no hierarchy of the group")),
            };
            *directory = open(directory.path.join(below))?;
        }
        Ok(group)
    }
}

impl Member {
    fn again(&self) -> Result<Self, CgroupError> {
        Ok(Self { directory: open(self.directory.path.clone())?, controllers: self.controllers.clone() })
    }
}

impl UnifiedMember {
    fn again(&self) -> Result<Self, CgroupError> {
        Ok(Self { directory: open(self.directory.path.clone())?, mount: self.mount.clone(), alone: self.alone })
    }
}

/// Names only; a leading `/` means the group itself.
fn relative(path: &str) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::RootDir => {}
            _ => return None,
        }
    }
    Some(out)
}

fn open(path: PathBuf) -> Result<Directory, CgroupError> {
    Directory::open(path.clone()).map_err(|source| match source {
        Errno::NOENT => CgroupError::NotFound { path: path.display().to_string() },
        source => CgroupError::Open { path, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_groups_stay_inside() {
        let check =
            |path: &str, expected: Option<&str>| assert_eq!(relative(path), expected.map(PathBuf::from), "{path}");
        check("/", Some(""));
        check("a/b", Some("a/b"));
        check("/a//b/", Some("a/b"));
        check("../a", None);
        check("a/../..", None);
    }

    #[test]
    fn an_absent_group_has_nobody() {
        let group = Cgroup::absent("/berth/none");
        assert!(group.is_absent());
        assert_eq!(group.pids().unwrap(), []);
        assert!(group.attach_fds().unwrap().is_empty() && group.cgroup_dir_fd().is_none());
        group.delete(std::time::Duration::ZERO).unwrap();
        assert!(group.freeze(std::time::Duration::ZERO).is_err());
        assert!(matches!(group.below([("cpu", "x")]), Err(CgroupError::BadPath { .. })));
    }
}
