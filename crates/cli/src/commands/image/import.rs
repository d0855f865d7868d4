//! `berth import`.

use clap::Parser;

use super::load::open;
use crate::client::{Payload, Query};
use crate::commands::container::commit::repository_and_tag;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{ByteProgress, ProgressReader, follow_progress};

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    berth import rootfs.tar.gz base:1\n  \
    tar -C rootfs -c . | berth import -c 'CMD [\"/bin/sh\"]' - base:1")]
pub(crate) struct Arguments {
    /// Dockerfile instruction to apply (CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, WORKDIR, ...)
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Message
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Platform, os/arch
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The archive, or - for stdin
    #[arg(value_name = "FILE|-")]
    file: String,
    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    crate::commands::container::create::check_platform(arguments.platform.as_deref())?;
    if arguments.file.starts_with("http://") || arguments.file.starts_with("https://") {
        return Err(Failure::not_yet(format!("import from a URL: {}", arguments.file)).hint("download it first"));
    }
    let mut path = Query::new("/images/create").with("fromSrc", "-");
    if let Some(name) = &arguments.reference {
        let (repository, tag) = repository_and_tag(name)?;
        path = path.with("repo", &repository).with("tag", &tag);
    }
    path = path.maybe("message", arguments.message.as_deref());
    for change in &arguments.change {
        path = path.with("changes", change);
    }
    let (source, total, name) = open(Some(&arguments.file), "import")?;
    let progress = ByteProgress::new(&cx.out, &format!("importing {name}"), total, false);
    let mut source = ProgressReader { inner: source, progress };
    let response = cx.client.stream("POST", &path.build(), Payload::Stream(&mut source, "application/x-tar"))?;
    drop(source);
    follow_progress(response, &mut cx.out, false, |out, message| {
        // A message without an id is the result: the image's id.
        match (message["id"].as_str().unwrap_or_default(), message["status"].as_str()) {
            ("", Some(id)) => out.line(id),
            _ => Ok(()),
        }
    })?;
    Ok(0)
}
