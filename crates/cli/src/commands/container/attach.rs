//! `berth attach`.

use clap::Parser;

use super::attached::{attach_path, exit_code, is_running, wait_path};
use crate::commands::objects::{container_path, text};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::request::Streams;
use crate::session::{DetachKeys, Proxy, Pump, RawTerminal, SignalThread, StreamEnd, Subject, resize};

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth attach web\n  berth attach --no-stdin --detach-keys ctrl-a,d web")]
pub(crate) struct Arguments {
    /// Key sequence that detaches (default ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Do not attach stdin
    #[arg(long)]
    no_stdin: bool,
    /// Send signals on to the process (default true)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "true", action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true)]
    sig_proxy: bool,
    /// Name or id
    container: String,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let keys = DetachKeys::parse(arguments.detach_keys.as_deref())?;
    let container = cx.client.get(&container_path(&arguments.container, "/json")?)?;
    let refuse = |what: &str, hint: &str| {
        Err(Failure::new(format!("cannot attach to container {:?}: it is {what}", arguments.container)).hint(hint))
    };
    match text(&container["State"], "Status") {
        "running" => {}
        "paused" => return refuse("paused", "thaw it first with `berth unpause`"),
        "restarting" => return refuse("restarting", "try again when it runs"),
        _ => return refuse("not running", "start it with `berth start -a`"),
    }
    let config = &container["Config"];
    let tty = config["Tty"].as_bool().unwrap_or(false);
    let stdin = !arguments.no_stdin && config["OpenStdin"].as_bool().unwrap_or(false);
    let terminal = if tty && stdin { RawTerminal::enter()? } else { None };
    let proxy = if arguments.sig_proxy { Proxy::Forward } else { Proxy::End };
    let outcome = session(cx, text(&container, "Id"), proxy, Pump { stdin, tty, detach_keys: keys });
    drop(terminal);
    outcome
}

fn session(cx: &mut Context, id: &str, proxy: Proxy, pump: Pump) -> Outcome {
    cx.out.flush()?;
    let (tty, stdin) = (pump.tty, pump.stdin);
    let subject = Subject::Container(id.to_owned());
    let signals = SignalThread::start(cx.client.address(), subject.clone(), proxy, tty)?;
    let waiting = cx.client.begin("POST", &wait_path(id, "not-running")?)?;
    let streams = Streams { stdin, stdout: true, stderr: true };
    let stream = cx.client.hijack(&attach_path(id, streams, pump.detach_keys.notation())?, None)?;
    signals.guard(stream.writer()?);
    if tty {
        resize(&mut cx.client, &subject);
    }
    let end = pump.run(stream, &mut cx.out)?;
    if end == StreamEnd::MaybeDetached && is_running(cx, id) {
        return Ok(0);
    }
    if signals.was_ended() {
        return Err(Failure { exit_code: 130, ..Failure::new("the session was ended by a signal") });
    }
    let waiting = cx.client.finish(waiting)?;
    exit_code(waiting)
}
