//! `ps`: the container's processes, by number or as the host's ps(1) shows them.

use std::path::Path;
use std::process::Command;

use super::{json, print};
use crate::arguments::OutputFormat;
use crate::error::CommandError;
use crate::paths;

pub(crate) fn processes(root: &Path, id: &str, format: OutputFormat, options: &[String]) -> Result<(), CommandError> {
    let pids = paths::container(root, id)?.pids()?;
    if format == OutputFormat::Json {
        print(&json(&pids)?);
        return Ok(());
    }
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { default.as_slice() } else { options };
    let output = Command::new("ps").args(options).output().map_err(paths::file("run", Path::new("ps")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(CommandError::Usage(format!("ps ended with {}: {said}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| CommandError::Usage("couldn't find PID field in ps output".to_owned()))?;
    print(header);
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|text| text.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            print(line);
        }
    }
    Ok(())
}
