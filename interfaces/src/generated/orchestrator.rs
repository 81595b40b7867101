//! Wire types of `org.rdmahotplug.Orchestrator`, made from `varlink/org.rdmahotplug.Orchestrator.varlink` by
//! `tests/freshness.rs`. Must never be edited by hand.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    #[serde(rename = "add")]
    Add,
    #[serde(rename = "change")]
    Change,
    #[serde(rename = "remove")]
    Remove,
    #[serde(rename = "resync")]
    Resync,
    #[serde(rename = "ready")]
    Ready,
}
impl Action {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 5usize] = [
        Self::Add,
        Self::Change,
        Self::Remove,
        Self::Resync,
        Self::Ready,
    ];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Change => "change",
            Self::Remove => "remove",
            Self::Resync => "resync",
            Self::Ready => "ready",
        }
    }
}
impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedUnit {
    pub name: String,
    pub target: String,
    #[serde(rename = "activeState")]
    pub active_state: String,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Condition {
    #[serde(rename = "registered")]
    Registered,
    #[serde(rename = "modules")]
    Modules,
    #[serde(rename = "verbs")]
    Verbs,
    #[serde(rename = "umad")]
    Umad,
    #[serde(rename = "cm")]
    Cm,
    #[serde(rename = "netdev")]
    Netdev,
    #[serde(rename = "targets")]
    Targets,
    #[serde(rename = "ready")]
    Ready,
}
impl Condition {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 8usize] = [
        Self::Registered,
        Self::Modules,
        Self::Verbs,
        Self::Umad,
        Self::Cm,
        Self::Netdev,
        Self::Targets,
        Self::Ready,
    ];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Modules => "modules",
            Self::Verbs => "verbs",
            Self::Umad => "umad",
            Self::Cm => "cm",
            Self::Netdev => "netdev",
            Self::Targets => "targets",
            Self::Ready => "ready",
        }
    }
}
impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub index: i64,
    pub name: String,
    pub state: State,
    #[serde(rename = "sinceUSec")]
    pub since_usec: i64,
    pub protocols: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    #[serde(rename = "pciAddress")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    pub modules: Vec<Module>,
    pub targets: Vec<Target>,
    pub conditions: Vec<DeviceCondition>,
    #[serde(rename = "waitingFor")]
    pub waiting_for: Vec<String>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCondition {
    pub condition: Condition,
    pub met: bool,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    pub name: String,
    pub state: FunctionState,
    #[serde(rename = "sinceUSec")]
    pub since_usec: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    pub modules: Vec<Module>,
    #[serde(rename = "waitingFor")]
    pub waiting_for: String,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FunctionState {
    #[serde(rename = "capable")]
    Capable,
    #[serde(rename = "personality")]
    Personality,
    #[serde(rename = "stuck")]
    Stuck,
    #[serde(rename = "excluded")]
    Excluded,
    #[serde(rename = "assigned")]
    Assigned,
}
impl FunctionState {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 5usize] = [
        Self::Capable,
        Self::Personality,
        Self::Stuck,
        Self::Excluded,
        Self::Assigned,
    ];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capable => "capable",
            Self::Personality => "personality",
            Self::Stuck => "stuck",
            Self::Excluded => "excluded",
            Self::Assigned => "assigned",
        }
    }
}
impl std::fmt::Display for FunctionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
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
pub struct Module {
    pub name: String,
    pub state: ModuleState,
    pub rule: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ModuleState {
    #[serde(rename = "pending")]
    Pending,
    #[serde(rename = "live")]
    Live,
    #[serde(rename = "missing")]
    Missing,
    #[serde(rename = "unknown")]
    Unknown,
    #[serde(rename = "excluded")]
    Excluded,
    #[serde(rename = "denied")]
    Denied,
    #[serde(rename = "failed")]
    Failed,
    #[serde(rename = "unloaded")]
    Unloaded,
}
impl ModuleState {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 8usize] = [
        Self::Pending,
        Self::Live,
        Self::Missing,
        Self::Unknown,
        Self::Excluded,
        Self::Denied,
        Self::Failed,
        Self::Unloaded,
    ];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Live => "live",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Excluded => "excluded",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Unloaded => "unloaded",
        }
    }
}
impl std::fmt::Display for ModuleState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    #[serde(rename = "realtimeUSec")]
    pub realtime_usec: i64,
    #[serde(rename = "monotonicUSec")]
    pub monotonic_usec: i64,
    pub kind: RecordKind,
    pub what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<i64>,
    #[serde(rename = "durationUSec")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_usec: Option<i64>,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RecordKind {
    #[serde(rename = "event")]
    Event,
    #[serde(rename = "decision")]
    Decision,
}
impl RecordKind {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 2usize] = [Self::Event, Self::Decision];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Decision => "decision",
        }
    }
}
impl std::fmt::Display for RecordKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub file: String,
    pub number: i64,
    pub selector: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    pub modules: Vec<Module>,
    pub roles: Vec<String>,
    pub manage: bool,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum State {
    #[serde(rename = "registered")]
    Registered,
    #[serde(rename = "ready")]
    Ready,
    #[serde(rename = "unmanaged")]
    Unmanaged,
    #[serde(rename = "moved")]
    Moved,
}
impl State {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 4usize] = [
        Self::Registered,
        Self::Ready,
        Self::Unmanaged,
        Self::Moved,
    ];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Ready => "ready",
            Self::Unmanaged => "unmanaged",
            Self::Moved => "moved",
        }
    }
}
impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub name: String,
    pub state: TargetState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TargetState {
    #[serde(rename = "waiting")]
    Waiting,
    #[serde(rename = "unknown")]
    Unknown,
    #[serde(rename = "inactive")]
    Inactive,
    #[serde(rename = "starting")]
    Starting,
    #[serde(rename = "active")]
    Active,
    #[serde(rename = "stopping")]
    Stopping,
    #[serde(rename = "failed")]
    Failed,
    #[serde(rename = "refused")]
    Refused,
    #[serde(rename = "masked")]
    Masked,
}
impl TargetState {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 9usize] = [
        Self::Waiting,
        Self::Unknown,
        Self::Inactive,
        Self::Starting,
        Self::Active,
        Self::Stopping,
        Self::Failed,
        Self::Refused,
        Self::Masked,
    ];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Unknown => "unknown",
            Self::Inactive => "inactive",
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Masked => "masked",
        }
    }
}
impl std::fmt::Display for TargetState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderUnavailableArgs {
    pub message: String,
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
pub struct NoSuchDeviceArgs {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSuchFunctionArgs {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSuchModuleArgs {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSuchRecordArgs {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotPausedArgs {}
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
pub struct TooManySubscriptionsArgs {
    pub limit: i64,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitTimedOutArgs {
    #[serde(rename = "waitingFor")]
    pub waiting_for: Vec<String>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeReply {
    #[serde(rename = "detectorConnected")]
    pub detector_connected: bool,
    #[serde(rename = "serviceManagerConnected")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_manager_connected: Option<bool>,
    pub settled: bool,
    #[serde(rename = "hardwareAnnounced")]
    pub hardware_announced: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    pub loading: Vec<Loading>,
    #[serde(rename = "leftBehind")]
    pub left_behind: Vec<String>,
    #[serde(rename = "refusedRecords")]
    pub refused_records: i64,
    #[serde(rename = "lastRefused")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refused: Option<String>,
    #[serde(rename = "ruleFiles")]
    pub rule_files: Vec<String>,
    #[serde(rename = "ruleErrors")]
    pub rule_errors: Vec<String>,
    pub limits: Vec<Limit>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescribeArgs {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainReply {
    pub device: Device,
    pub rules: Vec<Rule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<Vec<AttachedUnit>>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainArgs {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<i64>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainModuleReply {
    pub module: Module,
    #[serde(rename = "wantedBy")]
    pub wanted_by: Vec<String>,
    #[serde(rename = "wantedByCount")]
    pub wanted_by_count: i64,
    #[serde(rename = "answeredUSec")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_usec: Option<i64>,
    #[serde(rename = "durationUSec")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_usec: Option<i64>,
    pub attempts: i64,
    #[serde(rename = "retryUSec")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_usec: Option<i64>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainModuleArgs {
    pub module: String,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListReply {
    pub device: Device,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListArgs {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<i64>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListFunctionsReply {
    pub function: Function,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListFunctionsArgs {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListHistoryReply {
    pub record: Record,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListHistoryArgs {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPolicyReply {
    pub module: serde_json::Value,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListPolicyArgs {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseReply {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseArgs {
    pub reason: String,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanModuleReply {
    pub plan: serde_json::Value,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanModuleArgs {
    pub module: String,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileReply {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReconcileArgs {
    #[serde(rename = "onlyMissing")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_missing: Option<bool>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeReply {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeArgs {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribeStatusReply {
    pub action: Action,
    pub sequence: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Function>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscribeStatusArgs {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitReply {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitArgs {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    #[serde(rename = "timeoutUSec")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_usec: Option<i64>,
}
