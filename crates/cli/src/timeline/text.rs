//! The table for a person.

use super::{PARTIES, Timeline, end_ns, party_name};
use crate::output::{Tabs, bars};

const BAR_CELLS: usize = 30;

impl Timeline {
    pub(super) fn table(&self) -> String {
        let (first, last) = self.bounds();
        let wall = (last - first).max(1);
        let own = self.own_ns();
        let mut table = "START\tTOOK\tOWN\tPARTY\tSTEP\tTIMELINE\tOBJECT\n".to_owned();
        for (span, own) in self.spans.iter().zip(&own) {
            let bar = bars(fraction(span.start_ns - first, wall), fraction(end_ns(span) - first, wall), BAR_CELLS);
            table.push_str(&format!(
                "{}\t{}\t{}\t{}\t{}\t{bar}\t{}\n",
                milliseconds(span.start_ns - first),
                milliseconds(span.duration_ns),
                milliseconds(*own),
                party_name(span.party),
                span.name,
                short_ids(&span.object),
            ));
        }
        let tabs = Tabs { width_min: 4, padding: 2 };
        let mut text = tabs.layout(&table);
        let sums: Vec<String> = PARTIES
            .iter()
            .map(|(party, name)| (name, self.covered_by(*party)))
            .filter(|(_, covered)| *covered > 0)
            .map(|(name, covered)| format!("{name} {} ms", milliseconds(covered)))
            .collect();
        text.push_str(&format!(
            "wall {} ms; own times add up to {} ms; steps cover: {}\n",
            milliseconds(last - first),
            milliseconds(own.iter().sum()),
            sums.join(", ")
        ));
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "a place on a bar of some cells")]
fn fraction(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Ids of 64 digits as people see them: twelve.
pub(crate) fn short_ids(text: &str) -> String {
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let ids: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(is_id).collect();
    ids.into_iter().fold(text.to_owned(), |text, id| text.replace(id, &id[..12]))
}

/// Three decimals, right for columns: `0.123`.
fn milliseconds(ns: u64) -> String {
    let us = (ns + 500) / 1000;
    format!("{}.{:03}", us / 1000, us % 1000)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{span, timeline};
    use super::*;
    use berth_types::Party;
    use serde_json::Value;

    #[test]
    fn ids_are_short() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(short_ids(&format!("/tasks/{id}/hosts /etc")), "/tasks/0123456789ab/hosts /etc");
        assert_eq!(short_ids("plain"), "plain");
    }

    #[test]
    fn table() {
        let spans =
            vec![span(Party::Client, "step", 1_000_000, 4_000_000), span(Party::Runtime, "step", 2_000_000, 1_500_000)];
        let timeline = timeline(spans);
        assert_eq!(
            timeline.table(),
            "START  TOOK   OWN    PARTY    STEP  TIMELINE                        OBJECT\n\
             0.000  4.000  2.500  client   step  ██████████████████████████████  \n\
             1.000  1.500  1.500  runtime  step  ·······███████████············  \n\
             wall 4.000 ms; own times add up to 4.000 ms; steps cover: client 4.000 ms, runtime 1.500 ms\n"
        );
        let json: Value = serde_json::from_str(&timeline.json()).unwrap();
        assert_eq!((&json["wall_ns"], &json["sum_ns"]), (&4_000_000.into(), &4_000_000.into()));
        assert_eq!(json["engine_covered_ns"], 1_500_000);
        assert_eq!(json["spans"].as_array().unwrap().len(), 2);
    }
}
