//! The output of `rdma-hotplug replay`: events, with the recorded decisions beside those of the
//! replay. Pure. Must never leave out a difference.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::style::{Style, Tone};
use crate::journal::replay::Step;
use crate::journal::story;
use crate::machine::Action;

/// One event with its decisions, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The time, in µs of CLOCK_REALTIME.
    #[serde(rename = "realtimeUSec")]
    pub realtime_usec: i64,
    /// The event.
    pub event: String,
    /// The decisions that are recorded and made in the replay.
    pub both: Vec<String>,
    /// The decisions that are only recorded.
    pub then: Vec<String>,
    /// The decisions that are only made in the replay.
    pub now: Vec<String>,
}

/// Returns a row for each step that has something to show.
#[must_use]
pub fn rows(steps: &[Step]) -> Vec<Row> {
    let rows = steps.iter().map(|step| {
        let words =
            |actions: &[Action]| -> Vec<String> { actions.iter().filter_map(story::say).collect() };
        let (then, now) = (words(&step.recorded), words(&step.made));
        let only = |of: &[String], not: &[String]| -> Vec<String> {
            of.iter()
                .filter(|words| !not.contains(words))
                .cloned()
                .collect()
        };
        Row {
            realtime_usec: step.times.realtime,
            event: story::say_event(&step.event).unwrap_or_default(),
            both: then
                .iter()
                .filter(|words| now.contains(words))
                .cloned()
                .collect(),
            then: only(&then, &now),
            now: only(&now, &then),
        }
    });
    rows.filter(|row| !row.event.is_empty() || !row.is_without_decision())
        .collect()
}

impl Row {
    fn is_without_decision(&self) -> bool {
        self.both.is_empty() && self.then.is_empty() && self.now.is_empty()
    }
}

/// Renders the rows: `=` before a decision that is the same, `-` before one that is only recorded,
/// `+` before one that is only made in the replay. The last line shows the number of differences.
#[must_use]
pub fn render(rows: &[Row], style: &Style) -> String {
    let zone = TimeZone::system();
    let mut text = String::new();
    for row in rows {
        let time = Timestamp::from_microsecond(row.realtime_usec).unwrap_or_default();
        let time = time
            .to_zoned_datetime(zone.clone())
            .strftime("%H:%M:%S%.3f")
            .to_string();
        let event = match row.event.as_str() {
            "" => "a deadline, or a part of a snapshot",
            event => event,
        };
        text.push_str(&style.wrap(&format!("{time} "), "             ", event));
        for (mark, tone, words) in [
            ("=", Tone::Plain, &row.both),
            ("-", Tone::Bad, &row.then),
            ("+", Tone::Good, &row.now),
        ] {
            for words in words {
                let line = style.wrap(&format!("             {mark} "), "               ", words);
                text.push_str(&line.replacen(mark, &style.paint(tone, mark), 1));
            }
        }
    }
    let different = rows
        .iter()
        .filter(|row| !row.then.is_empty() || !row.now.is_empty());
    text.push_str(&match different.count() {
        0 => "every decision is the same\n".to_owned(),
        1 => "the decisions differ after 1 event\n".to_owned(),
        count => format!("the decisions differ after {count} events\n"),
    });
    text
}
