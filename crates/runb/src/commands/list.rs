//! `list`.

use std::path::Path;

use berth_runtime::StateDir;

use super::describe::Description;
use super::{json, print};
use crate::arguments::{Global, OutputFormat};
use crate::error::CommandError;
use crate::log::Log;
use crate::paths;

pub(crate) fn list(
    global: &Global,
    root: &Path,
    format: OutputFormat,
    quiet: bool,
    log: &Log,
) -> Result<(), CommandError> {
    if global.root.is_some() && !root.is_dir() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(paths::file("read", root)(missing));
    }
    let ids = StateDir::list(root)?;
    if quiet {
        ids.iter().for_each(|id| print(id.as_str()));
        return Ok(());
    }
    let mut found = Vec::new();
    for id in ids {
        match paths::saved(root, id.as_str()) {
            Ok(saved) => found.push(Description::new(&saved, user_name(saved.owner))),
            // One that vanishes meanwhile, or is half-made, does not keep the others from being shown.
            Err(error) => log.warn(&format!("load container {id}: {}", berth_types::report(&error))),
        }
    }
    match format {
        // An empty list is `null`, as Go writes it and callers of runc read it.
        OutputFormat::Json if found.is_empty() => print("null"),
        OutputFormat::Json => print(&json(&found)?),
        OutputFormat::Table => table(&found),
    }
    Ok(())
}

/// The columns are as wide as what is in them, 12 at least.
fn table(found: &[Description]) {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = found.iter().map(|entry| {
        let status = entry.status.to_owned();
        [&entry.id, &entry.pid.to_string(), &status, &entry.bundle, &entry.created, &entry.owner].map(String::clone)
    });
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(rows).collect();
    let mut widths = [12; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + 3);
        }
    }
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        print(cells.collect::<String>().trim_end());
    }
}

/// The name in the host's `/etc/passwd`, else `#` and the number.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| format!("#{uid}"))
}
