//! Dockerfile instructions that change an image's config (`commit --change`, `import --change`). Pure: JSON in, JSON out.
//!
//! # Spec
//! Dockerfile reference; of its instructions those that only touch the config.

mod words;

use berth_types::Signal;
use serde_json::{Map, Value, json};

use crate::{ImageError, Result};

/// The image-spec `config` object with the changes applied in order.
///
/// # Errors
/// `InvalidArgument` naming the instruction and what is wrong with it.
pub(crate) fn apply(config: Value, changes: &[String]) -> Result<Value> {
    let object = match config {
        Value::Null => Map::new(),
        Value::Object(object) => object,
        _ => return Err(ImageError::Invalid { what: "image config", why: "it is not an object".to_owned() }),
    };
    let mut edit = Edit { object, is_cmd_set: false };
    for line in changes.iter().flat_map(|change| logical_lines(change)) {
        edit.line(&line).map_err(|why| ImageError::Change { instruction: line.chars().take(200).collect(), why })?;
    }
    Ok(Value::Object(edit.object))
}

/// Lines with `\` at their ends joined; comments and empty lines left out.
fn logical_lines(change: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in change.lines() {
        if line.trim_start().starts_with('#') || (open.is_empty() && line.trim().is_empty()) {
            continue;
        }
        match line.trim_end().strip_suffix('\\') {
            Some(part) => open.push_str(part),
            None => {
                open.push_str(line);
                lines.push(std::mem::take(&mut open).trim().to_owned());
            }
        }
    }
    if !open.trim().is_empty() {
        lines.push(open.trim().to_owned());
    }
    lines
}

type Outcome = std::result::Result<(), String>;

struct Edit {
    object: Map<String, Value>,
    is_cmd_set: bool,
}

impl Edit {
    fn line(&mut self, line: &str) -> Outcome {
        let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        if rest.is_empty() {
            return Err("it has no argument".to_owned());
        }
        match keyword.to_ascii_uppercase().as_str() {
            "CMD" => {
                self.is_cmd_set = true;
                self.command("Cmd", rest)
            }
            "ENTRYPOINT" => {
                // A command that came with the old entrypoint would become arguments of the new one.
                if !self.is_cmd_set {
                    self.object.remove("Cmd");
                }
                self.command("Entrypoint", rest)
            }
            "ENV" => self.env(rest),
            "EXPOSE" => self.expose(rest),
            "LABEL" => self.label(rest),
            "USER" => self.text("User", rest),
            "VOLUME" => self.volume(rest),
            "WORKDIR" => self.workdir(rest),
            "STOPSIGNAL" => self.stop_signal(rest),
            "ONBUILD" => self.on_build(rest),
            other => Err(format!(
                "{other} cannot be used in a change; CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR can"
            )),
        }
    }

    fn env_lines(&self) -> Vec<String> {
        let lines = self.object.get("Env").and_then(Value::as_array);
        lines.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn words(&self, rest: &str) -> std::result::Result<Vec<String>, String> {
        words::split(rest, &self.env_lines())
    }

    /// Exactly one word.
    fn single(&self, rest: &str) -> std::result::Result<String, String> {
        let mut words = self.words(rest)?;
        match (words.pop(), words.is_empty()) {
            (Some(word), true) if !word.is_empty() => Ok(word),
            _ => Err("it takes exactly one argument".to_owned()),
        }
    }

    fn object_at(&mut self, key: &str) -> &mut Map<String, Value> {
        let value = self.object.entry(key).or_insert_with(|| Value::Object(Map::new()));
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        value.as_object_mut().expect("made an object just above")
    }

    /// JSON form as it is, shell form through the image's shell.
    fn command(&mut self, key: &str, rest: &str) -> Outcome {
        let words = match json_form(rest) {
            Some(words) => words,
            None => {
                let shell = self.object.get("Shell").and_then(Value::as_array);
                let shell: Vec<String> =
                    shell.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
                let mut words = if shell.is_empty() { vec!["/bin/sh".to_owned(), "-c".to_owned()] } else { shell };
                words.push(rest.to_owned());
                words
            }
        };
        self.object.insert(key.to_owned(), json!(words));
        Ok(())
    }

    /// `k=v k2=v2 ...`, or the old form `k the rest`.
    fn pairs(&self, rest: &str) -> std::result::Result<Vec<(String, String)>, String> {
        let first = rest.split_whitespace().next().unwrap_or_default();
        if !first.contains('=') {
            let (key, value) = rest.split_once(char::is_whitespace).ok_or("a value is missing")?;
            return Ok(vec![(words::one(key, &self.env_lines())?, words::one(value.trim(), &self.env_lines())?)]);
        }
        let pair = |word: String| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(format!("{word:?} is not of the form key=value")),
        };
        self.words(rest)?.into_iter().map(pair).collect()
    }

