//! The command `rdma-hotplug wait`: waits until a device meets the conditions, and shows what is
//! missing until then. For `rdma-wait@.service` it stays as long as the device exists. Must never
//! report ready before the orchestrator does.

use std::io::{self, IsTerminal};
use std::time::Duration;

use interfaces::client::{Backoff, ClientError, ClientErrorKind, Followed, Subscription};
use interfaces::lifecycle;
use interfaces::log::Chain;
use interfaces::orchestrator::{
    self, Action, Condition, Device, SUBSCRIBE_STATUS, SubscribeStatusArgs, SubscribeStatusReply,
    WaitArgs, WaitReply,
};

use tokio::time::Instant;

use super::ask::{Services, is_answer};
use super::{Error, Out, arguments, style};

/// The delay before the first message about progress, and the extra time in which the service
/// reports that a wait has timed out.
const GRACE: Duration = Duration::from_millis(500);
/// The time between two queries for what is missing.
const PROGRESS: Duration = Duration::from_secs(1);

/// The missing item while a socket accepts and no reply arrives.
const SILENT: &str = "the orchestrator, which does not answer";

/// Waits, and prints the result.
pub(super) async fn run(
    services: &Services,
    out: &Out,
    wait: arguments::Wait,
) -> Result<(), Error> {
    let conditions: Vec<Condition> = wait.conditions.iter().map(|c| (*c).into()).collect();
    let conditions = (!conditions.is_empty()).then_some(conditions);
    if wait.notify
        && let Some(name) = &wait.device
    {
        let wanted = conditions.unwrap_or_else(|| vec![Condition::Ready]);
        return stay(services, name, &wanted).await;
    }
    let args = WaitArgs {
        name: wait.device.clone(),
        conditions,
        timeout_usec: wait
            .timeout
            .map(|timeout| i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX)),
    };
    let answered = tokio::select! {
        answered = answer(services, &args) => answered?,
        never = progress(services, &args) => match never {},
    };
    out.print(&answered, |style| match &answered.device {
        Some(device) => {
            let (word, tone) = style::state(device.state);
            format!("{} is {}\n", device.name, style.paint(tone, word))
        }
        None => "everything is settled\n".to_owned(),
    })
}

/// Requests the wait, and again each time that the orchestrator restarts, with the time that is
/// left.
async fn answer(services: &Services, args: &WaitArgs) -> Result<WaitReply, Error> {
    let begin = Instant::now();
    let mut backoff = Backoff::default();
    loop {
        let spent = i64::try_from(begin.elapsed().as_micros()).unwrap_or(i64::MAX);
        let left = args
            .timeout_usec
            .map(|timeout| timeout.saturating_sub(spent).max(0));
        let args = WaitArgs {
            timeout_usec: left,
            ..args.clone()
        };
        // The service applies the timeout itself if it responds at all.
        let end = left.and_then(|left| u64::try_from(left).ok());
        let asked = ask(services, &args);
        let outcome = match end.map(|left| Duration::from_micros(left).saturating_add(GRACE)) {
            Some(end) => match tokio::time::timeout(end, asked).await {
                Ok(outcome) => outcome,
                Err(_) => return Err(Error::TimedOut(vec![SILENT.to_owned()])),
            },
            None => asked.await,
        };
        match outcome {
            Err(Error::Service(e)) if is_loss(&e.kind) => {
                if left == Some(0) {
                    return Err(Error::TimedOut(vec![unanswered(&e)]));
                }
                backoff.wait().await;
            }
            outcome => return outcome,
        }
    }
}

fn unanswered(e: &ClientError) -> String {
    match e.kind {
        ClientErrorKind::TimedOut(_) => SILENT.to_owned(),
        _ => format!("the orchestrator ({})", Chain(e)),
    }
}

/// Returns true if no service was there to reply. A restart of the service helps.
fn is_loss(kind: &ClientErrorKind) -> bool {
    matches!(kind, ClientErrorKind::Io(_) | ClientErrorKind::Disconnected)
}

