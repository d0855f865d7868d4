//! `berth port`.

use clap::Parser;
use serde_json::Value;

use crate::commands::objects::{container_path, text};
use crate::context::Context;
use crate::failure::{Failure, Outcome};

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  berth port web\n  berth port web 80/tcp")]
pub(crate) struct Arguments {
    /// Name or id
    container: String,
    /// Only this port of the container
    #[arg(value_name = "PRIVATE_PORT[/PROTOCOL]")]
    port: Option<String>,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let container = cx.client.get(&container_path(&arguments.container, "/json")?)?;
    let mut ports: Vec<(&String, &Value)> =
        container["NetworkSettings"]["Ports"].as_object().into_iter().flatten().filter(|(_, b)| b.is_array()).collect();
    ports.sort_by_key(|(port, _)| (number(port), (*port).clone()));
    let Some(wanted) = &arguments.port else {
        for (port, bindings) in ports {
            for address in addresses(bindings) {
                cx.out.line(format!("{port} -> {address}"))?;
            }
        }
        return Ok(0);
    };
    let key = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
    let bindings = ports.iter().find(|(port, _)| **port == key).map(|(_, bindings)| *bindings);
    let bindings = bindings
        .ok_or_else(|| Failure::new(format!("port {key} of container {:?} is not published", arguments.container)))?;
    for address in addresses(bindings) {
        cx.out.line(address)?;
    }
    Ok(0)
}

fn number(port: &str) -> u32 {
    port.split('/').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn addresses(bindings: &Value) -> impl Iterator<Item = String> {
    bindings.as_array().into_iter().flatten().map(|binding| {
        let ip = text(binding, "HostIp");
        let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        format!("{ip}:{}", text(binding, "HostPort"))
    })
}
