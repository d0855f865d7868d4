//! Mount options: each is sorted somewhere, what is unknown goes to the file system unchanged, and sets never contradict themselves.

use berth_rootfs::options::MountOptions;

pub(crate) fn check(text: &str) {
    let words: Vec<&str> = text.split(',').collect();
    let sorted = MountOptions::parse(&words);
    for change in [sorted.top, sorted.tree] {
        let plain = overlap(change.set.bits(), change.clear.bits());
        assert_eq!(plain, 0, "{words:?}");
    }
    for (key, value) in &sorted.data {
        let original = value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}"));
        assert!(words.contains(&original.as_str()), "{original:?} of {words:?}");
    }
    assert_eq!(sorted, MountOptions::parse(&words));
}

/// Bits that are both set and cleared, except those of the access time, which is one field of three values.
fn overlap(set: u32, clear: u32) -> u32 {
    const ACCESS_TIME: u32 = 0x70;
    set & clear & !ACCESS_TIME
}
