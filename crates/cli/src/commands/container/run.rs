//! `berth run`: create, attach, wait, start, stream, exit code.

use clap::Parser;

use super::attached::{Attached, remove_quietly};
use super::{create, plan, trace};
use crate::commands::objects::container_path;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::request::ContainerOptions;
use crate::session::DetachKeys;
use crate::timeline::{Form, Timeline};

#[derive(Debug, Parser)]
#[command(
    override_usage = "berth run [OPTIONS] IMAGE [COMMAND] [ARG...]",
    after_help = "Examples:\n  \
        berth run --rm -it busybox sh\n  \
        berth run -d --name web -p 8080:80 -m 256m --restart on-failure:3 nginx\n  \
        berth run --rm --trace busybox true\n  \
        berth run --rm --trace=chrome:/tmp/run.json busybox true\n\n\
        The exit code is the container's own; 125: the engine failed; 126: the command cannot be executed; 127: it was not found."
)]
pub(crate) struct Arguments {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Key sequence that detaches (default ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Send signals on to the process (default true)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "true", action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    sig_proxy: bool,
    #[command(flatten)]
    options: ContainerOptions,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let options = &arguments.options;
    let mut timeline = Timeline::begin("run");
    let form = options.object.trace.as_deref().map(|form| Form::parse("--trace", form)).transpose()?;
    if arguments.detach && !options.process.attach.is_empty() {
        return Err(Failure::new("--detach and --attach exclude each other"));
    }
    let detach_keys = DetachKeys::parse(arguments.detach_keys.as_deref())?;
    let request = create::request(cx, options, arguments.detach)?;
    if let Some(form) = &options.object.plan {
        let planned = create::plan(cx, &request)?;
        return plan::print_plan(cx, &planned, form);
    }
    if options.process.tty && request.streams.stdin && !rustix::termios::isatty(rustix::stdio::stdin()) {
        return Err(Failure::new("-t needs a terminal on stdin, and it is none").hint("leave out -t, or leave out -i"));
    }
    timeline.step("request.parse", "");
    let id = create::create(cx, options, &request)?;
    timeline.step("container.create", &id);
    let attached = Attached {
        id: id.clone(),
        tty: options.process.tty,
        streams: request.streams,
        is_removed: options.object.rm,
        sig_proxy: arguments.sig_proxy,
        detach_keys,
    };
    let code = if request.streams.any() {
        attached.run(cx, &mut timeline)?
    } else {
        start_detached(cx, &attached, &mut timeline)?;
        cx.out.line(&id)?;
        cx.out.flush()?;
        0
    };
    if let Some(form) = &form {
        timeline.fetch(cx, &trace::container_trace(&id)?);
        timeline.show(cx, form)?;
    }
    Ok(code)
}

fn start_detached(cx: &mut Context, attached: &Attached, timeline: &mut Timeline) -> Outcome<()> {
    let started = cx.client.post(&container_path(&attached.id, "/start")?, None);
    if let Err(failure) = started {
        if attached.is_removed {
            remove_quietly(cx, &attached.id);
        }
        return Err(failure);
    }
    timeline.step("container.start", &attached.id);
    Ok(())
}
