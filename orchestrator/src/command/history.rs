//! The timeline that `rdma-hotplug history` prints. Pure. Must never leave a record out.

use interfaces::orchestrator::{Record, RecordKind};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::explain::duration;
use super::style::Style;

/// Renders the timeline in the time zone of this host.
#[must_use]
pub fn render(records: &[Record], style: &Style) -> String {
    render_in(records, &TimeZone::system(), style)
}

/// Renders the timeline: a line for each record, and one for each day.
#[must_use]
pub fn render_in(records: &[Record], zone: &TimeZone, style: &Style) -> String {
    let mut text = String::new();
    let mut day = String::new();
    for record in records {
        let time = Timestamp::from_microsecond(record.realtime_usec).unwrap_or_default();
        let time = time.to_zoned_datetime(zone.clone());
        let today = time.strftime("%Y-%m-%d").to_string();
        if today != day {
            text.push_str(&format!("{today}\n"));
            day = today;
        }
        let clock = time.strftime("%H:%M:%S%.3f").to_string();
        let arrow = match record.kind {
            RecordKind::Event => " ",
            RecordKind::Decision => "→",
        };
        let took = record.duration_usec.filter(|took| *took > 0);
        let took = took.map(duration);
        let took = took.map(|took| format!(" ({took})")).unwrap_or_default();
        let first = format!("{clock} {arrow} ");
        text.push_str(&style.wrap(&first, "               ", &format!("{}{took}", record.what)));
    }
    text
}
