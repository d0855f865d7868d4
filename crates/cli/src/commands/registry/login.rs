//! `berth login`: the daemon asks the registry; what proved right is kept in `config.json` or by its helper.

use std::io::{self, BufRead as _, Read as _};

use clap::Parser;

use crate::commands::objects::text;
use crate::context::Context;
use crate::credentials::{ConfigFile, Secret, document, registry_of_address};
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::session::without_echo;

const PASSWORD_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    berth login registry.example\n  \
    berth login -u me --password-stdin localhost:5000 < password.txt")]
pub(crate) struct Arguments {
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password or token; other users of this machine can see it: prefer --password-stdin
    #[arg(short, long, value_name = "PASSWORD")]
    password: Option<String>,
    /// Take the password from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Registry [default: Docker Hub]
    #[arg(value_name = "SERVER", default_value = "docker.io", hide_default_value = true)]
    server: String,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let registry = registry_of_address(&arguments.server);
    let mut config = ConfigFile::find(&cx.environment)?;
    let secret = asked(&arguments, &config, &registry, &cx.out)?;
    let answer = cx.client.post("/auth", Some(document(&registry, &secret)))?;
    let token = text(&answer, "IdentityToken");
    let kept = if token.is_empty() {
        secret
    } else {
        Secret::IdentityToken { user: secret.user().to_owned(), token: token.to_owned() }
    };
    if config.store(&registry, &kept)? {
        let path = config.path().display();
        cx.out.notice(format!("warning: the password is kept unencrypted in {path}; a credential helper avoids that"));
    }
    cx.out.line(match text(&answer, "Status") {
        "" => "Login Succeeded",
        status => status,
    })?;
    Ok(0)
}

/// From flags, stdin, what is known, or the person at the terminal.
fn asked(arguments: &Arguments, config: &ConfigFile, registry: &str, out: &Output) -> Outcome<Secret> {
    if arguments.password_stdin {
        if arguments.password.is_some() {
            return Err(Failure::new("--password and --password-stdin exclude each other"));
        }
        let user = arguments.username.clone().ok_or_else(|| Failure::new("--password-stdin needs --username"))?;
        let mut password = String::new();
        let read = io::stdin().take(PASSWORD_BYTES_MAX).read_to_string(&mut password);
        read.map_err(|error| Failure::new("cannot read the password from stdin").because(&error))?;
        let password = password.trim_end_matches(['\n', '\r']).to_owned();
        return non_empty(user, password);
    }
    if let (Some(user), Some(password)) = (&arguments.username, &arguments.password) {
        out.notice("warning: a password on the command line can be seen by others; use --password-stdin");
        return non_empty(user.clone(), password.clone());
    }
    if arguments.username.is_none()
        && arguments.password.is_none()
        && let Some(known) = config.get(registry)?
    {
        return Ok(known);
    }
    if !rustix::termios::isatty(rustix::stdio::stdin()) {
        return Err(Failure::new("cannot ask for a password: stdin is no terminal")
            .hint("pipe it in: berth login -u NAME --password-stdin SERVER"));
    }
    let user = match &arguments.username {
        Some(user) => user.clone(),
        None => prompt(&format!("Username for {registry}: "))?,
    };
    let password = match &arguments.password {
        Some(password) => password.clone(),
        None => {
            let password = without_echo(|| prompt("Password: "))??;
            Output::error_bytes(b"\n");
            password
        }
    };
    non_empty(user, password)
}

fn non_empty(user: String, password: String) -> Outcome<Secret> {
    if user.is_empty() || password.is_empty() {
        return Err(Failure::new("user name and password must not be empty"));
    }
    Ok(Secret::Password { user, password })
}

fn prompt(question: &str) -> Outcome<String> {
    Output::error_bytes(question.as_bytes());
    let mut line = String::new();
    let read = io::stdin().lock().take(PASSWORD_BYTES_MAX).read_line(&mut line);
    read.map_err(|error| Failure::new("cannot read from the terminal").because(&error))?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
