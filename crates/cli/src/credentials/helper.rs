//! `docker-credential-NAME`: a program that keeps secrets, asked by `get`, `store` and `erase` with JSON on its standard streams.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Secret, failed};
use crate::failure::{Failure, Outcome};

/// A helper's user name for what is an identity token.
const TOKEN_USER: &str = "<token>";
const NOT_FOUND: &str = "credentials not found";

pub(super) fn get(name: &str, key: &str) -> Outcome<Option<Secret>> {
    let (is_good, answer) = run(name, "get", key.as_bytes())?;
    if !is_good {
        return if answer.contains(NOT_FOUND) { Ok(None) } else { Err(refused(name, "get", &answer)) };
    }
    let found: Value = serde_json::from_str(&answer)
        .map_err(|_| failed(format_args!("what docker-credential-{name} says is not valid JSON")))?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    let (user, secret) = (text("Username"), text("Secret"));
    if secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(if user == TOKEN_USER {
        Secret::IdentityToken { user: String::new(), token: secret }
    } else {
        Secret::Password { user, password: secret }
    }))
}

pub(super) fn store(name: &str, key: &str, secret: &Secret) -> Outcome<()> {
    let (user, secret) = match secret {
        Secret::Password { user, password } => (user.as_str(), password),
        Secret::IdentityToken { token, .. } => (TOKEN_USER, token),
    };
    let document = json!({ "ServerURL": key, "Username": user, "Secret": secret });
    let (is_good, answer) = run(name, "store", document.to_string().as_bytes())?;
    if is_good { Ok(()) } else { Err(refused(name, "store", &answer)) }
}

pub(super) fn erase(name: &str, key: &str) -> Outcome<()> {
    let (is_good, answer) = run(name, "erase", key.as_bytes())?;
    if is_good || answer.contains(NOT_FOUND) { Ok(()) } else { Err(refused(name, "erase", &answer)) }
}

fn run(name: &str, verb: &str, input: &[u8]) -> Outcome<(bool, String)> {
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if name.is_empty() || !is_plain {
        return Err(failed(format_args!("credential helper {name:?} in config.json is not a plain name")));
    }
    let program = format!("docker-credential-{name}");
    let cannot = |error: &std::io::Error| {
        Failure::new(format!("cannot run the credential helper {program}"))
            .because(error)
            .hint("install it, or take credsStore or credHelpers out of config.json")
    };
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| cannot(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input says why by its code.
        stdin.write_all(input).unwrap_or_default();
    }
    let output = child.wait_with_output().map_err(|error| cannot(&error))?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned()))
}

fn refused(name: &str, verb: &str, answer: &str) -> Failure {
    let shown: String = answer.lines().next().unwrap_or_default().chars().take(200).collect();
    failed(format_args!("docker-credential-{name} {verb} failed: {shown}"))
}
