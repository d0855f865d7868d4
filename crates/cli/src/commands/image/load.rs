//! `berth load`.

use std::fs::File;
use std::io::{self, Read};

use clap::Parser;

use crate::client::{Payload, Query};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{ByteProgress, ProgressReader, follow_progress};

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    berth load -i busybox.tar\n  \
    zcat busybox.tar.gz | berth load\n\n\
    docker-archive and OCI archives, plain, gzip or zstd.")]
pub(crate) struct Arguments {
    /// Read from a file instead of stdin
    #[arg(short, long, value_name = "FILE")]
    input: Option<String>,
    /// Platform, os/arch
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    crate::commands::container::create::check_platform(arguments.platform.as_deref())?;
    let (source, total, name) = open(arguments.input.as_deref(), "load")?;
    let path = Query::new("/images/load").with("quiet", if arguments.quiet { "1" } else { "0" }).build();
    let progress = ByteProgress::new(&cx.out, &format!("loading {name}"), total, arguments.quiet);
    let mut source = ProgressReader { inner: source, progress };
    let response = cx.client.stream("POST", &path, Payload::Stream(&mut source, "application/x-tar"))?;
    drop(source);
    follow_progress(response, &mut cx.out, arguments.quiet, |out, message| match message["stream"].as_str() {
        Some(text) => {
            out.write(text.as_bytes())?;
            out.flush()
        }
        None => Ok(()),
    })?;
    Ok(0)
}

/// The archive to send, its size when it is a file, and its name for people.
pub(super) fn open(path: Option<&str>, verb: &str) -> Outcome<(Box<dyn Read>, Option<u64>, String)> {
    let Some(path) = path.filter(|path| *path != "-") else {
        if rustix::termios::isatty(rustix::stdio::stdin()) {
            return Err(Failure::new(format!("nothing to {verb}: stdin is a terminal"))
                .hint(format!("redirect it, or name a file: berth {verb} -i FILE")));
        }
        return Ok((Box::new(io::stdin()), None, "stdin".to_owned()));
    };
    let failed = |error: &io::Error| Failure::new(format!("cannot read {path:?}")).because(error);
    let file = File::open(path).map_err(|error| failed(&error))?;
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    if metadata.is_dir() {
        return Err(Failure::new(format!("cannot read {path:?}: it is a directory"))
            .hint(format!("pack it: tar -C {path} -c . | berth {verb}")));
    }
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len()), path.to_owned()))
}
