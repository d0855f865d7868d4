//! The tables: a row per workload, a column per candidate, and what Berth's figure is of each peer's.

use std::fmt::Write as _;

use crate::measure::{Samples, median, quantile};

/// One workload's figures by candidate.
#[derive(Debug, Clone)]
pub struct Row {
    name: String,
    values: Vec<(&'static str, f64)>,
    /// More is better.
    is_rate: bool,
}

impl Row {
    pub fn wall(name: &str, samples: &[Samples]) -> Self {
        let values = samples.iter().map(|s| (s.name, median(s.wall_ms.iter().copied()))).collect();
        Self { name: format!("{name}, ms"), values, is_rate: false }
    }

    pub fn p95(name: &str, samples: &[Samples]) -> Self {
        let values = samples.iter().map(|s| (s.name, quantile(s.wall_ms.iter().copied(), 0.95))).collect();
        Self { name: format!("{name}: p95, ms"), values, is_rate: false }
    }

    pub fn cpu(name: &str, samples: &[Samples]) -> Self {
        let values = samples.iter().map(|s| (s.name, s.cpu_ms)).collect();
        Self { name: format!("{name}: CPU, ms"), values, is_rate: false }
    }

    pub fn plain(name: &str, values: Vec<(&'static str, f64)>) -> Self {
        Self { name: name.to_owned(), values, is_rate: false }
    }

    pub fn rate(name: &str, values: Vec<(&'static str, f64)>) -> Self {
        Self { name: name.to_owned(), values, is_rate: true }
    }

    fn value(&self, candidate: &str) -> Option<f64> {
        self.values.iter().find(|(name, _)| *name == candidate).map(|(_, value)| *value)
    }

    /// `0.11` (1/9.3; less is better) or `6.1x` (more is better) of the peer.
    fn ratio(&self, own: &str, peer: &str) -> String {
        match (self.value(own), self.value(peer)) {
            (Some(own), Some(other)) if self.is_rate => format!("{:.1}x", own / other),
            (Some(own), Some(other)) => format!("{:.2} (1/{:.1})", own / other, other / own),
            _ => "-".to_owned(),
        }
    }
}

/// Rows of one comparison, in order.
#[derive(Debug, Clone)]
pub struct Table {
    title: &'static str,
    own: &'static str,
    peers: &'static [&'static str],
    rows: Vec<Row>,
}

impl Table {
    pub const fn new(title: &'static str, own: &'static str, peers: &'static [&'static str]) -> Self {
        Self { title, own, peers, rows: Vec::new() }
    }

    pub fn push(&mut self, row: Row) {
        eprintln!("measured: {} {:.2?}", row.name, row.values);
        self.rows.push(row);
    }

    pub fn extend(&mut self, rows: Vec<Row>) {
        rows.into_iter().for_each(|row| self.push(row));
    }

    /// As Markdown; empty without rows.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        if self.rows.is_empty() {
            return text;
        }
        let mut line = |words: Vec<String>| {
            writeln!(text, "| {} |", words.join(" | ")).expect("a string takes everything");
        };
        let all = || std::iter::once(&self.own).chain(self.peers);
        let mut head = vec![self.title.to_owned()];
        head.extend(all().map(|name| (*name).to_owned()));
        head.extend(self.peers.iter().map(|peer| format!("{} of {peer}", self.own)));
        line(head.clone());
        line(vec!["---".to_owned(); head.len()]);
        for row in &self.rows {
            let mut cells = vec![row.name.clone()];
            cells.extend(all().map(|name| row.value(name).map_or("-".to_owned(), |value| format!("{value:.2}"))));
            cells.extend(self.peers.iter().map(|peer| row.ratio(self.own, peer)));
            line(cells);
        }
        text
    }
}
