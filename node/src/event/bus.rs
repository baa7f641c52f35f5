//! Carries events to whoever follows them, and keeps none.
//!
//! Bounded: a follower that is more than [`BACKLOG`] events behind loses the oldest and is told how
//! many. Raising an event never waits for a follower. The last event ends the bus: whatever is
//! raised after it, by whoever is slower to stop, is heard by nobody.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::{Event, EventKind};

/// A burst of changes to a few directories fits; at about 200 bytes each it is under a megabyte.
const BACKLOG: usize = 4096;

/// Takes events in. A clone is a handle to the same bus.
#[derive(Debug, Clone)]
pub struct EventBus {
    /// Gone after the last event. Held for reading while one is sent, so that none can overtake it.
    sender: Arc<RwLock<Option<broadcast::Sender<Event>>>>,
}

/// Takes events out.
#[derive(Debug)]
pub struct EventStream {
    receiver: broadcast::Receiver<Event>,
}

impl Default for EventBus {
    fn default() -> Self {
        Self {
            sender: Arc::new(RwLock::new(Some(broadcast::Sender::new(BACKLOG)))),
        }
    }
}

impl EventBus {
    /// Tells whoever listens now; it is nobody's loss when nobody does.
    pub fn raise(&self, kind: EventKind) {
        tracing::debug!(event = ?kind, "event");
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender.as_ref()
            && sender.receiver_count() > 0
        {
            // Fails only when the last follower has just gone.
            let _nobody_listens = sender.send(Event::now(kind));
        }
    }

    /// Tells `kind` as the last event: followers get what they have not read yet, this, and their end.
    pub fn close(&self, kind: EventKind) {
        tracing::debug!(event = ?kind, "the last event");
        let mut sender = self.sender.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender.take() {
            // Fails only when nobody follows.
            let _nobody_listens = sender.send(Event::now(kind));
        }
    }

    /// Whether somebody listens: worth knowing before building many events.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        sender
            .as_ref()
            .is_some_and(|sender| sender.receiver_count() > 0)
    }

    /// Follows what happens from now on; after the last event that is nothing.
    #[must_use]
    pub fn follow(&self) -> EventStream {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        let receiver = match sender.as_ref() {
            Some(sender) => sender.subscribe(),
            None => broadcast::channel(1).1,
        };
        EventStream { receiver }
    }
}

impl EventStream {
    /// The next event; `None` after the last one. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(events)) => Some(Event::now(EventKind::Missed { events })),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Event {
    fn now(kind: EventKind) -> Self {
        Self {
            at_ms: now_ms(),
            kind,
        }
    }
}

/// Milliseconds since 1970; 0 for a clock that stands before that.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_follower_is_told_how_many_events_it_missed() {
        let bus = EventBus::default();
        let mut stream = bus.follow();
        for _ in 0..BACKLOG + 3 {
            bus.raise(EventKind::NodeStopping);
        }
        let first = stream.next().await.unwrap();
        assert_eq!(first.kind, EventKind::Missed { events: 3 });
        assert_eq!(stream.next().await.unwrap().kind, EventKind::NodeStopping);
        drop(bus);
        for _ in 0..BACKLOG - 1 {
            stream.next().await.unwrap();
        }
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn nothing_is_heard_after_the_last_event() {
        let bus = EventBus::default();
        let mut stream = bus.follow();
        bus.raise(EventKind::Missed { events: 1 });
        bus.close(EventKind::NodeStopping);
        bus.raise(EventKind::Missed { events: 2 });
        bus.close(EventKind::Missed { events: 3 });
        let mut heard = Vec::new();
        while let Some(event) = stream.next().await {
            heard.push(event.kind);
        }
        let expected = [EventKind::Missed { events: 1 }, EventKind::NodeStopping];
        assert_eq!(heard, expected);
        assert!(!bus.is_followed());
        assert!(
            bus.follow().next().await.is_none(),
            "who comes late hears of the end"
        );
    }

    #[test]
    fn an_event_is_one_flat_json_object() {
        let event = Event {
            at_ms: 5,
            kind: EventKind::Missed { events: 2 },
        };
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(json, r#"{"at_ms":5,"event":"missed","events":2}"#);
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }
}
