//! Pressure stall information: how long somebody waited for a resource (kernel documentation, accounting/psi).

use crate::file::Directory;

/// What `cpu.pressure` and its like say; a kernel without PSI has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// At least one process waited.
    pub some: Stall,
    /// All waited. Kernels before 5.13 do not say this of the processor.
    pub full: Option<Stall>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stall {
    /// Shares of the last 10, 60 and 300 seconds, in hundredths of a per cent, as exactly as the kernel writes them.
    pub avg10: u32,
    pub avg60: u32,
    pub avg300: u32,
    /// Microseconds since the group was made.
    pub total_us: u64,
}

/// A pressure file of a v2 group. `None` where there is none, or PSI is switched off.
pub(super) fn read(directory: &Directory, file: &str) -> Option<Pressure> {
    parse(&directory.read_optional(file).ok()??)
}

pub(super) fn parse(text: &str) -> Option<Pressure> {
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(stall);
    Some(Pressure { some: line("some ")??, full: line("full ").flatten() })
}

fn stall(line: &str) -> Option<Stall> {
    let value = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let share = |key: &str| {
        let (whole, hundredths) = value(key)?.split_once('.')?;
        Some(whole.parse::<u32>().ok()? * 100 + hundredths.parse::<u32>().ok()?)
    };
    Some(Stall {
        avg10: share("avg10")?,
        avg60: share("avg60")?,
        avg300: share("avg300")?,
        total_us: value("total")?.parse().ok()?,
    })
}
