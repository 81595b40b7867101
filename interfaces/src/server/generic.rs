//! The two interfaces that every service has: `org.varlink.service`, and systemd's
//! `io.systemd.service`. Must never depend on the service that it is part of.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Call, CallError, Service};
use crate::{Interface, lifecycle, log};

/// The interface that describes a service and its interfaces.
pub const VARLINK_SERVICE: Interface = Interface {
    name: "org.varlink.service",
    text: include_str!("../../varlink/org.varlink.service.varlink"),
};

/// The interface that systemd defines for all services.
pub const SYSTEMD_SERVICE: Interface = Interface {
    name: "io.systemd.service",
    text: include_str!("../../varlink/io.systemd.service.varlink"),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

/// Handles a call of `org.varlink.service`.
pub async fn varlink_service<S: Service>(call: &mut Call<'_>) -> Result<(), CallError> {
    let interfaces = [VARLINK_SERVICE, SYSTEMD_SERVICE, S::INTERFACE];
    match call.method() {
        "org.varlink.service.GetInfo" => {
            let NoArguments {} = call.arguments()?;
            let info = Info {
                vendor: "rdma-hotplug",
                product: S::PRODUCT,
                version: env!("CARGO_PKG_VERSION"),
                url: env!("CARGO_PKG_REPOSITORY"),
                interfaces: interfaces.map(|interface| interface.name),
            };
            call.reply(&info).await
        }
        "org.varlink.service.GetInterfaceDescription" => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Arguments {
                interface: String,
            }
            let Arguments { interface } = call.arguments()?;
            match interfaces.into_iter().find(|i| i.name == interface) {
                Some(found) => call.reply(&json!({ "description": found.text })).await,
                None => Err(CallError::interface_not_found(&interface)),
            }
        }
        method => Err(CallError::method_not_found(method)),
    }
}

#[derive(Serialize)]
struct Info {
    vendor: &'static str,
    product: &'static str,
    version: &'static str,
    url: &'static str,
    interfaces: [&'static str; 3],
}

/// Handles a call of `io.systemd.service`.
pub async fn systemd_service<S: Service>(
    call: &mut Call<'_>,
    service: &S,
) -> Result<(), CallError> {
    match call.method() {
        "io.systemd.service.Ping" => {
            let NoArguments {} = call.arguments()?;
            call.reply(&json!({})).await
        }
        "io.systemd.service.GetLogLevel" => {
            let NoArguments {} = call.arguments()?;
            call.reply(&json!({ "level": log::level() })).await
        }
        "io.systemd.service.SetLogLevel" => {
            authorise(call)?;
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Arguments {
                level: i64,
            }
            let Arguments { level } = call.arguments()?;
            if !log::set_level(level) {
                return Err(CallError::invalid_parameter("level"));
            }
            call.reply(&json!({})).await
        }
        "io.systemd.service.GetEnvironment" => {
            authorise(call)?;
            let NoArguments {} = call.arguments()?;
            let environment: Option<Vec<String>> = std::env::vars_os()
                .map(|(name, value)| Some(format!("{}={}", name.to_str()?, value.to_str()?)))
                .collect();
            match environment {
                Some(environment) => call.reply(&json!({ "environment": environment })).await,
                None => Err(CallError::named(
                    "io.systemd.service.InconsistentEnvironment",
                )),
            }
        }
        "io.systemd.service.Reload" => {
            authorise(call)?;
            let NoArguments {} = call.arguments()?;
            match lifecycle::reload(|| service.reload()) {
                Some(_) => call.reply(&json!({})).await,
                None => Err(CallError::method_not_implemented(call.method())),
            }
        }
        method => Err(CallError::method_not_found(method)),
    }
}

/// Authorises root and the service's own user.
fn authorise(call: &Call<'_>) -> Result<(), CallError> {
    let own = rustix::process::getuid().as_raw();
    call.peer().is_root_or(Some(own)).granted()
}