async fn ask(services: &Services, args: &WaitArgs) -> Result<WaitReply, Error> {
    let method = orchestrator::WAIT;
    let mut replies = services
        .follow(&services.orchestrator, method, args)
        .await?;
    match replies.next().await {
        Ok(Some(reply)) => Ok(reply),
        Ok(None) => Ok(WaitReply { device: None }),
        Err(e) if is_answer(&e.kind, orchestrator::WAIT_TIMED_OUT) => {
            Err(Error::TimedOut(missing(&e.kind)))
        }
        Err(e) => Err(e.into()),
    }
}

fn missing(kind: &ClientErrorKind) -> Vec<String> {
    let ClientErrorKind::Answered {
        parameters: Some(parameters),
        ..
    } = kind
    else {
        return Vec::new();
    };
    let missing = parameters.get("waitingFor").cloned().unwrap_or_default();
    serde_json::from_value(missing).unwrap_or_default()
}

/// Prints what is missing: once, and on a terminal each time that it changes. Never returns.
#[expect(clippy::print_stderr, reason = "progress is not the answer")]
async fn progress(services: &Services, args: &WaitArgs) -> std::convert::Infallible {
    let now = WaitArgs {
        timeout_usec: Some(0),
        ..args.clone()
    };
    let mut said = Vec::new();
    tokio::time::sleep(GRACE).await;
    loop {
        let missing = match services.tell::<WaitReply>(orchestrator::WAIT, &now).await {
            Ok(_) => Vec::new(),
            Err(e) if is_answer(&e.kind, orchestrator::WAIT_TIMED_OUT) => missing(&e.kind),
            Err(e) => vec![unanswered(&e)],
        };
        if !missing.is_empty() && missing != said {
            eprintln!("waiting for {}", missing.join("; "));
            said = missing;
        }
        if !said.is_empty() && !io::stderr().is_terminal() {
            return std::future::pending().await;
        }
        tokio::time::sleep(PROGRESS).await;
    }
}

/// Sends READY as soon as the device meets the conditions, and returns when it is removed. The
/// records before the end of a snapshot are incomplete: neither follows from them.
async fn stay(services: &Services, name: &str, wanted: &[Condition]) -> Result<(), Error> {
    let socket = services.orchestrator.clone();
    let mut changes = Subscription::new(socket, SUBSCRIBE_STATUS, &SubscribeStatusArgs {});
    let mut device: Option<Device> = None;
    let mut known = false;
    let mut ready = false;
    loop {
        let reply = match changes.next::<SubscribeStatusReply>().await {
            Followed::Begins => {
                (device, known) = (None, false);
                continue;
            }
            Followed::Reply(reply) => reply,
            Followed::Lost(e) => {
                tracing::debug!("cannot follow the orchestrator: {e}");
                continue;
            }
        };
        let index = device.as_ref().map(|device| device.index);
        match (reply.action, reply.device) {
            (Action::Ready, _) => known = true,
            (Action::Resync, _) => (device, known) = (None, false),
            (Action::Add | Action::Change, Some(told)) if told.name == name => device = Some(told),
            // The device was renamed.
            (Action::Change, Some(told)) if index == Some(told.index) => device = None,
            (Action::Remove, _) if index.is_some() && index == reply.index => device = None,
            _ => {}
        }
        match (known, &device) {
            (true, Some(device)) if !ready && is(device, wanted) => {
                ready = true;
                lifecycle::ready(&format!("{name} meets the conditions"));
            }
            (true, None) if ready => return Ok(()),
            _ => {}
        }
    }
}

fn is(device: &Device, wanted: &[Condition]) -> bool {
    wanted.iter().all(|wanted| {
        let mut conditions = device.conditions.iter();
        conditions.any(|c| c.condition == *wanted && c.met)
    })
}
