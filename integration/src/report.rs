//! The report of a run: for each step what is played and why, and what each program did. Two forms:
//! every event as it happens, or each step folded to a few lines once it is over. Must never stop the
//! lab: a closed output is ignored.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use ::orchestrator::command::style::{Style, Tone};
use interfaces::detector::{self, SubscribeDevicesReply};
use interfaces::orchestrator::{self, SubscribeStatusReply};

use crate::kernel::KernelEvent;

/// The columns before the text of a line: the time and the program.
const INDENT: usize = 26;
/// The number of names that a folded line shows.
const MAX_NAMES: usize = 3;

/// The output of the report.
pub struct Report {
    start: Instant,
    to: Box<dyn Write + Send>,
    style: Style,
    verbose: bool,
    /// True if something was printed.
    begun: bool,
    step: Step,
}

/// The events of the present step that are not printed yet.
#[derive(Default)]
struct Step {
    plugged: Vec<Instant>,
    lines: Vec<Line>,
}

/// The events of one kind.
struct Line {
    /// The time of the last event with a new name.
    at: Instant,
    kind: Kind,
    names: Vec<String>,
}

/// An event, by the words of its line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Started,
    Uevent,
    Published,
    Changed,
    Withdrawn,
    Needs,
    Inserted,
    Ready,
    Removed,
    TargetActive,
    TargetInactive,
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::Started | Self::TargetActive | Self::TargetInactive => "PID 1",
            Self::Uevent => "kernel",
            Self::Published | Self::Changed | Self::Withdrawn => "detector",
            Self::Inserted => "loader",
            Self::Needs | Self::Ready | Self::Removed => "orchestrator",
        }
    }

    /// Returns the verb before the names, the noun for many of them, and true if all names are shown.
    fn words(self) -> (&'static str, &'static str, bool) {
        match self {
            Self::Started => ("started", "services", true),
            Self::Uevent => ("sent", "uevents", false),
            Self::Published => ("published", "devices", false),
            Self::Changed => ("published the changes of", "devices", false),
            Self::Withdrawn => ("withdrew", "devices", false),
            Self::Needs => ("requests modules for", "devices", false),
            Self::Inserted => ("inserted", "modules", true),
            Self::Ready => ("ready:", "devices", false),
            Self::Removed => ("removed", "devices", false),
            Self::TargetActive => ("started", "targets", true),
            Self::TargetInactive => ("stopped", "targets", true),
        }
    }
}

impl Step {
    fn add(&mut self, kind: Kind, name: String) {
        let now = Instant::now();
        match self.lines.iter_mut().find(|line| line.kind == kind) {
            Some(line) if line.names.contains(&name) => {}
            Some(line) => {
                line.at = now;
                line.names.push(name);
            }
            None => self.lines.push(Line {
                at: now,
                kind,
                names: vec![name],
            }),
        }
    }
}

