//! The errors that calls end with. Pure. Must never hold more than a caller may know.

use std::borrow::Cow;
use std::io;

use serde_json::{Map, Value};

use super::limits::{Full, Limit};
use crate::Interface;

/// The reason that a call did not end with a reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The caller receives this varlink error.
    #[error("answered {name}")]
    Answer {
        /// The error's full name.
        name: Cow<'static, str>,
        /// Its parameters.
        parameters: Map<String, Value>,
    },
    /// The peer has disconnected, or has not read for too long: no reply can be sent.
    #[error("the connection is lost")]
    ConnectionLost(#[from] io::Error),
}

impl CallError {
    /// Creates an error of the service's own interface, without parameters.
    #[must_use]
    pub fn named(name: &'static str) -> Self {
        Self::Answer {
            name: Cow::Borrowed(name),
            parameters: Map::new(),
        }
    }

    /// Creates `org.varlink.service.InvalidParameter` with the name of the parameter.
    #[must_use]
    pub fn invalid_parameter(parameter: &str) -> Self {
        Self::with(
            "org.varlink.service.InvalidParameter",
            "parameter",
            parameter,
        )
    }

    /// Creates `org.varlink.service.PermissionDenied`.
    #[must_use]
    pub fn permission_denied() -> Self {
        Self::named("org.varlink.service.PermissionDenied")
    }

    /// Creates `org.varlink.service.MethodNotFound` with the name of the method.
    #[must_use]
    pub fn method_not_found(method: &str) -> Self {
        Self::with("org.varlink.service.MethodNotFound", "method", method)
    }

    /// Creates `org.varlink.service.MethodNotImplemented` with the name of the method.
    #[must_use]
    pub fn method_not_implemented(method: &str) -> Self {
        Self::with("org.varlink.service.MethodNotImplemented", "method", method)
    }

    /// Creates an error of the service's own interface with the value of the reached limit under
    /// `key`.
    pub(super) fn limit(interface: Interface, error: &str, key: &str, limit: u64) -> Self {
        let mut parameters = Map::new();
        parameters.insert(key.to_owned(), limit.into());
        Self::Answer {
            name: format!("{}.{error}", interface.name).into(),
            parameters,
        }
    }

    /// Creates the error for a limit that was reached.
    pub(super) fn full(interface: Interface, full: Full) -> Self {
        let (error, key) = match full.limit {
            Limit::Connections | Limit::ConnectionsPerUid | Limit::ConnectionsPrivileged => {
                ("TooManyConnections", "limit")
            }
            Limit::SubscriptionsPerUid => ("TooManySubscriptions", "limit"),
            Limit::MessageBytes => ("MessageTooLong", "limitBytes"),
            Limit::Bytes | Limit::BytesPerUid | Limit::BytesPrivileged | Limit::WaitingBytes => {
                ("TooManyBytes", "limitBytes")
            }
        };
        Self::limit(interface, error, key, full.value)
    }

    /// Creates the error for a service that stops: the connection ends without a reply.
    #[must_use]
    pub fn stopped() -> Self {
        Self::ConnectionLost(io::ErrorKind::Interrupted.into())
    }

    /// Returns true for `org.varlink.service.PermissionDenied`.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Answer { name, .. } if name == "org.varlink.service.PermissionDenied")
    }

    pub(super) fn interface_not_found(interface: &str) -> Self {
        Self::with(
            "org.varlink.service.InterfaceNotFound",
            "interface",
            interface,
        )
    }

    /// Creates an error of the service's own interface, with `parameters`, which must be an object.
    #[must_use]
    pub fn answer(name: &'static str, parameters: Value) -> Self {
        Self::Answer {
            name: Cow::Borrowed(name),
            parameters: match parameters {
                Value::Object(parameters) => parameters,
                _ => Map::new(),
            },
        }
    }

    /// Creates an error with one text parameter.
    #[must_use]
    pub fn with(name: &'static str, key: &str, value: &str) -> Self {
        let mut parameters = Map::new();
        parameters.insert(key.to_owned(), value.into());
        Self::Answer {
            name: name.into(),
            parameters,
        }
    }
}
