//! Mount options of the OCI runtime specification, sorted into what the new mount API takes. Text in, plain data out.
//!
//! # Spec
//! runtime-spec config, "Linux mount options".

use rustix::mount::{MountAttrFlags as Attr, MountPropagationFlags as Propagation};

/// Attributes to set and to clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttributeChange {
    pub set: Attr,
    pub clear: Attr,
}

impl Default for AttributeChange {
    fn default() -> Self {
        Self { set: Attr::empty(), clear: Attr::empty() }
    }
}

impl AttributeChange {
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.clear.is_empty()
    }

    fn set(&mut self, flag: Attr) {
        self.set |= flag;
        self.clear &= !flag;
    }

    fn clear(&mut self, flag: Attr) {
        self.clear |= flag;
        self.set &= !flag;
    }
}

/// The options of one mount, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `bind` (false) or `rbind` (true).
    pub bind: Option<bool>,
    pub top: AttributeChange,
    /// The way of keeping access times that is named: `noatime`, `relatime`, `strictatime`, `nodiratime`. The words that only take one
    /// back (`atime`, `norelatime`) do not count.
    pub access_time: Option<Attr>,
    /// `rro` and its kin: for the whole tree.
    pub tree: AttributeChange,
    /// In order; the flag says recursive.
    pub propagation: Vec<(Propagation, bool)>,
    /// `tmpcopyup`: a tmpfs starts with what it hides.
    pub copy_up: bool,
    /// `idmap` (false) or `ridmap` (true).
    pub id_map: Option<bool>,
    /// `remount`: other options for what is mounted at the target already.
    pub remount: bool,
    /// `sync`, `lazytime` and their kin: for the file system as a whole, every kind of it takes them.
    pub superblock: Vec<String>,
    /// For the file system itself: `size=64m`, `newinstance`.
    pub data: Vec<(String, Option<String>)>,
}

const PLAIN: &[(&str, bool, Attr)] = &[
    ("ro", true, Attr::MOUNT_ATTR_RDONLY),
    ("rw", false, Attr::MOUNT_ATTR_RDONLY),
    ("nosuid", true, Attr::MOUNT_ATTR_NOSUID),
    ("suid", false, Attr::MOUNT_ATTR_NOSUID),
    ("nodev", true, Attr::MOUNT_ATTR_NODEV),
    ("dev", false, Attr::MOUNT_ATTR_NODEV),
    ("noexec", true, Attr::MOUNT_ATTR_NOEXEC),
    ("exec", false, Attr::MOUNT_ATTR_NOEXEC),
    ("nodiratime", true, Attr::MOUNT_ATTR_NODIRATIME),
    ("diratime", false, Attr::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", true, Attr::MOUNT_ATTR_NOSYMFOLLOW),
    ("symfollow", false, Attr::MOUNT_ATTR_NOSYMFOLLOW),
];

/// The access-time attributes are one field with three values: setting one clears the field first.
const ACCESS_TIME: &[(&str, Attr)] = &[
    ("noatime", Attr::MOUNT_ATTR_NOATIME),
    ("relatime", Attr::MOUNT_ATTR_RELATIME),
    ("strictatime", Attr::MOUNT_ATTR_STRICTATIME),
    ("atime", Attr::MOUNT_ATTR_RELATIME),
    ("norelatime", Attr::MOUNT_ATTR_STRICTATIME),
    ("nostrictatime", Attr::MOUNT_ATTR_RELATIME),
];

const PROPAGATION: &[(&str, Propagation)] = &[
    ("shared", Propagation::SHARED),
    ("slave", Propagation::DOWNSTREAM),
    ("private", Propagation::PRIVATE),
    ("unbindable", Propagation::UNBINDABLE),
];

/// Options of any file system as a whole (mount(8), "Filesystem-independent mount options").
const SUPERBLOCK: &[&str] =
    &["async", "sync", "dirsync", "lazytime", "nolazytime", "mand", "nomand", "iversion", "noiversion"];

impl MountOptions {
    /// Texts that go to the kernel as they are.
    pub fn all_strings(&self) -> impl Iterator<Item = &str> {
        self.data.iter().flat_map(|(key, value)| std::iter::once(key.as_str()).chain(value.as_deref()))
    }

    /// Sorts options; what no table knows is the file system's own.
    pub fn parse<S: AsRef<str>>(options: &[S]) -> Self {
        let mut sorted = Self::default();
        for option in options {
            sorted.add(option.as_ref());
        }
        sorted
    }

    fn add(&mut self, option: &str) {
        match option {
            // Whether the kernel logs a failed mount: the new mount API answers the caller instead.
            "defaults" | "" | "loud" | "silent" => return,
            "remount" => return self.remount = true,
            "bind" => return self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => return self.bind = Some(true),
            "tmpcopyup" => return self.copy_up = true,
            "idmap" => return self.id_map = Some(false),
            "ridmap" => return self.id_map = Some(true),
            _ => {}
        }
        if attribute(&mut self.top, option) {
            let before = self.access_time.unwrap_or(Attr::empty());
            let directories = before & Attr::MOUNT_ATTR_NODIRATIME;
            self.access_time = match option {
                "noatime" => Some(directories | Attr::MOUNT_ATTR_NOATIME),
                "relatime" => Some(directories | Attr::MOUNT_ATTR_RELATIME),
                "strictatime" => Some(directories | Attr::MOUNT_ATTR_STRICTATIME),
                "nodiratime" => Some(before | Attr::MOUNT_ATTR_NODIRATIME),
                "atime" => taken_back(before, Attr::MOUNT_ATTR_NOATIME),
                "nostrictatime" => taken_back(before, Attr::MOUNT_ATTR_STRICTATIME),
                "diratime" => taken_back(before, Attr::MOUNT_ATTR_NODIRATIME),
                _ => self.access_time,
            };
            return;
        }
        if SUPERBLOCK.contains(&option) {
            return self.superblock.push(option.to_owned());
        }
        if let Some(rest) = option.strip_prefix('r') {
            if attribute(&mut self.tree, rest) {
                return;
            }
            if let Some((_, propagation)) = PROPAGATION.iter().find(|(name, _)| *name == rest) {
                return self.propagation.push((*propagation, true));
            }
        }
        if let Some((_, propagation)) = PROPAGATION.iter().find(|(name, _)| *name == option) {
            return self.propagation.push((*propagation, false));
        }
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (option, None),
        };
        self.data.push((key.to_owned(), value));
    }

    /// The value of an option of the file system.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.data.iter().rev().find(|(k, _)| k == key).and_then(|(_, value)| value.as_deref())
    }
}