    fn env(&mut self, rest: &str) -> Outcome {
        let mut lines = self.env_lines();
        for (key, value) in self.pairs(rest)? {
            let line = format!("{key}={value}");
            match lines.iter_mut().find(|old| old.split_once('=').is_some_and(|(k, _)| k == key)) {
                Some(old) => *old = line,
                None => lines.push(line),
            }
        }
        self.object.insert("Env".to_owned(), json!(lines));
        Ok(())
    }

    fn label(&mut self, rest: &str) -> Outcome {
        let pairs = self.pairs(rest)?;
        let labels = self.object_at("Labels");
        labels.extend(pairs.into_iter().map(|(key, value)| (key, Value::String(value))));
        Ok(())
    }

    fn expose(&mut self, rest: &str) -> Outcome {
        let mut ports = Vec::new();
        for word in self.words(rest)? {
            ports.extend(exposed(&word).ok_or_else(|| format!("{word:?} is not port[-port][/tcp|udp|sctp]"))?);
        }
        self.object_at("ExposedPorts").extend(ports.into_iter().map(|port| (port, json!({}))));
        Ok(())
    }

    fn volume(&mut self, rest: &str) -> Outcome {
        let paths = match json_form(rest) {
            Some(paths) => paths,
            None => self.words(rest)?,
        };
        if paths.is_empty() || paths.iter().any(|path| path.trim().is_empty()) {
            return Err("a path is empty".to_owned());
        }
        self.object_at("Volumes").extend(paths.into_iter().map(|path| (path, json!({}))));
        Ok(())
    }

    fn text(&mut self, key: &str, rest: &str) -> Outcome {
        let text = self.single(rest)?;
        self.object.insert(key.to_owned(), json!(text));
        Ok(())
    }

    /// Relative to what it was.
    fn workdir(&mut self, rest: &str) -> Outcome {
        let path = words::one(rest, &self.env_lines())?;
        let old = self.object.get("WorkingDir").and_then(Value::as_str).unwrap_or_default();
        let joined = if path.starts_with('/') { path } else { format!("{old}/{path}") };
        let mut parts = Vec::new();
        for part in joined.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        self.object.insert("WorkingDir".to_owned(), json!(format!("/{}", parts.join("/"))));
        Ok(())
    }

    fn stop_signal(&mut self, rest: &str) -> Outcome {
        let text = self.single(rest)?;
        text.parse::<Signal>().map_err(|e| e.to_string())?;
        self.object.insert("StopSignal".to_owned(), json!(text));
        Ok(())
    }

    fn on_build(&mut self, rest: &str) -> Outcome {
        let keyword = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        if matches!(keyword.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
            return Err(format!("{keyword} is not allowed as a trigger"));
        }
        let triggers = self.object.get("OnBuild").and_then(Value::as_array);
        let mut triggers = triggers.cloned().unwrap_or_default();
        triggers.push(json!(rest));
        self.object.insert("OnBuild".to_owned(), Value::Array(triggers));
        Ok(())
    }
}

