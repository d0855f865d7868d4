//! `berth cp`: files between a container and the host, by tar over the API.
//!
//! What ends where follows docker cp. With the destination D and the source S:
//! - D is a directory: S lands inside it (its contents, when S ends in `/.`);
//! - D is a file: S must be a file and takes its place; D is missing: S takes D's name, and a file must not be given `D/`.

mod from_container;
mod local;
mod to_container;

use clap::Parser;
use serde_json::Value;

use crate::client::{Query, Response};
use crate::commands::objects::container_path;
use crate::context::Context;
use crate::failure::{Failure, Outcome};

#[derive(Debug, Parser)]
#[command(
    override_usage = "berth cp [OPTIONS] CONTAINER:PATH PATH|-\n       berth cp [OPTIONS] PATH|- CONTAINER:PATH",
    after_help = "Examples:\n  \
        berth cp web:/etc/hosts .\n  \
        berth cp ./site/. web:/srv/www\n  \
        berth cp web:/var/log - | tar t\n\n\
        - as the source reads a tar archive from stdin; as the destination it writes one to stdout."
)]
pub(crate) struct Arguments {
    /// Keep the owner and group of files
    #[arg(short, long)]
    archive: bool,
    /// Follow a symbolic link in the source path
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// From here
    source: String,
    /// To there
    destination: String,
}

/// One side of the copy.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Container(&'a str, &'a str),
    Local(&'a str),
    Stream,
}

/// `name:path` is in a container unless a `/` or `.` comes first.
fn place(text: &str) -> Place<'_> {
    if text == "-" {
        return Place::Stream;
    }
    match text.split_once(':') {
        Some((name, path)) if !text.starts_with(['/', '.']) && !name.contains('/') => Place::Container(name, path),
        _ => Place::Local(text),
    }
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let wrong = |why: &str| Err(Failure::new(why).hint("one side is CONTAINER:PATH, the other a path here or -"));
    match (place(&arguments.source), place(&arguments.destination)) {
        (Place::Container(..), Place::Container(..)) => Err(Failure::not_yet("cp from container to container")
            .hint("copy to the host first, or pipe: cp a:/x - | cp - b:/y")),
        (Place::Container(name, ""), _) | (_, Place::Container(name, "")) => {
            wrong(&format!("no path is named in {name}:"))
        }
        (Place::Container(name, path), to) => from_container::copy(cx, &arguments, name, path, &to),
        (from, Place::Container(name, path)) => to_container::copy(cx, &arguments, &from, name, path),
        _ => wrong("neither side is in a container"),
    }
}

/// What the daemon says of a path: `X-Docker-Container-Path-Stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PathStat {
    name: String,
    is_directory: bool,
    is_link: bool,
    link_target: String,
}

/// Bits of Go's os.FileMode.
const MODE_DIRECTORY: u64 = 1 << 31;
const MODE_LINK: u64 = 1 << 27;

fn path_stat(response: &Response) -> Outcome<PathStat> {
    use base64::Engine as _;
    let lost = || Failure::new("the daemon's answer has no valid path stat");
    let header = response.header("x-docker-container-path-stat").ok_or_else(lost)?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(header).map_err(|error| lost().because(&error))?;
    let stat: Value = serde_json::from_slice(&bytes).map_err(|error| lost().because(&error))?;
    let mode = stat["mode"].as_u64().ok_or_else(lost)?;
    Ok(PathStat {
        name: stat["name"].as_str().unwrap_or_default().to_owned(),
        is_directory: mode & MODE_DIRECTORY != 0,
        is_link: mode & MODE_LINK != 0,
        link_target: stat["linkTarget"].as_str().unwrap_or_default().to_owned(),
    })
}

fn archive_path(container: &str, path: &str) -> Outcome<Query> {
    Ok(Query::new(container_path(container, "/archive")?).with("path", path))
}

