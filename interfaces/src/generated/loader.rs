//! Wire types of `org.rdmahotplug.Loader`, made from `varlink/org.rdmahotplug.Loader.varlink` by
//! `tests/freshness.rs`. Must never be edited by hand.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Denier {
    #[serde(rename = "policy")]
    Policy,
    #[serde(rename = "blacklist")]
    Blacklist,
    #[serde(rename = "kernelCommandLine")]
    KernelCommandLine,
    #[serde(rename = "installLine")]
    InstallLine,
}
impl Denier {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 4usize] = [
        Self::Policy,
        Self::Blacklist,
        Self::KernelCommandLine,
        Self::InstallLine,
    ];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Blacklist => "blacklist",
            Self::KernelCommandLine => "kernelCommandLine",
            Self::InstallLine => "installLine",
        }
    }
}
impl std::fmt::Display for Denier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ineffective {
    pub source: String,
    pub reason: String,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub name: String,
    pub value: i64,
    pub refused: i64,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loading {
    pub module: String,
    #[serde(rename = "sinceUSec")]
    pub since_usec: i64,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleResult {
    pub module: String,
    pub outcome: Outcome,
    #[serde(rename = "standsFor")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stands_for: Option<Vec<String>>,
    pub chain: Vec<String>,
    #[serde(rename = "durationUSec")]
    pub duration_usec: i64,
    #[serde(rename = "deniedBy")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_by: Option<Denier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub culprit: Option<String>,
    #[serde(rename = "errnoName")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ModuleState {
    #[serde(rename = "absent")]
    Absent,
    #[serde(rename = "coming")]
    Coming,
    #[serde(rename = "live")]
    Live,
    #[serde(rename = "going")]
    Going,
}
impl ModuleState {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 4usize] = [
        Self::Absent,
        Self::Coming,
        Self::Live,
        Self::Going,
    ];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Coming => "coming",
            Self::Live => "live",
            Self::Going => "going",
        }
    }
}
impl std::fmt::Display for ModuleState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    #[serde(rename = "unknown")]
    Unknown,
    #[serde(rename = "failed")]
    Failed,
    #[serde(rename = "loading")]
    Loading,
}
impl Outcome {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 8usize] = [
        Self::Loaded,
        Self::AlreadyLoaded,
        Self::Builtin,
        Self::Denied,
        Self::Missing,
        Self::Unknown,
        Self::Failed,
        Self::Loading,
    ];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::AlreadyLoaded => "alreadyLoaded",
            Self::Builtin => "builtin",
            Self::Denied => "denied",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
            Self::Loading => "loading",
        }
    }
}
impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub module: String,
    #[serde(rename = "allowedBy")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    #[serde(rename = "blacklistedBy")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blacklisted_by: Option<String>,
    pub steps: Vec<Step>,
    #[serde(rename = "leftOut")]
    pub left_out: Vec<String>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub module: String,
    pub action: StepAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    pub parameters: String,
    pub required: bool,
    pub state: ModuleState,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StepAction {
    #[serde(rename = "insert")]
    Insert,
    #[serde(rename = "install")]
    Install,
    #[serde(rename = "builtin")]
    Builtin,
    #[serde(rename = "absent")]
    Absent,
}
impl StepAction {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 4usize] = [
        Self::Insert,
        Self::Install,
        Self::Builtin,
        Self::Absent,
    ];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Install => "install",
            Self::Builtin => "builtin",
            Self::Absent => "absent",
        }
    }
}
impl std::fmt::Display for StepAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageTimedOutArgs {
    #[serde(rename = "timeoutUSec")]
    pub timeout_usec: i64,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageTooLongArgs {
    #[serde(rename = "limitBytes")]
    pub limit_bytes: i64,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoModulesArgs {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoPlanArgs {
    pub message: String,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TooManyBytesArgs {
    #[serde(rename = "limitBytes")]
    pub limit_bytes: i64,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TooManyConnectionsArgs {
    pub limit: i64,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TooManyQuestionsArgs {
    pub limit: i64,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TooManySubscriptionsArgs {
    pub limit: i64,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeReply {
    pub loading: Vec<Loading>,
    pub limits: Vec<Limit>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescribeArgs {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainReply {
    pub outcome: Outcome,
    #[serde(rename = "deniedBy")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_by: Option<Denier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    pub plans: Vec<Plan>,
    pub ineffective: Vec<Ineffective>,
    pub message: String,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainArgs {
    pub module: String,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListReply {
    pub module: String,
    pub state: ModuleState,
    #[serde(rename = "allowedBy")]
    pub allowed_by: String,
    pub purpose: String,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListArgs {}
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered: Option<bool>,
    #[serde(rename = "timeoutUSec")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_usec: Option<i64>,
}
