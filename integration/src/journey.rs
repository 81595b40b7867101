//! The printed log of a run: one line per event, with the time since the start and the source of
//! the event. Must never stop the lab: a closed output is ignored.

use std::io::{self, Write};
use std::time::Instant;

use interfaces::detector::{self, Function, SubscribeDevicesReply};
use interfaces::orchestrator::{self, SubscribeStatusReply};

use crate::kernel::KernelEvent;

/// The output of the log.
pub struct Journey {
    start: Instant,
    to: Box<dyn Write + Send>,
}

impl Journey {
    /// Creates a log on `to` that starts now.
    #[must_use]
    pub fn new(to: Box<dyn Write + Send>) -> Self {
        Self {
            start: Instant::now(),
            to,
        }
    }

    /// Creates a log without output.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(Box::new(io::sink()))
    }

    /// Prints one line.
    pub fn tell(&mut self, who: &str, what: &str) {
        let seconds = self.start.elapsed().as_secs_f64();
        let _ = writeln!(self.to, "{seconds:8.3} s  {who:<12}  {what}");
        let _ = self.to.flush();
    }

    /// Prints a heading.
    pub fn heading(&mut self, text: &str) {
        let _ = writeln!(self.to, "\n{text}");
        let _ = self.to.flush();
    }

    /// Prints an event of the kernel.
    pub fn kernel(&mut self, event: &KernelEvent) {
        match event {
            KernelEvent::Uevent { action, devpath } => {
                self.tell("kernel", &format!("uevent {action} {devpath}"));
            }
            KernelEvent::Inserted(module) => {
                self.tell("loader", &format!("finit_module {module}"));
            }
        }
    }

    /// Prints a reply of the detector.
    pub fn detector(&mut self, reply: &SubscribeDevicesReply) {
        if let Some(function) = &reply.function {
            return self.function(reply.action, function);
        }
        let name = reply.name.as_deref().unwrap_or_default();
        let index = reply.index.unwrap_or_default();
        let what = match (reply.action, &reply.device) {
            (detector::Action::Add | detector::Action::Change, Some(device)) => {
                let ports = device.ports.iter().map(|p| format!("{:?}", p.protocol));
                let ports: Vec<String> = ports.map(|p| p.to_lowercase()).collect();
                let ports = ports.join(" + ");
                let verb = word(reply.action == detector::Action::Add, "add", "change");
                format!("{verb} {name} (index {index}), ports: {ports}")
            }
            (detector::Action::Remove, _) => format!("remove {name} (index {index})"),
            (detector::Action::Ready, _) => "ready: every device was sent".to_owned(),
            (action, _) => format!("{action:?}").to_lowercase(),
        };
        self.tell("detector", &what);
    }

    fn function(&mut self, action: detector::Action, function: &Function) {
        let Function { name, state, .. } = function;
        let what = match (action, function.waits_for) {
            (detector::Action::Remove, _) => format!("{name} was removed"),
            (_, Some(waits_for)) => format!("{name}: {state:?}, waits for {waits_for:?}"),
            (_, None) => format!("{name}: {state:?}"),
        };
        self.tell("detector", &what.to_lowercase());
    }

    /// Prints a reply of the orchestrator.
    pub fn orchestrator(&mut self, reply: &SubscribeStatusReply) {
        let name = reply.name.as_deref().unwrap_or_default();
        let what = match (reply.action, &reply.device) {
            (orchestrator::Action::Add | orchestrator::Action::Change, Some(device)) => {
                let state = format!("{:?}", device.state).to_lowercase();
                match device.waiting_for.len() {
                    0 => format!("{name} is {state}"),
                    1 => format!("{name} is {state}, waits for 1 module"),
                    waiting => format!("{name} is {state}, waits for {waiting} modules"),
                }
            }
            (orchestrator::Action::Remove, _) => format!("{name} was removed"),
            (orchestrator::Action::Ready, _) => return,
            (action, _) => format!("{action:?}").to_lowercase(),
        };
        self.tell("orchestrator", &what);
    }
}

fn word<'w>(first: bool, one: &'w str, other: &'w str) -> &'w str {
    if first { one } else { other }
}
