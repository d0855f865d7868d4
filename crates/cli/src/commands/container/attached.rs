//! A container's start with its streams on ours: attach and wait first, then start, so that nothing is missed.

use serde_json::Value;

use crate::client::{JsonLines, Query, Response};
use crate::commands::objects::{container_path, text};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::request::Streams;
use crate::session::{DetachKeys, Proxy, Pump, RawTerminal, SignalThread, StreamEnd, Subject, resize};
use crate::timeline::Timeline;

/// The container to start, and how it is attached.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) id: String,
    pub(super) tty: bool,
    pub(super) streams: Streams,
    /// `--rm`.
    pub(super) is_removed: bool,
    pub(super) sig_proxy: bool,
    pub(super) detach_keys: DetachKeys,
}

impl Attached {
    /// Starts it and returns its exit code; 0 when the person detached.
    pub(super) fn run(self, cx: &mut Context, timeline: &mut Timeline) -> Outcome {
        cx.out.flush()?;
        let terminal = if self.tty && self.streams.stdin { RawTerminal::enter()? } else { None };
        let outcome = self.session(cx, timeline);
        drop(terminal);
        outcome
    }

    fn session(self, cx: &mut Context, timeline: &mut Timeline) -> Outcome {
        let id = self.id.clone();
        let subject = Subject::Container(id.clone());
        let proxy = if self.sig_proxy { Proxy::Forward } else { Proxy::End };
        let signals = SignalThread::start(cx.client.address(), subject.clone(), proxy, self.tty)?;
        // Both requests are under way before the first answer is awaited.
        let condition = if self.is_removed { "removed" } else { "next-exit" };
        let waiting = cx.client.begin("POST", &wait_path(&id, condition)?)?;
        let stream = cx.client.hijack(&attach_path(&id, self.streams, self.detach_keys.notation())?, None)?;
        let waiting = cx.client.finish(waiting)?;
        signals.guard(stream.writer()?);
        signals.guard(waiting.socket()?);
        timeline.step("container.attach", &id);
        if let Err(failure) = cx.client.post(&container_path(&id, "/start")?, None) {
            if self.is_removed {
                remove_quietly(cx, &id);
            }
            return Err(failure);
        }
        timeline.step("container.start", &id);
        if self.tty {
            resize(&mut cx.client, &subject);
        }
        let pump = Pump { stdin: self.streams.stdin, tty: self.tty, detach_keys: self.detach_keys };
        let end = pump.run(stream, &mut cx.out)?;
        if end == StreamEnd::MaybeDetached && is_running(cx, &id) {
            return Ok(0);
        }
        if signals.was_ended() {
            return Err(ended_by_signal(&id));
        }
        let code =
            exit_code(waiting).map_err(|failure| if signals.was_ended() { ended_by_signal(&id) } else { failure })?;
        timeline.step("container.run", &id);
        if !self.streams.stdout && !self.streams.stderr {
            cx.out.line(&id)?;
        }
        Ok(code)
    }
}

fn ended_by_signal(id: &str) -> Failure {
    let failure = Failure::new("the session was ended by a signal").hint(format!("the container may still run: {id}"));
    Failure { exit_code: 130, ..failure }
}

pub(super) fn wait_path(id: &str, condition: &str) -> Outcome<String> {
    Ok(Query::new(container_path(id, "/wait")?).with("condition", condition).build())
}

pub(super) fn attach_path(id: &str, streams: Streams, detach_keys: Option<&str>) -> Outcome<String> {
    Ok(Query::new(container_path(id, "/attach")?)
        .with("stream", "1")
        .flag("stdin", streams.stdin)
        .flag("stdout", streams.stdout)
        .flag("stderr", streams.stderr)
        .maybe("detachKeys", detach_keys)
        .build())
}

/// The code from the answer to `wait`, read when it comes.
pub(super) fn exit_code(waiting: Response) -> Outcome {
    let lost = || Failure::new("the daemon ended the wait without an exit code");
    let answer: Value = JsonLines::new(waiting).next().ok_or_else(lost)??;
    let code = answer["StatusCode"].as_i64().ok_or_else(lost)?;
    if let Some(message) = answer["Error"]["Message"].as_str().filter(|message| !message.is_empty()) {
        return Err(Failure::new(message));
    }
    // As a shell would see it.
    Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

pub(super) fn is_running(cx: &mut Context, id: &str) -> bool {
    let Ok(path) = container_path(id, "/json") else { return false };
    cx.client.get(&path).is_ok_and(|container| matches!(text(&container["State"], "Status"), "running" | "paused"))
}

/// Removes a `--rm` container that did not start; the start's failure is the one to report.
pub(super) fn remove_quietly(cx: &mut Context, id: &str) {
    if let Ok(path) = container_path(id, "?force=1&v=1") {
        drop(cx.client.delete(&path));
    }
}
