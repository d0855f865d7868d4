//! Progress as everybody who waits sees it: the latest word on each object, and lines in order. A slow client skips what was overtaken and holds
//! nobody up.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::api::Progress;

/// A client gets at most ten rounds a second.
const ROUND: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Board {
    entries: Mutex<Entries>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    lines: Vec<(u64, Progress)>,
    objects: HashMap<String, (u64, Progress)>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { entries: Mutex::default(), version: watch::channel(0).0 }
    }

    /// A line that everybody gets.
    pub(crate) fn line(&self, id: &str, status: impl Into<String>) {
        let progress = Progress { id: id.to_owned(), status: status.into(), current: None, total: None };
        self.put(|entries, version| entries.lines.push((version, progress)));
    }

    /// The latest on an object, in place of what was said before.
    pub(crate) fn object(&self, progress: Progress) {
        self.put(|entries, version| {
            entries.objects.insert(progress.id.clone(), (version, progress));
        });
    }

    /// The same from a watcher, who may come late: not in place of a status that is further along.
    pub(crate) fn object_unless(&self, progress: Progress, is_further: impl FnOnce(&str) -> bool) {
        self.put(|entries, version| {
            let is_late = entries.objects.get(&progress.id).is_some_and(|(_, earlier)| is_further(&earlier.status));
            if !is_late {
                entries.objects.insert(progress.id.clone(), (version, progress));
            }
        });
    }

    fn put(&self, change: impl FnOnce(&mut Entries, u64)) {
        let mut entries = self.entries.lock();
        entries.next += 1;
        let version = entries.next;
        change(&mut entries, version);
        drop(entries);
        self.version.send_replace(version);
    }

    /// What is newer than `seen`, in order.
    fn since(&self, seen: u64) -> (u64, Vec<Progress>) {
        let entries = self.entries.lock();
        let all = entries.lines.iter().chain(entries.objects.values());
        let mut fresh: Vec<&(u64, Progress)> = all.filter(|(version, _)| *version > seen).collect();
        fresh.sort_by_key(|(version, _)| *version);
        (entries.next, fresh.into_iter().map(|(_, progress)| progress.clone()).collect())
    }

    /// Passes progress on until `done` comes true; what is there then is still passed on. `false`: the client is gone.
    pub(crate) async fn follow(&self, client: &mpsc::Sender<Progress>, mut done: watch::Receiver<bool>) -> bool {
        let mut version = self.version.subscribe();
        let mut seen = 0;
        loop {
            let is_done = *done.borrow();
            let (now, fresh) = self.since(seen);
            seen = now;
            for progress in fresh {
                if client.send(progress).await.is_err() {
                    return false;
                }
            }
            if is_done || done.has_changed().is_err() {
                return true; // also when nobody is left who could say so
            }
            let pause = async {
                tokio::time::sleep(ROUND).await;
                // The board lives as long as we do.
                drop(version.wait_for(|version| *version > seen).await);
            };
            tokio::select! {
                () = pause => {}
                _ = done.wait_for(|done| *done) => {}
                () = client.closed() => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(id: &str, status: &str) -> Progress {
        Progress { id: id.to_owned(), status: status.to_owned(), current: None, total: None }
    }

    #[test]
    fn the_latest_word_on_each_object() {
        let board = Board::new();
        board.line("", "begun");
        board.object(progress("a", "Downloading"));
        board.object(progress("b", "Downloading"));
        board.object(progress("a", "Pull complete"));
        for id in ["a", "b"] {
            board.object_unless(progress(id, "Download complete"), |status| status == "Pull complete");
        }
        let (seen, fresh) = board.since(0);
        let told: Vec<(&str, &str)> = fresh.iter().map(|p| (p.id.as_str(), p.status.as_str())).collect();
        assert_eq!(told, [("", "begun"), ("a", "Pull complete"), ("b", "Download complete")]);
        assert!(board.since(seen).1.is_empty());
    }
}