/// Stat of a path in the container; `None` when it does not exist.
fn stat(cx: &mut Context, container: &str, path: &str) -> Outcome<Option<PathStat>> {
    match cx.client.head(&archive_path(container, path)?.build()) {
        Ok(response) => path_stat(&response).map(Some),
        Err(failure) if failure.status == 404 => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Where a link in the container points: absolute, or beside it.
fn link_target(path: &str, target: &str) -> String {
    if target.starts_with('/') {
        return target.to_owned();
    }
    let (directory, _) = split_path(path);
    format!("{}/{target}", directory.trim_end_matches('/'))
}

/// Directory and last name, by text. A path that ends in `/.` has the name `.`.
fn split_path(path: &str) -> (String, String) {
    let is_current = path == "." || path.ends_with("/.");
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." && parts.last().is_some_and(|last| *last != "..") {
            parts.pop();
        } else if !(part == ".." && path.starts_with('/')) {
            parts.push(part);
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    if is_current {
        return (format!("{root}{}", parts.join("/")), ".".to_owned());
    }
    let name = parts.pop().unwrap_or(if root.is_empty() { "." } else { "/" }).to_owned();
    let directory = format!("{root}{}", parts.join("/"));
    (if directory.is_empty() { ".".to_owned() } else { directory }, name)
}

/// The path says that it is a directory.
fn asserts_directory(path: &str) -> bool {
    path.ends_with('/') || path == "." || path.ends_with("/.")
}

/// How the archive of the source lands at the destination.
#[derive(Debug, PartialEq, Eq)]
enum Landing {
    /// Unpacked into this directory, names as they are.
    Inside(String),
    /// Unpacked into the directory under the new name.
    Renamed { directory: String, name: String },
}

/// The destination, as far as it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Directory,
    File,
    Nothing,
}

fn landing(source_is_directory: bool, destination: &str, existing: Existing) -> Outcome<Landing> {
    if existing == Existing::Directory {
        return Ok(Landing::Inside(destination.to_owned()));
    }
    if existing == Existing::File && source_is_directory {
        return Err(Failure::new(format!("cannot copy a directory onto the file {destination:?}")));
    }
    if !source_is_directory && asserts_directory(destination) {
        return Err(Failure::new(format!("the destination directory {destination:?} does not exist")));
    }
    let (directory, name) = split_path(destination);
    Ok(Landing::Renamed { directory, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!(place("web:/a"), Place::Container("web", "/a"));
        assert_eq!(place("web:a:b"), Place::Container("web", "a:b"));
        assert_eq!(place("./a:b"), Place::Local("./a:b"));
        assert_eq!(place("/a:b"), Place::Local("/a:b"));
        assert_eq!(place("dir/a:b"), Place::Local("dir/a:b"));
        assert_eq!(place("-"), Place::Stream);
    }

    #[test]
    fn splitting() {
        let check = |path: &str, directory: &str, name: &str| {
            assert_eq!(split_path(path), (directory.to_owned(), name.to_owned()), "{path}");
        };
        check("/a/b", "/a", "b");
        check("/a/b/", "/a", "b");
        check("/a/b/.", "/a/b", ".");
        check("/", "/", "/");
        check("a", ".", "a");
        check(".", "", ".");
        check("/a/../b", "/", "b");
        check("../a", "..", "a");
        check("/../a", "/", "a");
    }

    #[test]
    fn landings() {
        let renamed =
            |directory: &str, name: &str| Landing::Renamed { directory: directory.to_owned(), name: name.to_owned() };
        assert_eq!(landing(true, "/d", Existing::Directory).unwrap(), Landing::Inside("/d".to_owned()));
        assert_eq!(landing(false, "/d/f", Existing::File).unwrap(), renamed("/d", "f"));
        assert_eq!(landing(false, "/d/f", Existing::Nothing).unwrap(), renamed("/d", "f"));
        assert_eq!(landing(true, "/d/n/", Existing::Nothing).unwrap(), renamed("/d", "n"));
        assert_eq!(
            landing(true, "/d/f", Existing::File).unwrap_err().message,
            "cannot copy a directory onto the file \"/d/f\""
        );
        assert_eq!(
            landing(false, "/d/n/", Existing::Nothing).unwrap_err().message,
            "the destination directory \"/d/n/\" does not exist"
        );
    }

    #[test]
    fn links() {
        assert_eq!(link_target("/a/b", "c/d"), "/a/c/d");
        assert_eq!(link_target("/b", "c"), "/c");
        assert_eq!(link_target("/a/b", "/x"), "/x");
    }
}
