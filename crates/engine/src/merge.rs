//! The image's config merged under what the client asked (pure). The client wins; lists follow Docker's rules.

use berth_oci::image::ImageConfiguration;

use crate::config::ContainerConfig;
use crate::error::{EngineError, Result};

/// `PATH` of a container whose image and client name none.
pub(crate) const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Merges and checks that there is something to run.
///
/// # Errors
/// `InvalidArgument` when neither image nor client gives a command.
pub(crate) fn merge(mut config: ContainerConfig, image: &ImageConfiguration) -> Result<ContainerConfig> {
    if let Some(base) = image.config() {
        if config.user.is_empty() {
            config.user = base.user().clone().unwrap_or_default();
        }
        if config.working_dir.is_empty() {
            config.working_dir = base.working_dir().clone().unwrap_or_default();
        }
        if config.stop_signal.is_empty() {
            config.stop_signal = base.stop_signal().clone().unwrap_or_default();
        }
        merge_command(&mut config, base);
        merge_env(&mut config.env, base.env().as_deref().unwrap_or_default());
        for (key, value) in base.labels().iter().flatten() {
            config.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        add_missing(&mut config.exposed_ports, base.exposed_ports().as_deref().unwrap_or_default());
        add_missing(&mut config.volumes, base.volumes().as_deref().unwrap_or_default());
    }
    let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(|l| l.iter().all(String::is_empty));
    if is_empty(&config.cmd) && is_empty(&config.entrypoint) {
        return Err(EngineError::invalid("no command specified: neither the image nor you name a program to run")
            .with_hint("give one after the image: berth run IMAGE COMMAND"));
    }
    Ok(config)
}

/// A client's entrypoint drops the image's command; an empty one (`--entrypoint ""`) drops the image's entrypoint.
fn merge_command(config: &mut ContainerConfig, base: &berth_oci::image::Config) {
    match &config.entrypoint {
        None => {
            config.entrypoint.clone_from(base.entrypoint());
            if config.cmd.is_none() {
                config.cmd.clone_from(base.cmd());
            }
        }
        Some(entrypoint) if entrypoint.iter().all(String::is_empty) => {
            config.entrypoint = None;
            if config.cmd.is_none() {
                config.cmd.clone_from(base.cmd());
            }
        }
        Some(_) => {}
    }
}

fn key(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(key, _)| key)
}

/// The image's variables first, each replaced by the client's of the same name; a client's `NAME` without `=` removes it.
fn merge_env(env: &mut Vec<String>, base: &[String]) {
    let asked = std::mem::take(env);
    for variable in base.iter().filter(|v| v.contains('=')) {
        if !asked.iter().any(|a| key(a) == key(variable)) {
            env.push(variable.clone());
        }
    }
    env.extend(asked.into_iter().filter(|v| v.contains('=')));
}

fn add_missing(list: &mut Vec<String>, base: &[String]) {
    for item in base {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(json: &str) -> ImageConfiguration {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{json}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn strings(items: &[&str]) -> Option<Vec<String>> {
        Some(items.iter().map(|s| (*s).to_owned()).collect())
    }

    /// (image entrypoint, image cmd, asked entrypoint, asked cmd, merged argv) as Docker decides them.
    #[test]
    fn command_table() {
        let base = image(r#"{"Entrypoint":["/entry"],"Cmd":["a","b"]}"#);
        let cases = [
            (None, None, vec!["/entry", "a", "b"]),
            (None, strings(&["x"]), vec!["/entry", "x"]),
            (strings(&["/mine"]), None, vec!["/mine"]),
            (strings(&["/mine"]), strings(&["x"]), vec!["/mine", "x"]),
            (strings(&[""]), None, vec!["a", "b"]),
            (strings(&[]), strings(&["x"]), vec!["x"]),
        ];
        for (entrypoint, cmd, expect) in cases {
            let asked = ContainerConfig { entrypoint, cmd, ..ContainerConfig::default() };
            let merged = merge(asked, &base).unwrap();
            let argv: Vec<String> =
                merged.entrypoint.into_iter().flatten().chain(merged.cmd.into_iter().flatten()).collect();
            assert_eq!(argv, expect);
        }
    }

    #[test]
    fn env_labels_ports_user() {
        let base = image(
            r#"{"User":"app","WorkingDir":"/srv","Env":["PATH=/bin","A=1","B=2"],"Labels":{"l":"image","k":"image"},
                "ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGQUIT"}"#,
        );
        let asked = ContainerConfig {
            env: vec!["A=9".into(), "B".into(), "C=3".into()],
            labels: [("k".to_owned(), "mine".to_owned())].into(),
            cmd: strings(&["x"]),
            exposed_ports: vec!["80/tcp".into(), "81/udp".into()],
            ..ContainerConfig::default()
        };
        let merged = merge(asked, &base).unwrap();
        assert_eq!(merged.env, ["PATH=/bin", "A=9", "C=3"]);
        assert_eq!(merged.labels["k"], "mine");
        assert_eq!(merged.labels["l"], "image");
        assert_eq!(merged.exposed_ports, ["80/tcp", "81/udp"]);
        assert_eq!(
            (merged.user.as_str(), merged.working_dir.as_str(), merged.stop_signal.as_str()),
            ("app", "/srv", "SIGQUIT")
        );
    }

    #[test]
    fn nothing_to_run_is_refused() {
        let error = merge(ContainerConfig::default(), &image("{}")).unwrap_err();
        assert!(error.message.starts_with("no command specified"), "{error}");
    }
}
