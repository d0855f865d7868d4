//! Subscriptions to the event log: history, then live, filtered.

use std::time::Duration;

use berth_core::events::{CONTAINERD_KIND, Origin, Subscription};
use berth_types::Timestamp;
use tokio::sync::mpsc;

use crate::api::{Event, EventOptions};
use crate::engine::Engine;
use crate::error::Result;
use crate::filters;

/// Events between us and a face; the log's own backlog comes before.
const CHANNEL: usize = 64;

impl Engine {
    /// History from `since` or the cursor, then live until `until`. Never loses silently: a receiver that lags gets a last event
    /// `overrun` of kind `daemon` with the cursor to resume from, and is closed.
    ///
    /// # Errors
    /// `InvalidArgument` for unknown filters.
    pub async fn events(&self, options: EventOptions) -> Result<mpsc::Receiver<Event>> {
        filters::check(&options.filters, &filters::EVENT_KEYS)?;
        let now = Timestamp::now();
        let origin = match (options.after_sequence, options.since) {
            (Some(after), _) => Origin::After(after),
            (None, Some(since)) => Origin::Since(since),
            // Only `until` in the past: everything kept up to it.
            (None, None) if options.until.is_some_and(|until| until <= now) => Origin::After(0),
            (None, None) => Origin::Now,
        };
        let subscription = self.inner.events.subscribe(origin);
        let (sender, receiver) = mpsc::channel(CHANNEL);
        tokio::spawn(pump(subscription, options, sender));
        Ok(receiver)
    }
}

async fn pump(mut subscription: Subscription, options: EventOptions, sender: mpsc::Sender<Event>) {
    loop {
        let event = match subscription.next_kept() {
            Some(event) => event,
            None => {
                let remaining = options.until.map(time_until);
                let next = tokio::select! {
                    next = subscription.next() => next,
                    () = sender.closed() => return,
                    () = sleep_for(remaining) => return,
                };
                match next {
                    Ok(event) => event,
                    Err(overrun) => {
                        // The receiver may be gone; then nobody needs to know.
                        drop(sender.send(overrun_event(overrun.after_sequence)).await);
                        return;
                    }
                }
            }
        };
        if options.until.is_some_and(|until| event.time > until) {
            return;
        }
        let is_shown = event.kind != CONTAINERD_KIND;
        if is_shown && filters::event_fits(&event, &options.filters) && sender.send((*event).clone()).await.is_err() {
            return;
        }
    }
}

fn time_until(until: Timestamp) -> Duration {
    let nanos = until.0.saturating_sub(Timestamp::now().0);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

async fn sleep_for(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

fn overrun_event(after_sequence: u64) -> Event {
    Event {
        sequence: after_sequence,
        time: Timestamp::now(),
        kind: "daemon".to_owned(),
        action: "overrun".to_owned(),
        actor_id: String::new(),
        attributes: [("afterSequence".to_owned(), after_sequence.to_string())].into(),
        pid: 0,
        envelope: None,
    }
}
