//! Users: planned from the spec, resolved inside the container's root.
//!
//! Digits are a number, never looked up as a name (CVE-2016-3697) and never above 2^31 - 1 (CVE-2024-40635). Reads of passwd and
//! group are bounded, of regular files only (a FIFO must not hang us, CVE-2024-9676), links followed inside the root.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use berth_oci::annotation::GROUP_ADD;
use berth_oci::runtime::User;
use berth_rootfs::RootDir;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::RuntimeError;

/// Largest passwd or group file that is read.
const FILE_MAX: u64 = 1 << 20;
const ID_MAX: u32 = i32::MAX.cast_unsigned();

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NameOrId {
    Id(u32),
    Name(String),
}

impl NameOrId {
    fn parse(text: &str, field: &'static str) -> Result<Self, RuntimeError> {
        let wrong = |problem: &str| RuntimeError::Spec { field, problem: format!("{text:?} {problem}") };
        if text.is_empty() || text.len() > 256 || text.contains(['\n', '\0', ':']) {
            return Err(wrong("is not a user or group"));
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            let id = text.parse::<u32>().ok().filter(|id| *id <= ID_MAX);
            return id.map(Self::Id).ok_or_else(|| wrong("is larger than 2147483647"));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

/// Who the process shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserPlan {
    user: NameOrId,
    /// `None`: the user's primary group.
    group: Option<NameOrId>,
    additional: Vec<NameOrId>,
    /// Whether the user's groups of `/etc/group` are wanted: when the user was given as Docker gives it.
    with_memberships: bool,
}

impl fmt::Display for UserPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |who: &NameOrId| match who {
            NameOrId::Id(id) => id.to_string(),
            NameOrId::Name(name) => name.clone(),
        };
        write!(f, "{}", text(&self.user))?;
        self.group.as_ref().map_or(Ok(()), |group| write!(f, ":{}", text(group)))
    }
}

impl UserPlan {
    pub(crate) fn new(user: &User, annotations: &HashMap<String, String>) -> Result<Self, RuntimeError> {
        let field = "process.user";
        let mut additional: Vec<NameOrId> =
            user.additional_gids().iter().flatten().map(|gid| NameOrId::Id(*gid)).collect();
        let added = annotations.get(GROUP_ADD).map_or("", String::as_str);
        for name in added.split(',').filter(|name| !name.is_empty()) {
            additional.push(NameOrId::parse(name, GROUP_ADD)?);
        }
        let text = user.username().as_deref().unwrap_or_default();
        if text.is_empty() {
            let (user, group) = (NameOrId::Id(user.uid()), Some(NameOrId::Id(user.gid())));
            return Ok(Self { user, group, additional, with_memberships: false });
        }
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(NameOrId::parse(group, field)?)),
            None => (text, None),
        };
        let with_memberships = group.is_none();
        // A group that was named is the primary one and belongs to the set as well (CVE-2022-36109).
        additional.extend(group.clone());
        Ok(Self { user: NameOrId::parse(user, field)?, group, additional, with_memberships })
    }
}

/// Numbers, and the home directory for an environment that names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Ascending, each once.
    pub groups: Vec<u32>,
    pub home: String,
}

/// Who `USER[:GROUP]` is by these texts of passwd and group: pure, as a container's own files would be read.
///
/// # Errors
/// `InvalidArgument` for a text that is no user, `NotFound` for a name the tables do not have.
pub fn look_up_user(text: &str, passwd: &str, group: &str) -> Result<Identity, RuntimeError> {
    let mut user = User::default();
    user.set_username(Some(text.to_owned()));
    let plan = UserPlan::new(&user, &HashMap::new())?;
    resolve_text(&plan, passwd, group).map_err(|error| RuntimeError::Step {
        step: "resolve-user".to_owned(),
        object: text.to_owned(),
        detail: error.detail,
        source: error.errno,
    })
}

