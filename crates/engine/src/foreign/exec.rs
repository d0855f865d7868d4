//! exec and attach for containers of containerd's API: the process is what their document says, with what the request changes; the client's stream
//! goes to the shim, when that is ours. Other shims know pipes alone, so with them only a detached exec is done.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_core::fleet::Member;
use berth_shim_client::{AttachOptions, IoUris, TaskState};
use berth_types::ExecId;
use serde_json::{Value, json};

use super::Foreign;
use crate::api::{AttachRequest, ExecConfig};
use crate::detach_keys;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::lifecycle::exec_exit_code;

impl Engine {
    /// The member, when a process can be added to it now.
    pub(crate) async fn foreign_ready(&self, foreign: &Foreign) -> Result<Arc<Member>> {
        let id = &foreign.object.id;
        let member = foreign.running().await.ok_or_else(|| foreign.not_running())?;
        if member.shim.state(None).await?.state == TaskState::Paused {
            let why = format!("Container {id} is paused, unpause the container before exec");
            return Err(EngineError::conflict(why).with_hint(format!("berth unpause {id}")));
        }
        Ok(member)
    }

    /// Adds the process and starts it; its pid.
    pub(crate) async fn foreign_exec(
        &self,
        foreign: &Foreign,
        exec_id: &ExecId,
        config: &ExecConfig,
        client: Option<(OwnedFd, Vec<u8>)>,
        size: Option<(u16, u16)>,
    ) -> Result<(Arc<Member>, u32)> {
        let member = self.foreign_ready(foreign).await?;
        let process = serde_json::to_vec(&process(foreign, config, size)?)
            .map_err(|error| EngineError::internal(format!("cannot encode the process: {error}")))?;
        if client.is_some() {
            foreign.expect_own_shim("exec with a client attached")?;
        }
        // Other shims take no address at all as nowhere.
        let io = match (&client, member.is_on_own_shim()) {
            (None, false) => IoUris { terminal: config.tty, ..IoUris::default() },
            (client, _) => crate::exec::io_uris(config, client.is_some()),
        };
        member.shim.exec(exec_id, &process, &io).await?;
        let launched = async {
            if let Some((stream, early_input)) = client {
                let options = AttachOptions {
                    stdin: config.attach_stdin,
                    stdout: config.attach_stdout,
                    stderr: config.attach_stderr,
                    detach_keys: detach_keys::parse(config.detach_keys.as_deref())?,
                    early_input,
                };
                member.shim.attach(Some(exec_id), stream, &options).await?;
            }
            member.shim.start_process(Some(exec_id)).await.map_err(|error| {
                let code = exec_exit_code(&error);
                let text = berth_types::report(&error);
                EngineError::new(berth_types::Classify::class(&error), format!("exec failed: {text}"))
                    .with_exit_code(code)
            })
        };
        match launched.await {
            Ok(pid) => Ok((member, pid)),
            Err(error) => {
                // The first error is the one to tell.
                member.shim.delete(Some(exec_id)).await.ok();
                Err(error)
            }
        }
    }

    /// Gives the client's stream to the shim. Output that came before is its maker's.
    pub(crate) async fn foreign_attach(
        &self,
        foreign: &Foreign,
        client: OwnedFd,
        request: AttachRequest,
    ) -> Result<()> {
        foreign.expect_own_shim("attach")?;
        if request.logs {
            return Err(foreign.not_done("its output so far", "its maker took it, no log was written here"));
        }
        let options = AttachOptions {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            detach_keys: detach_keys::parse(request.detach_keys.as_deref())?,
            early_input: request.early_input,
        };
        let member = foreign.running().await.ok_or_else(|| foreign.not_running())?;
        if request.stream {
            member.shim.attach(None, client, &options).await?;
        }
        Ok(())
    }
}

impl Foreign {
    fn expect_own_shim(&self, what: &str) -> Result<()> {
        match &self.member {
            Some(member) if !member.is_on_own_shim() => {
                let why = format!("its shim {} takes pipes, no streams of clients", member.shim_name());
                Err(self.not_done(what, &why))
            }
            _ => Ok(()),
        }
    }

