//! `berth save`, and how `export` writes its archive.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::client::{Payload, Query, Response};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{ByteProgress, ProgressReader};

#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  berth save -o tools.tar busybox:1.36 web\n  berth save busybox | gzip > busybox.tar.gz"
)]
pub(crate) struct Arguments {
    /// Write to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
    /// Platform, os/arch
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    crate::commands::container::create::check_platform(arguments.platform.as_deref())?;
    let mut path = Query::new("/images/get");
    for image in &arguments.images {
        path = path.with("names", image);
    }
    let path = path.build();
    write_archive(cx, arguments.output.as_deref(), "save", |cx| cx.client.stream("GET", &path, Payload::Nothing))
}

/// Streams an archive to stdout, or to a file that appears only when it is complete.
pub(crate) fn write_archive(
    cx: &mut Context,
    output: Option<&str>,
    verb: &str,
    open: impl FnOnce(&mut Context) -> Outcome<Response>,
) -> Outcome {
    let Some(output) = output.filter(|path| *path != "-") else {
        if cx.out.is_terminal {
            return Err(Failure::new("not writing an archive to a terminal")
                .hint(format!("redirect stdout, or name a file: berth {verb} -o FILE")));
        }
        let mut response = open(cx)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match response.read(&mut buffer) {
                Ok(0) => return Ok(0),
                Ok(length) => cx.out.write(&buffer[..length])?,
                Err(error) => return Err(Failure::new("lost the archive's stream").because(&error)),
            }
        }
    };
    // Opened before the daemon is asked: a path that cannot be written fails at once.
    let mut staged = Staged::create(Path::new(output))?;
    let response = open(cx)?;
    let progress = ByteProgress::new(&cx.out, &format!("writing {output}"), None, false);
    let mut reader = ProgressReader { inner: response, progress };
    let failed = |error: &std::io::Error| Failure::new(format!("cannot write {output:?}")).because(error);
    std::io::copy(&mut reader, &mut staged.file).map_err(|error| failed(&error))?;
    staged.finish().map_err(|error| failed(&error))?;
    Ok(0)
}

/// A file under a temporary name beside its place; gone when dropped unfinished. Devices and pipes are written directly.
struct Staged {
    file: File,
    from: Option<PathBuf>,
    to: PathBuf,
}

impl Staged {
    fn create(to: &Path) -> Outcome<Self> {
        let failed = |error: &std::io::Error| {
            Failure::new(format!("cannot create {:?}", to.display().to_string())).because(error)
        };
        let is_special = fs::metadata(to).is_ok_and(|metadata| !metadata.is_file());
        if is_special {
            let file = OpenOptions::new().write(true).open(to).map_err(|error| failed(&error))?;
            return Ok(Self { file, from: None, to: to.to_owned() });
        }
        let mut name = std::ffi::OsString::from(".");
        name.push(
            to.file_name().ok_or_else(|| Failure::new(format!("{:?} is not a file name", to.display().to_string())))?,
        );
        name.push(format!(".berth-{}", std::process::id()));
        let from = to.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&from).map_err(|error| failed(&error))?;
        Ok(Self { file, from: Some(from), to: to.to_owned() })
    }

    fn finish(mut self) -> std::io::Result<()> {
        self.file.flush()?;
        match self.from.take() {
            Some(from) => fs::rename(from, &self.to),
            None => Ok(()),
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(from) = &self.from {
            // The failure that brought us here is the one to report.
            drop(fs::remove_file(from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("a.tar");
        drop(Staged::create(&to).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut staged = Staged::create(&to).unwrap();
        staged.file.write_all(b"x").unwrap();
        assert!(!to.exists());
        staged.finish().unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"x");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(Staged::create(&dir.path().join("none/a.tar")).is_err());
        assert!(Staged::create(Path::new("/dev/null")).unwrap().from.is_none());
    }
}
