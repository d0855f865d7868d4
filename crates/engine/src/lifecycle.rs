//! The life of a container, one file per verb.

mod await_start;
mod create;
pub(crate) mod exit;
mod kill;
mod launch;
mod pause;
mod plan;
mod remove;
mod rename;
mod restart;
mod start;
mod stop;
mod update;
mod wait;

pub(crate) use create::no_such_image;
pub(crate) use exit::Ended;
pub(crate) use launch::{exec_exit_code, fd_path};
pub(crate) use stop::KILL_WAIT;