    /// What cannot be served, and why.
    pub(crate) fn not_done(&self, what: &str, why: &str) -> EngineError {
        let id = &self.object.id;
        let text = format!("container \"{id}\" was made through containerd's API; {what} is not done for it: {why}");
        EngineError::unimplemented(text).with_hint("use the client that made it (ctr, nerdctl)")
    }
}

/// The document's process, as the request changes it.
fn process(foreign: &Foreign, config: &ExecConfig, size: Option<(u16, u16)>) -> Result<Value> {
    let bytes = foreign.object.spec.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
    let document: Value = serde_json::from_slice(bytes)
        .map_err(|error| EngineError::internal(format!("the container's document cannot be read: {error}")))?;
    let mut process = document.get("process").cloned().unwrap_or_else(|| json!({"cwd": "/"}));
    process["args"] = json!(config.cmd);
    process["terminal"] = json!(config.tty);
    if let Some(fields) = process.as_object_mut() {
        fields.remove("consoleSize");
    }
    if let Some((rows, columns)) = size.filter(|_| config.tty) {
        process["consoleSize"] = json!({"height": rows, "width": columns});
    }
    if !config.working_dir.is_empty() {
        process["cwd"] = json!(config.working_dir);
    }
    let mut env: Vec<String> = strings(&process["env"]);
    for variable in &config.env {
        let name = variable.split('=').next().unwrap_or_default();
        env.retain(|known| known.split('=').next() != Some(name));
        env.extend(variable.contains('=').then(|| variable.clone()));
    }
    process["env"] = json!(env);
    if !config.user.is_empty() {
        process["user"] = user(foreign, &config.user)?;
    }
    if config.privileged {
        return Err(foreign.not_done("exec --privileged", "its capabilities are its maker's affair"));
    }
    Ok(process)
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// `uid[:gid]`: names would have to be looked up in a root file system that is its maker's.
fn user(foreign: &Foreign, text: &str) -> Result<Value> {
    let mut parts = text.splitn(2, ':').map(|part| if part == "root" { Ok(0) } else { part.parse::<u32>() });
    match (parts.next(), parts.next()) {
        (Some(Ok(uid)), None) => Ok(json!({"uid": uid, "gid": 0})),
        (Some(Ok(uid)), Some(Ok(gid))) => Ok(json!({"uid": uid, "gid": gid})),
        _ => Err(foreign.not_done("exec --user with a name", "give numbers, as in --user 1000:1000")),
    }
}

#[cfg(test)]
mod tests {
    use berth_core::objects::{AnyValue, ContainerObject};

    use super::*;

    fn foreign(document: &str) -> Foreign {
        let spec = AnyValue { type_url: String::new(), value: document.as_bytes().to_vec() };
        Foreign { object: ContainerObject { id: "c".to_owned(), spec: Some(spec), ..Default::default() }, member: None }
    }

    #[test]
    fn the_request_changes_the_documents_process() {
        let document = r#"{"process":{"args":["init"],"cwd":"/a","env":["A=1","B=2"],"user":{"uid":5,"gid":6},"noNewPrivileges":true}}"#;
        let config = ExecConfig {
            cmd: vec!["ls".to_owned()],
            env: vec!["B=3".to_owned(), "A".to_owned()],
            user: "7:8".to_owned(),
            tty: true,
            ..ExecConfig::default()
        };
        let made = process(&foreign(document), &config, Some((24, 80))).unwrap();
        let expected = json!({
            "args": ["ls"], "cwd": "/a", "env": ["B=3"], "user": {"uid": 7, "gid": 8}, "noNewPrivileges": true,
            "terminal": true, "consoleSize": {"height": 24, "width": 80}
        });
        assert_eq!(made, expected);
        let named = ExecConfig { user: "www".to_owned(), ..config };
        let error = process(&foreign(document), &named, None).unwrap_err();
        assert!(error.message.contains("exec --user with a name is not done"), "{error}");
    }
}
