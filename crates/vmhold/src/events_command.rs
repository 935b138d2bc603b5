//! `events`.

use control::events::{Event, EventList};
use control::{Envelope, Exit, Problem};
use jiff::Timestamp;

use crate::appliance;
use crate::cli::{EventsAction, EventsCommand, Global};
use crate::say::{Say, width};

/// Runs a verb.
pub fn run(command: &EventsCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    match &command.action {
        EventsAction::List { last, limit } => {
            let path = format!("/v1/events?limit={limit}");
            let mut list: Envelope<EventList> = appliance::client(global)?.get(&path)?;
            if let (Some(last), control::Outcome::Data(events)) = (last, &mut list.outcome) {
                let from = Timestamp::now() - *last;
                events.0.retain(|event| event.at >= from);
            }
            say.envelope(&list, |list, _| list.human(width()));
            Ok(Exit::Success)
        }
        EventsAction::Watch { after } => watch(*after, global, say),
    }
}

/// Each event on its line (or as one JSON document), until the server stops or Ctrl-C.
fn watch(after: Option<u64>, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let after = after.map(|number| format!("&after={number}")).unwrap_or_default();
    let path = format!("/v1/stream?topics=events{after}");
    appliance::client(global)?.stream(&path, |message| {
        if message.name == "event"
            && let Ok(event) = serde_json::from_str::<Envelope<Event>>(&message.data)
        {
            say.envelope(&event, |event, _| event.line(width()));
        } else if message.name == "gap" {
            say.note("some events between are no longer kept; see: vmhold events list");
        }
        Ok(true)
    })?;
    Ok(Exit::Success)
}
