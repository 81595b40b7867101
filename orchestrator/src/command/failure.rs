//! The messages for failed calls: the meaning of the error for the user, and the remedy. Pure. Must
//! never print, and never hide an error that it has no words for.

use std::io;
use std::path::Path;

use interfaces::client::{ClientError, ClientErrorKind};
use interfaces::log::Chain;
use interfaces::orchestrator;
use serde_json::Value;

/// Returns the error as a sentence and, if there is a remedy, the remedy in a second line.
pub fn describe(error: &ClientError) -> String {
    match &error.kind {
        ClientErrorKind::Answered { name, parameters } => {
            answered(name, parameters.as_ref()).unwrap_or_else(|| Chain(error).to_string())
        }
        ClientErrorKind::Io(e) => match (socket_unit(&error.socket), e.kind()) {
            (Some(unit), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                format!("{}\nStart it: systemctl start {unit}", Chain(error))
            }
            (Some(_), io::ErrorKind::PermissionDenied) => {
                format!("{}\nRun the command as root.", Chain(error))
            }
            _ => Chain(error).to_string(),
        },
        ClientErrorKind::TimedOut(_) | ClientErrorKind::Disconnected => {
            match socket_unit(&error.socket) {
                Some(unit) => {
                    let service = unit.replace(".socket", ".service");
                    format!("{}\nSee: systemctl status {service}", Chain(error))
                }
                None => Chain(error).to_string(),
            }
        }
        _ => Chain(error).to_string(),
    }
}

/// Returns the socket unit of a service of ours, by the name of its socket.
fn socket_unit(socket: &Path) -> Option<&'static str> {
    match socket.file_name()?.to_str()? {
        "org.rdmahotplug.Detector" => Some("rdma-detector.socket"),
        "org.rdmahotplug.Loader" => Some("rdma-loader.socket"),
        "org.rdmahotplug.Orchestrator" => Some("rdma-orchestrator.socket"),
        _ => None,
    }
}

/// Returns the message for an error in a reply. All services have the same errors for their limits.
fn answered(name: &str, parameters: Option<&Value>) -> Option<String> {
    let number = |field: &str| parameters?.get(field)?.as_i64();
    let text = |field: &str| parameters?.get(field)?.as_str();
    let sentence = match name {
        orchestrator::NO_SUCH_DEVICE => "no such RDMA device".to_owned(),
        orchestrator::NO_SUCH_RECORD => "the journal has no records to show".to_owned(),
        orchestrator::NOT_PAUSED => "nothing is paused".to_owned(),
        orchestrator::LOADER_UNAVAILABLE => text("message")?.to_owned(),
        "org.varlink.service.PermissionDenied" => {
            "permission denied\nRun the command as root.".to_owned()
        }
        _ => match name.rsplit('.').next()? {
            "TooManyConnections" => format!(
                "too many connections: the limit of {} is reached\nTry again later.",
                number("limit")?
            ),
            "TooManySubscriptions" => format!(
                "one user has at most {} subscriptions\nEnd one of them, such \
                 as 'rdma-hotplug monitor'.",
                number("limit")?
            ),
            "TooManyBytes" => format!(
                "the requests use too much memory: the limit of {} bytes is reached\nTry again later.",
                number("limitBytes")?
            ),
            _ => return None,
        },
    };
    Some(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn failure(socket: &str, kind: ClientErrorKind) -> String {
        describe(&ClientError {
            socket: socket.into(),
            method: String::new(),
            kind,
        })
    }

    /// cases.md section 8: the first message that a new user sees if the services do not run.
    #[test]
    fn a_connection_error_names_the_socket_once_and_the_remedy() {
        let none = io::Error::from_raw_os_error(2);
        assert_eq!(
            failure("/run/x/org.rdmahotplug.Orchestrator", none.into()),
            "cannot connect to /run/x/org.rdmahotplug.Orchestrator: No such file or directory (os \
             error 2)\nStart it: systemctl start rdma-orchestrator.socket"
        );
        let refused = io::Error::from_raw_os_error(13);
        assert!(
            failure("/run/x/org.rdmahotplug.Loader", refused.into())
                .ends_with("Permission denied (os error 13)\nRun the command as root.")
        );
    }

    #[test]
    fn a_known_error_reply_is_shown_as_a_sentence_and_an_unknown_one_by_its_name() {
        for (name, parameters, said) in [
            (
                "org.rdmahotplug.Orchestrator.NotPaused",
                None,
                "nothing is paused",
            ),
            (
                "org.rdmahotplug.Loader.TooManyConnections",
                Some(json!({"limit": 64})),
                "too many connections: the limit of 64 is reached\nTry again later.",
            ),
            (
                "org.varlink.service.PermissionDenied",
                Some(json!({})),
                "permission denied\nRun the command as root.",
            ),
        ] {
            let name = name.to_owned();
            assert_eq!(
                failure("/x", ClientErrorKind::Answered { name, parameters }),
                said
            );
        }
        let unknown = ClientErrorKind::Answered {
            name: "org.example.Other".to_owned(),
            parameters: None,
        };
        assert!(failure("/x", unknown).ends_with(": org.example.Other"));
    }
}
