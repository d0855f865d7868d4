//! Host to container. The daemon resolves every path inside the container's root.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use berth_types::ByteCount;

use super::local::{LocalSource, PIECE_BYTES};
use super::{Arguments, Existing, Landing, PathStat, Place, archive_path, landing, link_target, stat};
use crate::client::Payload;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{ByteProgress, ProgressReader};

pub(super) fn copy(cx: &mut Context, arguments: &Arguments, from: &Place<'_>, container: &str, path: &str) -> Outcome {
    let (path, found) = resolved(cx, container, path)?;
    let existing = match &found {
        Some(found) if found.is_directory => Existing::Directory,
        Some(_) => Existing::File,
        None => Existing::Nothing,
    };
    let text = match from {
        Place::Local(text) => *text,
        Place::Stream => {
            if existing != Existing::Directory {
                return Err(Failure::new(format!("the destination \"{container}:{path}\" must be a directory")));
            }
            if rustix::termios::isatty(rustix::stdio::stdin()) {
                return Err(
                    Failure::new("not reading a tar archive from a terminal").hint("redirect stdin, or name a path")
                );
            }
            upload(cx, arguments, container, &path, &mut io::stdin().lock())?;
            return Ok(0);
        }
        Place::Container(..) => return Err(Failure::new("both sides are in containers")),
    };
    let source = LocalSource::open(text, arguments.follow_link)?;
    let (directory, name) = match landing(source.is_directory, &path, existing)? {
        Landing::Inside(directory) => (directory, source.name.clone()),
        Landing::Renamed { directory, name } => (directory, name),
    };
    let is_quiet = arguments.quiet || !cx.out.is_error_terminal;
    let moved = send(cx, arguments, container, &directory, (source, name), is_quiet)?;
    if !is_quiet {
        cx.out.notice(format!("Successfully copied {} to {container}:{path}", ByteCount(moved)));
    }
    Ok(0)
}

/// The destination with a link at its end followed, once, as docker cp does.
fn resolved(cx: &mut Context, container: &str, path: &str) -> Outcome<(String, Option<PathStat>)> {
    // A container that does not exist answers 404 as well; the upload then says so.
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    match stat(cx, container, &path)? {
        Some(found) if found.is_link => {
            let target = link_target(&path, &found.link_target);
            let found = stat(cx, container, &target)?;
            Ok((target, found))
        }
        found => Ok((path, found)),
    }
}

/// One thread writes the archive into a socket pair, this one sends what comes out of it.
fn send(
    cx: &mut Context,
    arguments: &Arguments,
    container: &str,
    directory: &str,
    (source, name): (LocalSource, String),
    is_quiet: bool,
) -> Outcome<u64> {
    let (reader, writer) = UnixStream::pair()?;
    let keeps_owners = arguments.archive;
    let thread = std::thread::Builder::new().name("tar".to_owned()).spawn(move || {
        let mut writer = io::BufWriter::with_capacity(PIECE_BYTES, writer);
        source.write_tar(&name, keeps_owners, &mut writer).and_then(|()| writer.flush())
    })?;
    let progress = ByteProgress::new(&cx.out, "copying", None, is_quiet);
    let mut reader = ProgressReader { inner: reader, progress };
    let sent = upload(cx, arguments, container, directory, &mut reader);
    let moved = reader.progress.moved();
    drop(reader); // a writer that is still at work stops here
    let written = thread.join().map_err(|_| Failure::new("the thread that reads the source failed"))?;
    match (sent, written) {
        // The daemon's refusal explains a writer that was cut off.
        (Err(failure), _) => Err(failure),
        (Ok(()), Err(error)) => Err(Failure::new("cannot read the source").because(&error)),
        (Ok(()), Ok(())) => Ok(moved),
    }
}

fn upload(
    cx: &mut Context,
    arguments: &Arguments,
    container: &str,
    directory: &str,
    archive: &mut dyn Read,
) -> Outcome<()> {
    let path = archive_path(container, directory)?
        .with("noOverwriteDirNonDir", "true")
        .flag("copyUIDGID", arguments.archive)
        .build();
    cx.client.call_bytes("PUT", &path, Payload::Stream(archive, "application/x-tar")).map(drop)
}
