//! Everything that reaches a person: stdout for data, stderr for progress and errors, tables, templates, times, progress.

mod duration;
mod indent;
mod listing;
mod progress;
mod stream;
mod table;
pub(crate) mod template;

pub(crate) use duration::{ago, shown_time};
pub(crate) use indent::indent_json;
pub(crate) use listing::{Column, Listing, Row, Style};
pub(crate) use progress::{ByteProgress, ProgressReader, follow_progress};
pub(crate) use stream::Output;
pub(crate) use table::{Tabs, bars, shortened};