fn json_form(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

fn exposed(word: &str) -> Option<Vec<String>> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (first > 0 && first <= last).then(|| (first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use berth_types::{Classify as _, ErrorClass};

    use super::*;

    fn changed(config: Value, changes: &[&str]) -> Value {
        apply(config, &changes.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    /// S-084: `--change`.
    #[test]
    fn s084_changes() {
        for (config, change, expect) in [
            (json!(null), r#"CMD ["a", "b c"]"#, json!({"Cmd": ["a", "b c"]})),
            (json!({}), "cmd echo $HOME", json!({"Cmd": ["/bin/sh", "-c", "echo $HOME"]})),
            (
                json!({"Shell": ["/bin/bash", "-c"]}),
                "CMD x",
                json!({"Shell": ["/bin/bash", "-c"], "Cmd": ["/bin/bash", "-c", "x"]}),
            ),
            (json!({"Cmd": ["old"]}), r#"ENTRYPOINT ["/e"]"#, json!({"Entrypoint": ["/e"]})),
            (json!({"Cmd": ["old"]}), "CMD [\"n\"]\nENTRYPOINT [\"/e\"]", json!({"Cmd": ["n"], "Entrypoint": ["/e"]})),
            (
                json!({"Env": ["PATH=/bin", "A=1"]}),
                r#"ENV PATH=/x:$PATH B="two words""#,
                json!({"Env": ["PATH=/x:/bin", "A=1", "B=two words"]}),
            ),
            (json!({}), "ENV key the rest", json!({"Env": ["key=the rest"]})),
            (
                json!({"ExposedPorts": {"1/tcp": {}}}),
                "EXPOSE 80 53/UDP 8000-8001",
                json!({"ExposedPorts": {"1/tcp": {}, "80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}}}),
            ),
            (json!({"Labels": null}), r#"LABEL a=b "c d"=e"#, json!({"Labels": {"a": "b", "c d": "e"}})),
            (json!({}), "USER 1000:1000", json!({"User": "1000:1000"})),
            (json!({}), r#"VOLUME ["/a", "/b c"]"#, json!({"Volumes": {"/a": {}, "/b c": {}}})),
            (json!({}), "VOLUME /a /b", json!({"Volumes": {"/a": {}, "/b": {}}})),
            (json!({"WorkingDir": "/a/b"}), "WORKDIR ../c", json!({"WorkingDir": "/a/c"})),
            (json!({}), "STOPSIGNAL SIGINT", json!({"StopSignal": "SIGINT"})),
            (json!({}), "ONBUILD RUN make", json!({"OnBuild": ["RUN make"]})),
            (json!({}), "# nothing\nCMD a \\\n  b", json!({"Cmd": ["/bin/sh", "-c", "a   b"]})),
        ] {
            assert_eq!(changed(config, &[change]), expect, "{change}");
        }
    }

    #[test]
    fn what_cannot_be_a_change_says_so() {
        for (change, why) in [
            ("RUN ls", "RUN cannot be used in a change"),
            ("FROM x", "FROM cannot be used"),
            ("CMD", "it has no argument"),
            ("EXPOSE 0", "is not port"),
            ("EXPOSE 1:2", "is not port"),
            ("EXPOSE 9-3", "is not port"),
            ("STOPSIGNAL SIGNONE", "SIGNONE"),
            ("ENV a", "a value is missing"),
            ("ENV a=b c", "not of the form key=value"),
            ("LABEL a=\"b", "a quote is not closed"),
            ("USER a b", "exactly one argument"),
            ("ONBUILD FROM x", "not allowed as a trigger"),
        ] {
            let error = apply(Value::Null, &[change.to_owned()]).unwrap_err();
            assert_eq!(error.class(), ErrorClass::InvalidArgument);
            assert!(error.to_string().starts_with("cannot apply change"), "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
