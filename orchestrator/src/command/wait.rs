//! `rdma-hotplug wait`: until a device is as it should be, with what is missing meanwhile on a
//! terminal; and for `rdma-wait@.service` as long as the device is there. Must never be ready
//! before the orchestrator says so.

use std::io::{self, IsTerminal};

use interfaces::client::{Backoff, ClientErrorKind, Followed, Subscription};
use interfaces::lifecycle;
use interfaces::log::Chain;
use interfaces::orchestrator::{
    self, Action, Condition, Device, SUBSCRIBE_STATUS, SubscribeStatusArgs, SubscribeStatusReply,
    WaitArgs, WaitReply,
};

use tokio::time::Instant;

use super::ask::{Services, is_answer};
use super::{Error, Out, arguments, style};

/// Waits, and says what was waited for.
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
        never = progress(services, wait.device.as_deref()) => match never {},
    };
    out.print(&answered, |style| match &answered.device {
        Some(device) => {
            let (word, tone) = style::state(device.state);
            format!("{} is {}\n", device.name, style.paint(tone, word))
        }
        None => "everything is settled\n".to_owned(),
    })
}

/// Asks as often as the orchestrator is restarted meanwhile, each time for what is left.
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
        match ask(services, &args).await {
            Err(Error::Service(e)) if is_loss(&e.kind) => {
                if left == Some(0) {
                    return Err(Error::TimedOut(vec![Chain(&e).to_string()]));
                }
                backoff.wait().await;
            }
            outcome => return outcome,
        }
    }
}

/// Whether there was no service to answer, which a restart helps.
fn is_loss(kind: &ClientErrorKind) -> bool {
    matches!(kind, ClientErrorKind::Io(_) | ClientErrorKind::Disconnected)
}

async fn ask(services: &Services, args: &WaitArgs) -> Result<WaitReply, Error> {
    let method = orchestrator::WAIT;
    // The service keeps the time: there is no deadline here.
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

/// On a terminal says what is missing, whenever that is something else. Never ends.
#[expect(clippy::print_stderr, reason = "progress is not the answer")]
async fn progress(services: &Services, name: Option<&str>) -> std::convert::Infallible {
    if !io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let socket = services.orchestrator.clone();
    let mut changes = Subscription::new(socket, SUBSCRIBE_STATUS, &SubscribeStatusArgs {});
    loop {
        let Followed::Reply(reply) = changes.next::<SubscribeStatusReply>().await else {
            continue;
        };
        let Some(device) = reply.device else { continue };
        let concerned = name.is_none_or(|name| device.name == name);
        if concerned && !device.waiting_for.is_empty() {
            eprintln!(
                "{} waits for {}",
                device.name,
                device.waiting_for.join("; ")
            );
        }
    }
}

/// Says READY as soon as the device is as wanted, and ends when it is gone.
async fn stay(services: &Services, name: &str, wanted: &[Condition]) -> Result<(), Error> {
    let socket = services.orchestrator.clone();
    let mut changes = Subscription::new(socket, SUBSCRIBE_STATUS, &SubscribeStatusArgs {});
    let mut present: Option<i64> = None;
    let mut ready = false;
    loop {
        let reply = match changes.next::<SubscribeStatusReply>().await {
            // Until the snapshot is told it is not known to be gone.
            Followed::Begins => {
                present = None;
                continue;
            }
            Followed::Reply(reply) => reply,
            Followed::Lost(e) => {
                tracing::debug!("the orchestrator cannot be followed: {e}");
                continue;
            }
        };
        match (reply.action, &reply.device) {
            (Action::Add | Action::Change, Some(device)) if device.name == name => {
                present = Some(device.index);
                if !ready && is(device, wanted) {
                    ready = true;
                    lifecycle::ready(&format!("{name} is as wanted"));
                }
            }
            // It has another name now.
            (Action::Change, Some(device)) if present == Some(device.index) => present = None,
            (Action::Remove, _) if present == reply.index => present = None,
            (Action::Resync, _) => {
                present = None;
                continue;
            }
            // Of a snapshot that has not ended nothing is known to be gone.
            (Action::Add, _) => continue,
            _ => {}
        }
        if ready && present.is_none() {
            return Ok(());
        }
    }
}

fn is(device: &Device, wanted: &[Condition]) -> bool {
    wanted.iter().all(|wanted| {
        let mut conditions = device.conditions.iter();
        conditions.any(|c| c.condition == *wanted && c.met)
    })
}
