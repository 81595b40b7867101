//! The lines that `rdma-hotplug monitor` prints, one for each change. Pure. Must never hide that
//! changes were lost.

use interfaces::orchestrator::{Action, SubscribeStatusReply, TargetState};
use jiff::ZonedDateTime;

use super::style::{self, Style};

/// Formats the time at the start of a line.
#[must_use]
pub fn stamp(time: &ZonedDateTime) -> String {
    format!("{} ", time.strftime("%H:%M:%S%.3f"))
}

/// Renders one change as a line.
#[must_use]
pub fn render(reply: &SubscribeStatusReply, time: &ZonedDateTime, style: &Style) -> String {
    let verb = match reply.action {
        Action::Add => "+",
        Action::Change => " ",
        Action::Remove => "-",
        Action::Resync => {
            return style.wrap(
                &stamp(time),
                "",
                "missed some changes; showing everything again",
            );
        }
        Action::Ready => {
            return style.wrap(&stamp(time), "", "end of the present state; changes follow");
        }
    };
    let first = format!("{}{verb} ", stamp(time));
    let rest = " ".repeat(first.chars().count());
    let (what, word, tone) = match (&reply.device, &reply.function, &reply.name) {
        (Some(device), ..) => {
            let (word, tone) = style::state(device.state);
            let missing = match device.waiting_for.as_slice() {
                [] => String::new(),
                missing => format!(", waits for {}", missing.join("; ")),
            };
            let targets = &device.targets;
            let active = targets
                .iter()
                .filter(|t| t.state == TargetState::Active)
                .count();
            let targets = match targets.len() {
                0 => String::new(),
                all => format!(", {active} of {all} targets active"),
            };
            let what = format!("{} {word}{targets}{missing}", device.name);
            (what, word, tone)
        }
        (None, Some(function), _) if reply.action == Action::Remove => (
            format!("{} no longer waits", function.name),
            "",
            style::Tone::Plain,
        ),
        (None, Some(function), _) => {
            let (word, tone) = style::function_state(function.state);
            let what = format!(
                "{} {word}, waits for {}",
                function.name, function.waiting_for
            );
            (what, word, tone)
        }
        (None, None, name) => {
            let name = name.as_deref().unwrap_or_default();
            (format!("{name} was removed"), "", style::Tone::Plain)
        }
    };
    let line = style.wrap(&first, &rest, &what);
    match word {
        "" => line,
        word => line.replacen(word, &style.paint(tone, word), 1),
    }
}