impl Line {
    fn text(&self, plugged: &[Instant]) -> String {
        let (verb, noun, all) = self.kind.words();
        let count = self.names.len();
        let text = match (count, all || count <= MAX_NAMES) {
            (_, true) if self.kind != Kind::Uevent => format!("{verb} {}", self.names.join(", ")),
            _ => format!("{verb} {count} {noun}"),
        };
        match (self.kind, plugged.first(), plugged.last()) {
            (Kind::Ready, Some(first), Some(last)) if count > 1 => format!(
                "{text}, {} after the first and {} after the last was plugged in",
                milliseconds(self.at.duration_since(*first)),
                milliseconds(self.at.duration_since(*last)),
            ),
            (Kind::Ready, Some(first), _) => format!(
                "{text}, {} after it was plugged in",
                milliseconds(self.at.duration_since(*first))
            ),
            _ => text,
        }
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

impl Report {
    /// Creates a report on `to` that starts now.
    #[must_use]
    pub fn new(to: Box<dyn Write + Send>, style: Style, verbose: bool) -> Self {
        Self {
            start: Instant::now(),
            to,
            style,
            verbose,
            begun: false,
            step: Step::default(),
        }
    }

    /// Creates a report without output. It folds nothing, because a step without an end would keep
    /// every event.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(Box::new(io::sink()), Style::plain(), true)
    }

    /// Ends the present step, and begins the next one with a sentence.
    pub fn step(&mut self, text: &str) {
        self.end_step();
        if std::mem::replace(&mut self.begun, true) {
            self.print("");
        }
        let text = self.style.wrap("", "", text);
        self.print(text.trim_end());
    }

    /// Prints the folded lines of the present step.
    pub fn end_step(&mut self) {
        let mut step = std::mem::take(&mut self.step);
        step.lines.sort_by_key(|line| line.at);
        for line in &step.lines {
            let tone = match line.kind {
                Kind::Ready => Tone::Good,
                _ => Tone::Plain,
            };
            self.line(
                line.at,
                line.kind.program(),
                &line.text(&step.plugged),
                tone,
            );
        }
    }

    /// Prints every further event as it happens.
    pub fn follow(&mut self) {
        self.end_step();
        self.verbose = true;
    }

    /// Records that a device was plugged in, or was there when the services started.
    pub fn plugged(&mut self) {
        self.step.plugged.push(Instant::now());
    }

    /// Prints text as it is.
    pub fn print(&mut self, text: &str) {
        let _ = writeln!(self.to, "{text}");
        let _ = self.to.flush();
    }

    /// Adds an event: folded, or with `text` at once.
    fn event(&mut self, kind: Kind, name: &str, text: &str) {
        match self.verbose {
            true => self.line(Instant::now(), kind.program(), text, Tone::Plain),
            false => self.step.add(kind, name.to_owned()),
        }
    }

    /// Prints an event of the lab itself.
    pub fn note(&mut self, text: &str) {
        self.line(Instant::now(), "lab", text, Tone::Plain);
    }

    fn line(&mut self, at: Instant, program: &str, text: &str, tone: Tone) {
        let seconds = at.duration_since(self.start).as_secs_f64();
        let first = format!("{seconds:8.3} s  {program:<12}  ");
        let text = self.style.wrap(&first, &" ".repeat(INDENT), text);
        let (first, rest) = text.split_at(first.len().min(text.len()));
        let line = format!("{first}{}", self.style.paint(tone, rest.trim_end()));
        self.print(&line);
    }

    /// Adds the start of a service.
    pub fn started(&mut self, service: &str) {
        self.event(Kind::Started, service, &format!("{service} is ready"));
    }

    /// Adds the start or stop of a target.
    pub fn target(&mut self, name: &str, active: bool) {
        let (kind, text) = match active {
            true => (Kind::TargetActive, format!("{name} is active")),
            false => (Kind::TargetInactive, format!("{name} is no longer wanted")),
        };
        self.event(kind, name, &text);
    }

    /// Adds an event of the kernel.
    pub fn kernel(&mut self, event: &KernelEvent) {
        match event {
            KernelEvent::Uevent { action, devpath } => {
                let text = format!("uevent {action} {devpath}");
                self.event(Kind::Uevent, &text, &text);
            }
            KernelEvent::Inserted(module) => {
                self.event(Kind::Inserted, module, &format!("inserted {module}"));
            }
        }
    }

    /// Adds a reply of the detector.
    pub fn detector(&mut self, reply: &SubscribeDevicesReply) {
        let Some(name) = &reply.name else {
            return;
        };
        let protocols = reply.device.iter().flat_map(|device| &device.ports);
        let protocols: Vec<String> = protocols.map(|port| port.protocol.to_string()).collect();
        let protocols = protocols.join(", ");
        let (kind, shown) = match reply.action {
            detector::Action::Add => (Kind::Published, format!("{name} ({protocols})")),
            detector::Action::Change => (Kind::Changed, name.clone()),
            detector::Action::Remove => (Kind::Withdrawn, name.clone()),
            detector::Action::Resync | detector::Action::Ready => return,
        };
        let index = reply.index.unwrap_or_default();
        let text = format!("{} {name} (index {index}): {protocols}", reply.action);
        self.event(kind, &shown, &text);
    }

    /// Adds a reply of the orchestrator.
    pub fn orchestrator(&mut self, reply: &SubscribeStatusReply) {
        let Some(name) = reply.name.as_deref() else {
            return;
        };
        let Some(device) = &reply.device else {
            return self.event(Kind::Removed, name, &format!("{name} was removed"));
        };
        let waits = match device.waiting_for.len() {
            0 => String::new(),
            1 => ", waits for 1 module".to_owned(),
            count => format!(", waits for {count} modules"),
        };
        let kind = match device.state {
            orchestrator::State::Ready => Kind::Ready,
            _ => Kind::Needs,
        };
        let text = format!("{name} is {}{waits}", device.state);
        match (self.verbose, kind) {
            (false, Kind::Needs) if device.waiting_for.is_empty() => {}
            _ => self.event(kind, name, &text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_counted_and_the_modules_are_all_named() {
        let mut step = Step::default();
        for number in 0..5 {
            step.add(Kind::Published, format!("mlx5_{number}"));
            step.add(Kind::Inserted, format!("module_{number}"));
        }
        step.add(Kind::Published, "mlx5_0".to_owned());
        let lines: Vec<String> = step.lines.iter().map(|line| line.text(&[])).collect();
        assert_eq!(
            lines,
            [
                "published 5 devices",
                "inserted module_0, module_1, module_2, module_3, module_4"
            ]
        );
    }
}
