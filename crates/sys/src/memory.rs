//! Giving memory back that only past work needed.
#![expect(
    unsafe_code,
    reason = "malloc_trim(3) and mallopt(3) are the C library's, and madvise(2) on mappings that are not ours to know of"
)]

use std::io;

use rustix::mm::{Advice, madvise};

/// Lets all threads allocate from two arenas of the C library in place of up to eight for each processor: threads of ours wait for the
/// kernel more than for the allocator, and each arena keeps its own free pages. To be called before the first thread.
pub fn share_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Lets go of what an idle process does not need: free heap pages, and pages of its own program text, which come back from the page
/// cache when they are executed again. Nothing that was written to is dropped.
///
/// # Errors
/// When `/proc/self/smaps` cannot be read; the kernel's for a mapping.
pub fn return_idle() -> io::Result<()> {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, keeps all blocks in use where they are.
    unsafe {
        libc::malloc_trim(0);
    }
    for mapping in clean_text(&std::fs::read_to_string("/proc/self/smaps")?) {
        let start = std::ptr::with_exposed_provenance_mut(mapping.start);
        // SAFETY: a private file mapping without a page of its own: the kernel reads the same bytes again from the file.
        unsafe { madvise(start, mapping.end - mapping.start, Advice::LinuxDontNeed) }?;
    }
    Ok(())
}

/// The executable file mappings of a `smaps` listing (proc_pid_smaps(5)) in which nothing was ever written.
fn clean_text(smaps: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        if let Some(anonymous) = line.strip_prefix("Anonymous:") {
            let range = candidate.take();
            found.extend(range.filter(|_| anonymous.trim() == "0 kB"));
        } else if let Some(range) = executable_file(line) {
            candidate = Some(range);
        }
    }
    found
}

/// The range of a header line such as `55d0…-55d1… r-xp 00679000 fe:00 1234 /usr/bin/berthd`.
fn executable_file(line: &str) -> Option<std::ops::Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    if fields.next()? != "r-xp" || !fields.nth(3)?.starts_with('/') {
        return None;
    }
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clean_text_is_named() {
        let smaps = "1000-3000 r-xp 00001000 fe:00 7 /usr/bin/x\nSize: 8 kB\nAnonymous: 0 kB\n\
                     3000-4000 r-xp 00003000 fe:00 7 /usr/bin/x\nAnonymous: 4 kB\n\
                     4000-5000 rw-p 00004000 fe:00 7 /usr/bin/x\nAnonymous: 0 kB\n\
                     7000-8000 r-xp 00000000 00:00 0 [vdso]\nAnonymous: 0 kB\n";
        assert_eq!(clean_text(smaps), vec![std::ops::Range { start: 0x1000, end: 0x3000 }]);
    }

    #[test]
    fn the_program_goes_on() {
        let text: Vec<String> = (0..1000).map(|i| format!("kept {i}")).collect();
        return_idle().unwrap();
        assert!(text.iter().enumerate().all(|(i, kept)| *kept == format!("kept {i}")));
    }
}