fn taken_back(before: Attr, flag: Attr) -> Option<Attr> {
    Some(before & !flag).filter(|left| !left.is_empty())
}

fn attribute(change: &mut AttributeChange, name: &str) -> bool {
    if let Some((_, sets, flag)) = PLAIN.iter().find(|(text, ..)| *text == name) {
        if *sets {
            change.set(*flag);
        } else {
            change.clear(*flag);
        }
        return true;
    }
    if let Some((_, flag)) = ACCESS_TIME.iter().find(|(text, _)| *text == name) {
        change.set &= !Attr::MOUNT_ATTR__ATIME;
        change.clear |= Attr::MOUNT_ATTR__ATIME;
        change.set |= *flag;
        return true;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_into_their_kinds() {
        let options = MountOptions::parse(&["rbind", "ro", "rprivate", "rro", "nosuid", "size=64m", "newinstance"]);
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.top.set, Attr::MOUNT_ATTR_RDONLY | Attr::MOUNT_ATTR_NOSUID);
        assert_eq!(options.tree.set, Attr::MOUNT_ATTR_RDONLY);
        assert_eq!(options.propagation, [(Propagation::PRIVATE, true)]);
        assert_eq!(options.value("size"), Some("64m"));
        assert_eq!(options.data[1], ("newinstance".to_owned(), None));
    }

    #[test]
    fn ways_of_keeping_access_times() {
        let named = |words: &[&str]| MountOptions::parse(words).access_time;
        assert_eq!(named(&["ro", "atime", "norelatime", "diratime"]), None);
        assert_eq!(named(&["relatime"]), Some(Attr::MOUNT_ATTR_RELATIME));
        assert_eq!(named(&["nodiratime", "norelatime"]), Some(Attr::MOUNT_ATTR_NODIRATIME));
        let both = Attr::MOUNT_ATTR_NODIRATIME | Attr::MOUNT_ATTR_STRICTATIME;
        assert_eq!(named(&["nodiratime", "strictatime"]), Some(both));
    }

    #[test]
    fn the_last_word_counts() {
        let options = MountOptions::parse(&["ro", "rw", "noatime", "relatime"]);
        assert_eq!(options.top.set, Attr::empty());
        assert_eq!(options.top.clear, Attr::MOUNT_ATTR_RDONLY | Attr::MOUNT_ATTR__ATIME);
    }

    /// Property: every option is sorted somewhere, what no table knows goes to the file system as it was, and nothing is both set and
    /// cleared, except the access time, which is one field of three values.
    #[test]
    fn strange_options_are_sorted_or_passed_on() {
        let mut seed = 0x1319_8a2e_0370_7344_u64;
        let mut next = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed >> 33).unwrap() % below
        };
        let plain: Vec<&str> =
            PLAIN.iter().map(|(name, ..)| *name).chain(ACCESS_TIME.iter().map(|(name, _)| *name)).collect();
        let strange = [
            "",
            "r",
            "rr",
            "rro=1",
            "ro ",
            "Ro",
            "size=1,2",
            "=",
            "a=b=c",
            "rbind",
            "ridmap",
            "remount",
            "sync",
            "rsync",
            "rtmpcopyup",
        ];
        for _ in 0..2000 {
            let words: Vec<String> = (0..next(8))
                .map(|_| match next(4) {
                    0 => strange[next(strange.len())].to_owned(),
                    1 => format!("r{}", plain[next(plain.len())]),
                    _ => plain[next(plain.len())].to_owned(),
                })
                .collect();
            let sorted = MountOptions::parse(&words);
            for change in [sorted.top, sorted.tree] {
                let both = change.set & change.clear & !Attr::MOUNT_ATTR__ATIME;
                assert!(both.is_empty(), "{words:?}");
            }
            for (key, value) in &sorted.data {
                let original = value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}"));
                assert!(words.contains(&original), "{original:?} of {words:?}");
            }
            assert_eq!(sorted, MountOptions::parse(&words));
            // A later option of a pair overrules an earlier one, whatever stands between.
            let mut again = words.clone();
            again.push("ro".to_owned());
            assert!(MountOptions::parse(&again).top.set.contains(Attr::MOUNT_ATTR_RDONLY));
        }
    }
}