/// Who a process of the specification is in this root, for a runtime that understands numbers only.
///
/// # Errors
/// `InvalidArgument` for a text that is no user, `NotFound` for a name the root's files do not have.
pub fn resolve_user(
    root: &RootDir,
    user: &User,
    annotations: &HashMap<String, String>,
) -> Result<Identity, RuntimeError> {
    let plan = UserPlan::new(user, annotations)?;
    resolve(root, &plan).map_err(|error| RuntimeError::Step {
        step: "resolve-user".to_owned(),
        object: plan.to_string(),
        detail: error.detail,
        source: error.errno,
    })
}

/// A user or group that the root does not know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LookupError {
    pub(crate) detail: String,
    pub(crate) errno: Errno,
}

pub(crate) fn resolve(root: &RootDir, plan: &UserPlan) -> Result<Identity, LookupError> {
    let passwd = read(root, "/etc/passwd")?;
    let needs_groups = plan.with_memberships
        || plan.group.iter().chain(&plan.additional).any(|group| matches!(group, NameOrId::Name(_)));
    let group_file = if needs_groups { read(root, "/etc/group")? } else { String::new() };
    resolve_text(plan, &passwd, &group_file)
}

fn resolve_text(plan: &UserPlan, passwd: &str, group_file: &str) -> Result<Identity, LookupError> {
    let entry = passwd.lines().filter_map(PasswdEntry::parse).find(|entry| match &plan.user {
        NameOrId::Id(uid) => entry.uid == *uid,
        NameOrId::Name(name) => entry.name == name,
    });
    let uid = match (&plan.user, &entry) {
        (NameOrId::Id(uid), _) => *uid,
        (NameOrId::Name(_), Some(entry)) => entry.uid,
        (NameOrId::Name(name), None) => return Err(unknown("user", name, "/etc/passwd")),
    };
    let gid = match &plan.group {
        Some(group) => group_id(group, group_file)?,
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let mut groups = Vec::new();
    if plan.with_memberships
        && let Some(entry) = &entry
    {
        groups.extend(group_file.lines().filter_map(|line| membership(line, entry.name)));
    }
    for group in &plan.additional {
        groups.push(group_id(group, group_file)?);
    }
    // The primary group belongs to the set as well (CVE-2023-25173, CVE-2022-36109).
    if !groups.is_empty() || plan.with_memberships {
        groups.push(gid);
    }
    groups.sort_unstable();
    groups.dedup();
    let home = entry.map(|entry| entry.home).filter(|home| home.starts_with('/')).unwrap_or("/").to_owned();
    Ok(Identity { uid, gid, groups, home })
}

fn unknown(kind: &str, name: &str, file: &str) -> LookupError {
    LookupError { detail: format!("no {kind} {name:?} in the container's {file}"), errno: Errno::NOENT }
}

struct PasswdEntry<'t> {
    name: &'t str,
    uid: u32,
    gid: u32,
    home: &'t str,
}

impl<'t> PasswdEntry<'t> {
    fn parse(line: &'t str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or("/");
        Some(Self { name, uid, gid, home })
    }
}

fn id(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|id| *id <= ID_MAX)
}

fn group_id(group: &NameOrId, file: &str) -> Result<u32, LookupError> {
    let name = match group {
        NameOrId::Id(gid) => return Ok(*gid),
        NameOrId::Name(name) => name,
    };
    let found = file.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1).and_then(id)).flatten()
    });
    found.ok_or_else(|| unknown("group", name, "/etc/group"))
}

fn membership(line: &str, user: &str) -> Option<u32> {
    let mut fields = line.split(':');
    let gid = fields.nth(2).and_then(id)?;
    let mut members = fields.next()?.split(',');
    members.any(|member| member == user).then_some(gid)
}

