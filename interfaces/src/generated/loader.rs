//! Wire types of `org.rdmahotplug.Loader`, made from `varlink/org.rdmahotplug.Loader.varlink` by
//! `tests/freshness.rs`. Must never be edited by hand.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denier {
    #[serde(rename = "policy")]
    Policy,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleResult {
    pub module: String,
    pub outcome: Outcome,
    pub chain: Vec<String>,
    #[serde(rename = "durationUSec")]
    pub duration_usec: i64,
    #[serde(rename = "deniedBy")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_by: Option<Denier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub culprit: Option<String>,
    #[serde(rename = "errnoName")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    #[serde(rename = "loaded")]
    Loaded,
    #[serde(rename = "alreadyLoaded")]
    AlreadyLoaded,
    #[serde(rename = "builtin")]
    Builtin,
    #[serde(rename = "denied")]
    Denied,
    #[serde(rename = "missing")]
    Missing,
    #[serde(rename = "failed")]
    Failed,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReply {
    pub results: Vec<ModuleResult>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadArgs {
    pub modules: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
