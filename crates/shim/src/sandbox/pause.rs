//! The process that holds a pod's namespaces where its document names none: a program of some instructions, which ignores the ends of
//! orphans (so the kernel collects them, signal(7)) and sleeps.
//!
//! It is written as it is, so no binary of the host is visible in the pod (CVE-2019-5736), nothing has to be installed, and a pod costs one page.
//! Its file lies below the bundle, its root is an overlay of that: directories like `/run` may be mounted `noexec`.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use berth_proto::task::Mount;

/// As the pod's document names it.
pub(super) const PROGRAM: &str = "/pause";
/// Below the bundle; engines remove `work` with all it holds.
const DIRECTORY: &str = "work/pause";
/// Where the mounts of its document go.
const MOUNT_POINTS: [&str; 2] = ["dev", "proc"];

/// Lays the files out in the bundle; the root file system made of them.
pub(super) fn root(bundle: &Path) -> io::Result<Mount> {
    let directory = bundle.join(DIRECTORY);
    let (root, below) = (directory.join("root"), directory.join("below"));
    for path in MOUNT_POINTS.iter().map(|name| root.join(name)).chain([below.clone()]) {
        std::fs::create_dir_all(path)?;
    }
    let program = root.join(PROGRAM.trim_start_matches('/'));
    std::fs::write(&program, image())?;
    std::fs::set_permissions(&program, Permissions::from_mode(0o555))?;
    // An overlay of one directory would be that directory's own mount again.
    let lowers = format!("lowerdir={}:{}", escape(&root), escape(&below));
    Ok(Mount { type_: "overlay".to_owned(), source: "overlay".to_owned(), options: vec![lowers], ..Default::default() })
}

fn escape(path: &Path) -> String {
    path.display().to_string().replace('\\', "\\\\").replace(':', "\\:")
}

const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;
/// `struct sigaction` of the kernel with `SIG_IGN`: handler, flags, restorer, mask.
const IGNORE: [u64; 4] = [1, 0, 0, 0];

/// `rt_sigaction(SIGCHLD, &IGNORE, NULL, 8)`, then `pause()` for ever.
#[cfg(target_arch = "x86_64")]
mod machine {
    pub(super) const KIND: u16 = 62;
    /// `IGNORE` lies before it.
    pub(super) fn code(ignore: u64) -> Vec<u8> {
        let address = u32::try_from(ignore).unwrap_or_default().to_le_bytes();
        let mut code = vec![0xb8, 13, 0, 0, 0, 0xbf, 17, 0, 0, 0, 0xbe];
        code.extend(address);
        code.extend([0x31, 0xd2, 0x41, 0xba, 8, 0, 0, 0, 0x0f, 0x05]);
        code.extend([0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]);
        code
    }
}

/// The same with `ppoll(NULL, 0, NULL, NULL)`: this architecture has no `pause`.
#[cfg(target_arch = "aarch64")]
mod machine {
    pub(super) const KIND: u16 = 183;
    /// `IGNORE` is the 32 bytes before it, the second instruction takes its address.
    pub(super) fn code(_: u64) -> Vec<u8> {
        const ADR_X1: u32 = 0x1000_0001;
        // -36 bytes, in words of four.
        let back: u32 = ((0x8_0000 - 9) << 5) & 0x00ff_ffe0;
        [
            0xd280_0220,
            ADR_X1 | back,
            0xd280_0002,
            0xd280_0103,
            0xd280_10c8,
            0xd400_0001,
            0xd280_0000,
            0xd280_0001,
            0xd280_0002,
            0xd280_0003,
            0xd280_0928,
            0xd400_0001,
            0x17ff_fffa,
        ]
        .iter()
        .flat_map(|word: &u32| word.to_le_bytes())
        .collect()
    }
}

/// A static ELF executable (elf(5)): one segment, loaded as it lies in the file.
fn image() -> Vec<u8> {
    let data: Vec<u8> = IGNORE.iter().flat_map(|word| word.to_le_bytes()).collect();
    let ignore = BASE + HEADERS;
    let entry = ignore + data.len() as u64;
    let code = machine::code(ignore);
    let size = HEADERS + (data.len() + code.len()) as u64;
    let mut elf = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let half = |elf: &mut Vec<u8>, values: &[u16]| elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let word = |elf: &mut Vec<u8>, values: &[u32]| elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let long = |elf: &mut Vec<u8>, values: &[u64]| elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    half(&mut elf, &[2, machine::KIND]);
    word(&mut elf, &[1]);
    long(&mut elf, &[entry, 64, 0]);
    word(&mut elf, &[0]);
    half(&mut elf, &[64, 56, 1, 64, 0, 0]);
    // PT_LOAD, readable and executable; the largest page of any kernel.
    word(&mut elf, &[1, 5]);
    long(&mut elf, &[0, BASE, BASE, size, size, 0x1_0000]);
    elf.extend(data);
    elf.extend(code);
    elf
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// It runs, ignores the ends of its children, and sleeps.
    #[test]
    fn it_pauses() {
        let dir = tempfile::tempdir().unwrap();
        let mount = root(dir.path()).unwrap();
        assert!(mount.options[0].starts_with("lowerdir=/"), "{mount:?}");
        let program = dir.path().join(DIRECTORY).join("root/pause");
        assert!(std::fs::metadata(&program).unwrap().len() < 512);
        let mut child = Command::new(&program).spawn().unwrap();
        let stat = |name: &str| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
        };
        let begun = std::time::Instant::now();
        while stat("State:") != "S (sleeping)" || u64::from_str_radix(&stat("SigIgn:"), 16).unwrap() & 1 << 16 == 0 {
            assert!(begun.elapsed().as_secs() < 10, "{} {}", stat("State:"), stat("SigIgn:"));
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