/// The file's text; empty when it does not exist.
fn read(root: &RootDir, path: &str) -> Result<String, LookupError> {
    let failed = |errno| LookupError { detail: format!("cannot read the container's {path}"), errno };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match root.resolve(Path::new(path)) {
        Ok(fd) => fd,
        Err(error) if matches!(error.source, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(String::new()),
        Err(error) => return Err(failed(error.source)),
    };
    let stat = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(failed(Errno::INVAL));
    }
    let fd = root.open(Path::new(path), flags, Mode::empty()).map_err(|error| failed(error.source))?;
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || size > FILE_MAX {
        return Err(failed(Errno::FBIG));
    }
    let mut bytes = Vec::new();
    let mut limited = std::io::Read::take(std::fs::File::from(fd), FILE_MAX);
    std::io::Read::read_to_end(&mut limited, &mut bytes)
        .map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\n1000:x:0:0::/:/bin/sh\nbad:x:4294967296:0::/:\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlog:x:50:web,other\naudio:x:29:other\n";

    fn plan(text: &str, added: &str) -> Result<UserPlan, RuntimeError> {
        let mut user = User::default();
        user.set_username(Some(text.to_owned()));
        UserPlan::new(&user, &HashMap::from([(GROUP_ADD.to_owned(), added.to_owned())]))
    }

    fn check(text: &str, added: &str, expected: (u32, u32, &[u32], &str)) {
        let identity = resolve_text(&plan(text, added).unwrap(), PASSWD, GROUP).unwrap();
        let (uid, gid, groups, home) = expected;
        assert_eq!(identity, Identity { uid, gid, groups: groups.to_vec(), home: home.to_owned() }, "{text} {added}");
    }

    #[test]
    fn names_numbers_and_groups() {
        check("web", "", (33, 34, &[34, 50], "/srv"));
        check("web:audio", "", (33, 29, &[29], "/srv"));
        check("33", "", (33, 34, &[34, 50], "/srv"));
        check("web", "audio,7", (33, 34, &[7, 29, 34, 50], "/srv"));
        check("77", "", (77, 0, &[0], "/"));
    }

    #[test]
    fn cve_2016_3697_digits_are_never_a_name() {
        check("1000", "", (1000, 0, &[0], "/"));
    }

    #[test]
    fn cve_2024_40635_large_numbers_are_refused() {
        for text in ["2147483648", "4294967296", "99999999999999999999"] {
            assert!(plan(text, "").is_err(), "{text}");
        }
        // An entry with a number out of range does not count, so the name is unknown and never user 0.
        assert_eq!(resolve_text(&plan("bad", "").unwrap(), PASSWD, GROUP).unwrap_err().errno, Errno::NOENT);
    }

    /// Property: whatever stands in the tables, ids stay in range, digits are a number, and what is said twice is the same.
    #[test]
    fn strange_tables_give_no_strange_identities() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed >> 33).unwrap() % below
        };
        let words = [
            "root",
            "web",
            "0",
            "33",
            "1000",
            "-1",
            "4294967295",
            "4294967296",
            "",
            "x",
            "a,b",
            "/home",
            "..",
            "\u{0}",
            "é",
        ];
        for _ in 0..2000 {
            let mut table = |fields: usize| -> String {
                (0..next(6))
                    .map(|_| {
                        (0..next(fields + 3)).map(|_| words[next(words.len())]).collect::<Vec<_>>().join(":") + "\n"
                    })
                    .collect()
            };
            let (passwd, group) = (table(7), table(4));
            let user = ["root", "web", "33", "web:33", "1000:web", "4294967296", "0:0", ":"][next(8)];
            let Ok(identity) = look_up_user(user, &passwd, &group) else { continue };
            assert_eq!(look_up_user(user, &passwd, &group).unwrap(), identity);
            assert!(
                identity.groups.iter().chain([&identity.uid, &identity.gid]).all(|id| *id <= ID_MAX),
                "{identity:?}"
            );
            assert!(identity.groups.windows(2).all(|pair| pair[0] < pair[1]), "{identity:?}");
            assert!(identity.home.starts_with('/'));
            let name = user.split(':').next().unwrap();
            if let Ok(number) = name.parse::<u32>() {
                assert_eq!(identity.uid, number, "{user}");
            }
        }
    }

    #[test]
    fn unknown_names_are_errors() {
        assert!(resolve_text(&plan("nobody-here", "").unwrap(), PASSWD, GROUP).is_err());
        assert!(resolve_text(&plan("web:nogroup", "").unwrap(), PASSWD, GROUP).is_err());
        assert!(plan("a\nb", "").is_err());
    }
}
