//! From flags to the body of `POST /containers/create` and of `update`. Parsing only: nothing here talks to a daemon.

mod assemble;
mod device;
mod environment;
mod filter;
mod limit;
mod mount;
mod options;
mod port;
mod refused;
mod security;

#[cfg(test)]
mod tests;

pub(crate) use assemble::{CreateRequest, Streams, create_request};
pub(crate) use environment::{Pairs, key_values, options_map, parse_labels};
pub(crate) use filter::{Filters, parse_filters};
pub(crate) use limit::{LimitOptions, restart_policy};
pub(crate) use options::ContainerOptions;
pub(crate) use refused::{REFUSED, REFUSED_UPDATE, Refused};
