//! `berth start`.

use clap::Parser;

use super::attached::Attached;
use crate::commands::objects::{container_path, text};
use crate::context::Context;
use crate::failure::{Failure, Outcome, for_each};
use crate::output::Output;
use crate::request::Streams;
use crate::session::DetachKeys;
use crate::timeline::Timeline;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth start web\n  berth start -ai shell")]
pub(crate) struct Arguments {
    /// Attach stdout and stderr, forward signals, take over the exit code
    #[arg(short, long)]
    attach: bool,
    /// Attach stdin
    #[arg(short, long)]
    interactive: bool,
    /// Key sequence that detaches (default ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Not supported yet
    #[arg(long, value_name = "NAME", hide = true)]
    checkpoint: Option<String>,
    /// Not supported yet
    #[arg(long, value_name = "DIR", hide = true)]
    checkpoint_dir: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    if arguments.checkpoint.is_some() || arguments.checkpoint_dir.is_some() {
        return Err(Failure::not_yet("--checkpoint: checkpoints are not supported"));
    }
    let detach_keys = DetachKeys::parse(arguments.detach_keys.as_deref())?;
    if arguments.attach || arguments.interactive {
        let [name] = arguments.containers.as_slice() else {
            return Err(Failure::new("only one container can be started attached"));
        };
        return start_attached(cx, name, arguments.interactive, detach_keys);
    }
    for_each(&arguments.containers, Output::report, |name| {
        cx.client.post(&container_path(name, "/start")?, None)?;
        cx.out.line(name)?;
        cx.out.flush()
    })
}

fn start_attached(cx: &mut Context, name: &str, interactive: bool, detach_keys: DetachKeys) -> Outcome {
    let container = cx.client.get(&container_path(name, "/json")?)?;
    let config = &container["Config"];
    let attached = Attached {
        id: text(&container, "Id").to_owned(),
        tty: config["Tty"].as_bool().unwrap_or(false),
        streams: Streams {
            stdin: interactive && config["OpenStdin"].as_bool().unwrap_or(false),
            stdout: true,
            stderr: true,
        },
        is_removed: container["HostConfig"]["AutoRemove"].as_bool().unwrap_or(false),
        sig_proxy: true,
        detach_keys,
    };
    attached.run(cx, &mut Timeline::begin("start"))
}
