//! `berth logs`.

use std::io::Read;

use berth_types::Timestamp;
use clap::Parser;

use crate::client::{Payload, Query};
use crate::commands::objects::container_path;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::session::demultiplex;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth logs -f --tail 100 web\n  berth logs -t --since 10m --until 5m web")]
pub(crate) struct Arguments {
    /// Go on as new lines come
    #[arg(short, long)]
    follow: bool,
    /// From this time on (2026-11-23T15:04:05Z, a Unix time, or 10m ago)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// Put the time in front of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Put the log's extra attributes in front of each line
    #[arg(long)]
    details: bool,
    /// Name or id
    container: String,
}

/// A time of `--since` or `--until` as the API takes it: Unix seconds with a fraction.
pub(crate) fn api_time(flag: &str, text: Option<&str>) -> Outcome<Option<String>> {
    let Some(text) = text else { return Ok(None) };
    let time = Timestamp::parse_relative(text, Timestamp::now())
        .map_err(|error| Failure::new(format!("invalid {flag} {text:?}")).because(&error))?;
    Ok(Some(format!("{}.{:09}", time.unix_seconds(), time.0.rem_euclid(1_000_000_000))))
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let tail = match arguments.tail.as_str() {
        "all" => None,
        text if text.starts_with('-') => None,
        text => match text.parse::<u64>() {
            Ok(_) => Some(text),
            Err(error) => {
                return Err(Failure::new(format!("invalid --tail {text:?}")).because(&error).hint("a number, or all"));
            }
        },
    };
    let path = Query::new(container_path(&arguments.container, "/logs")?)
        .with("stdout", "1")
        .with("stderr", "1")
        .flag("follow", arguments.follow)
        .flag("timestamps", arguments.timestamps)
        .flag("details", arguments.details)
        .maybe("since", api_time("--since", arguments.since.as_deref())?.as_deref())
        .maybe("until", api_time("--until", arguments.until.as_deref())?.as_deref())
        .maybe("tail", tail)
        .build();
    let mut stream = cx.client.stream("GET", &path, Payload::Nothing)?;
    let is_multiplexed = match stream.header("content-type") {
        Some("application/vnd.docker.multiplexed-stream") => true,
        // A terminal's log is one raw stream; daemons before API 1.42 call both kinds so.
        _ => {
            !cx.client.get(&container_path(&arguments.container, "/json")?)?["Config"]["Tty"].as_bool().unwrap_or(false)
        }
    };
    if is_multiplexed {
        demultiplex(&mut stream, &mut cx.out)?;
        return Ok(0);
    }
    let mut buffer = vec![0; 32 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(0),
            Ok(length) => {
                cx.out.write(&buffer[..length])?;
                cx.out.flush()?;
            }
            Err(error) => return Err(Failure::new("lost the container's log").because(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(api_time("--since", Some("5.25")).unwrap().as_deref(), Some("5.250000000"));
        assert_eq!(api_time("--since", None).unwrap(), None);
        let failure = api_time("--since", Some("yesterday")).unwrap_err();
        assert_eq!(failure.message, "invalid --since \"yesterday\"");
    }
}
