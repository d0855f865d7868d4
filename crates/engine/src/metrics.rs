//! Metrics in Prometheus' text format: every running container by the kernel's own numbers, and the daemon itself.
//!
//! Nothing is sampled in the background: a scrape reads the files at that moment, and costs nothing when nobody scrapes.

mod container;
mod daemon;
mod exposition;
mod family;
mod latency;

use exposition::{Exposition, Number};
pub(crate) use latency::Latencies;
pub use latency::OperationTimer;

use crate::engine::Engine;
use crate::error::Result;

impl Engine {
    /// The whole exposition.
    ///
    /// # Errors
    /// `Internal` when the worker fails; what cannot be read is left out.
    pub async fn metrics(&self) -> Result<String> {
        let jobs = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        self.blocking(move |engine| {
            let mut exposition = Exposition::default();
            exposition.add("berth_jobs", &[], Number::Whole(u64::try_from(jobs).unwrap_or(u64::MAX)));
            daemon::write(engine, &mut exposition);
            for container in engine.inner.registry.all() {
                let record = container.record();
                if record.state.is_running() {
                    container::write(engine, &record, &mut exposition);
                }
            }
            Ok(exposition.finish())
        })
        .await
    }

    /// Begins to time an operation for the histograms; for faces, which know what was asked.
    pub fn begin_operation(&self, operation: &'static str) -> OperationTimer {
        self.inner.latencies.begin(operation)
    }
}

/// Names of all families, for the check of documents that speak of them.
#[cfg(test)]
mod tests {
    use super::family::FAMILIES;

    /// Words of a text that look like names of ours.
    fn names(text: &str) -> std::collections::BTreeSet<&str> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("berth_") || word.starts_with("process_"))
            .map(|word| word.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count"))
            .collect()
    }

    #[test]
    fn the_dashboard_asks_for_what_there_is() {
        let dashboard = include_str!("../../../docs/grafana-dashboard.json");
        let document: serde_json::Value = serde_json::from_str(dashboard).unwrap();
        let mut found = std::collections::BTreeSet::new();
        for panel in document["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"].as_str().unwrap();
                let asked = names(expression);
                assert!(!asked.is_empty(), "{expression}");
                found.extend(asked.into_iter().map(str::to_owned));
            }
        }
        for name in &found {
            assert!(FAMILIES.iter().any(|family| family.name == name), "{name} is asked for and does not exist");
        }
        assert!(found.len() > 20, "{found:?}");
    }

    #[test]
    fn the_document_lists_every_family() {
        let document = include_str!("../../../docs/observability.md");
        let listed = names(document);
        for family in FAMILIES {
            assert!(listed.contains(family.name), "docs/observability.md lacks {}", family.name);
            assert!(document.contains(family.help), "docs/observability.md has another help of {}", family.name);
        }
    }
}
