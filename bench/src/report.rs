//! The table: a row per workload, a column per engine, and what Berth's figure is of each peer's.

use crate::measure::{Sample, median};

/// One workload's figures by engine.
#[derive(Debug, Clone)]
pub struct Row {
    name: String,
    values: Vec<(&'static str, f64)>,
    /// More is better: containers per second.
    is_rate: bool,
}

impl Row {
    pub fn wall(name: &str, samples: &[(&'static str, Vec<Sample>)]) -> Self {
        let values = samples.iter().map(|(engine, taken)| (*engine, median(taken.iter().map(|s| s.wall_ms)))).collect();
        Self { name: format!("{name}, ms"), values, is_rate: false }
    }

    pub fn cpu(name: &str, samples: &[(&'static str, Vec<Sample>)]) -> Self {
        let values = samples.iter().map(|(engine, taken)| (*engine, median(taken.iter().map(|s| s.cpu_ms)))).collect();
        Self { name: format!("{name}, ms"), values, is_rate: false }
    }

    pub fn plain(name: &str, values: Vec<(&'static str, f64)>) -> Self {
        Self { name: name.to_owned(), values, is_rate: false }
    }

    pub fn rate(name: &str, values: Vec<(&'static str, f64)>) -> Self {
        Self { name: format!("{name}, per second"), values, is_rate: true }
    }

    fn value(&self, engine: &str) -> Option<f64> {
        self.values.iter().find(|(name, _)| *name == engine).map(|(_, value)| *value)
    }

    /// `1/9.3` (less is better) or `6.1x` (more is better) of the peer.
    fn ratio(&self, peer: &str) -> String {
        match (self.value("berth"), self.value(peer)) {
            (Some(own), Some(other)) if self.is_rate => format!("{:.1}x", own / other),
            (Some(own), Some(other)) => format!("1/{:.1}", other / own),
            _ => "-".to_owned(),
        }
    }
}

/// All rows in order.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    pub fn push(&mut self, row: Row) {
        eprintln!("measured: {} {:?}", row.name, row.values);
        self.rows.push(row);
    }
}

pub fn print(table: &Table) {
    println!("| workload (medians) | berth | ctr | docker | berth of ctr | berth of docker |");
    println!("|---|---|---|---|---|---|");
    for row in &table.rows {
        let cell = |engine: &str| row.value(engine).map_or("-".to_owned(), |value| format!("{value:.2}"));
        println!(
            "| {} | {} | {} | {} | {} | {} |",
            row.name,
            cell("berth"),
            cell("ctr"),
            cell("docker"),
            row.ratio("ctr"),
            row.ratio("docker")
        );
    }
}
