//! `berth exec`.

use clap::Parser;
use serde_json::json;

use super::trace::exec_trace;
use crate::commands::objects::{container_path, text};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::request::{Pairs, key_values};
use crate::session::{DetachKeys, Proxy, Pump, RawTerminal, SignalThread, StreamEnd, Subject, resize, window_size};
use crate::timeline::{Form, Timeline};

#[derive(Debug, Parser)]
#[command(
    override_usage = "berth exec [OPTIONS] CONTAINER COMMAND [ARG...]",
    after_help = "Examples:\n  berth exec -it web sh\n  berth exec -u nobody -w /tmp web id\n  berth exec --trace web true"
)]
pub(crate) struct Arguments {
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Key sequence that detaches (default ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Set an environment variable (KEY=VALUE, or KEY from here)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Keep stdin open
    #[arg(short, long)]
    interactive: bool,
    /// All capabilities
    #[arg(long)]
    privileged: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// User: name or uid[:group or gid]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Print the timeline on stderr: text, json, chrome or otlp; or send it to :FILE or otlp:URL
    #[arg(long, value_name = "FORM[:TARGET]", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    trace: Option<String>,
    /// The container, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, num_args = 2.., value_names = ["CONTAINER", "COMMAND"])]
    words: Vec<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let mut timeline = Timeline::begin("exec");
    let form = arguments.trace.as_deref().map(|form| Form::parse("--trace", form)).transpose()?;
    let (container, command) = arguments.words.split_first().ok_or_else(|| Failure::new("no container is named"))?;
    let keys = DetachKeys::parse(arguments.detach_keys.as_deref())?;
    let stdin = arguments.interactive && !arguments.detach;
    if arguments.tty && stdin && !rustix::termios::isatty(rustix::stdio::stdin()) {
        return Err(Failure::new("-t needs a terminal on stdin, and it is none").hint("leave out -t, or leave out -i"));
    }
    let env = key_values(Pairs::Environment(&cx.environment), &arguments.env_file, &arguments.env)?;
    let mut body = json!({
        "Cmd": command, "Env": env, "Tty": arguments.tty, "Privileged": arguments.privileged,
        "User": arguments.user.as_deref().unwrap_or_default(),
        "WorkingDir": arguments.workdir.as_deref().unwrap_or_default(),
        "AttachStdin": stdin, "AttachStdout": !arguments.detach, "AttachStderr": !arguments.detach,
    });
    if let Some(keys) = keys.notation() {
        body["DetachKeys"] = keys.into();
    }
    if form.is_some() {
        body["BerthTrace"] = true.into();
    }
    timeline.step("request.parse", "");
    let created = cx.client.post(&container_path(container, "/exec")?, Some(body))?;
    let id = text(&created, "Id").to_owned();
    timeline.step("exec.create", &id);
    if arguments.detach {
        let body = json!({"Detach": true, "Tty": arguments.tty});
        cx.client.post(&format!("/exec/{id}/start"), Some(body))?;
        timeline.step("exec.start", &id);
        show(cx, timeline, &id, form.as_ref())?;
        return Ok(0);
    }
    let terminal = if arguments.tty && stdin { RawTerminal::enter()? } else { None };
    let outcome = session(cx, &id, Pump { stdin, tty: arguments.tty, detach_keys: keys }, &mut timeline);
    drop(terminal);
    show(cx, timeline, &id, form.as_ref())?;
    outcome
}

/// Also of a process that could not be started: the steps until then are the answer.
fn show(cx: &mut Context, mut timeline: Timeline, id: &str, form: Option<&Form>) -> Outcome<()> {
    let Some(form) = form else { return Ok(()) };
    timeline.fetch(cx, &exec_trace(id));
    timeline.show(cx, form)
}

/// Streams the process and returns its exit code; 0 when the person detached.
fn session(cx: &mut Context, id: &str, pump: Pump, timeline: &mut Timeline) -> Outcome {
    cx.out.flush()?;
    let tty = pump.tty;
    let subject = Subject::Exec(id.to_owned());
    let signals = SignalThread::start(cx.client.address(), subject.clone(), Proxy::End, tty)?;
    let mut body = json!({"Detach": false, "Tty": tty});
    if let Some((rows, columns)) = window_size().filter(|_| tty) {
        body["ConsoleSize"] = json!([rows, columns]);
    }
    let stream = cx.client.hijack(&format!("/exec/{id}/start"), Some(&body))?;
    signals.guard(stream.writer()?);
    timeline.step("exec.start", id);
    if tty {
        resize(&mut cx.client, &subject);
    }
    let end = pump.run(stream, &mut cx.out)?;
    if signals.was_ended() {
        return Err(Failure { exit_code: 130, ..Failure::new("the session was ended by a signal") });
    }
    timeline.step("exec.run", id);
    let state = cx.client.get(&format!("/exec/{id}/json"))?;
    timeline.step("exec.inspect", id);
    if state["Running"].as_bool().unwrap_or(false) {
        if end == StreamEnd::MaybeDetached {
            return Ok(0);
        }
        return Err(Failure::new("the daemon closed the stream of a process that still runs"));
    }
    let code =
        state["ExitCode"].as_i64().ok_or_else(|| Failure::new("the daemon knows no exit code of the process"))?;
    Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}
