//! Wire types of `org.rdmahotplug.Detector`, made from `varlink/org.rdmahotplug.Detector.varlink` by
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
pub struct Device {
    pub index: i64,
    pub name: String,
    #[serde(rename = "kernelName")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_name: Option<String>,
    #[serde(rename = "nameAssignedByUser")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_assigned_by_user: Option<bool>,
    pub kind: Kind,
    #[serde(rename = "nodeGUID")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_guid: Option<String>,
    #[serde(rename = "systemImageGUID")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_image_guid: Option<String>,
    #[serde(rename = "nodeType")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    #[serde(rename = "pciAddress")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    #[serde(rename = "pciID")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_id: Option<String>,
    #[serde(rename = "physicalFunction")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_function: Option<String>,
    #[serde(rename = "functionNumber")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_number: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    #[serde(rename = "firmwareVersion")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware_version: Option<String>,
    #[serde(rename = "boardID")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board_id: Option<String>,
    #[serde(rename = "netnsMode")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_mode: Option<NetnsMode>,
    #[serde(rename = "inOtherNetns")]
    pub in_other_netns: bool,
    #[serde(rename = "notAnswering")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_answering: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uverbs: Option<String>,
    pub ports: Vec<Port>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    pub name: String,
    pub bus: String,
    pub state: FunctionState,
    #[serde(rename = "sinceUSec")]
    pub since_usec: i64,
    #[serde(rename = "waitsFor")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modalias: Option<String>,
    #[serde(rename = "pciID")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_id: Option<String>,
    #[serde(rename = "pciAddress")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FunctionState {
    #[serde(rename = "capable")]
    Capable,
    #[serde(rename = "personality")]
    Personality,
    #[serde(rename = "registered")]
    Registered,
}
impl FunctionState {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 3usize] = [Self::Capable, Self::Personality, Self::Registered];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capable => "capable",
            Self::Personality => "personality",
            Self::Registered => "registered",
        }
    }
}
impl std::fmt::Display for FunctionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    #[serde(rename = "function")]
    Function,
    #[serde(rename = "virtualFunction")]
    VirtualFunction,
    #[serde(rename = "subfunction")]
    Subfunction,
    #[serde(rename = "representor")]
    Representor,
    #[serde(rename = "smi")]
    Smi,
    #[serde(rename = "software")]
    Software,
}
impl Kind {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 6usize] = [
        Self::Function,
        Self::VirtualFunction,
        Self::Subfunction,
        Self::Representor,
        Self::Smi,
        Self::Software,
    ];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::VirtualFunction => "virtualFunction",
            Self::Subfunction => "subfunction",
            Self::Representor => "representor",
            Self::Smi => "smi",
            Self::Software => "software",
        }
    }
}
impl std::fmt::Display for Kind {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NetnsMode {
    #[serde(rename = "shared")]
    Shared,
    #[serde(rename = "exclusive")]
    Exclusive,
}
impl NetnsMode {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 2usize] = [Self::Shared, Self::Exclusive];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Exclusive => "exclusive",
        }
    }
}
impl std::fmt::Display for NetnsMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub number: i64,
    pub protocol: Protocol,
    #[serde(rename = "linkLayer")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_layer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    #[serde(rename = "speedMbps")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_mbps: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netdev: Option<String>,
    #[serde(rename = "gidTypes")]
    pub gid_types: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umad: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issm: Option<String>,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    #[serde(rename = "infiniband")]
    Infiniband,
    #[serde(rename = "roce")]
    Roce,
    #[serde(rename = "iwarp")]
    Iwarp,
    #[serde(rename = "opa")]
    Opa,
    #[serde(rename = "usnic")]
    Usnic,
    #[serde(rename = "unknown")]
    Unknown,
}
impl Protocol {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 6usize] = [
        Self::Infiniband,
        Self::Roce,
        Self::Iwarp,
        Self::Opa,
        Self::Usnic,
        Self::Unknown,
    ];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Infiniband => "infiniband",
            Self::Roce => "roce",
            Self::Iwarp => "iwarp",
            Self::Opa => "opa",
            Self::Usnic => "usnic",
            Self::Unknown => "unknown",
        }
    }
}
impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WaitsFor {
    #[serde(rename = "driver")]
    Driver,
    #[serde(rename = "module")]
    Module,
    #[serde(rename = "registration")]
    Registration,
}
impl WaitsFor {
    /// All values, in the order of the interface.
    pub const ALL: [Self; 3usize] = [Self::Driver, Self::Module, Self::Registration];
    /// Returns the word of the interface for the value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Module => "module",
            Self::Registration => "registration",
        }
    }
}
impl std::fmt::Display for WaitsFor {
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
pub struct NoSuchDeviceArgs {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSuchFunctionArgs {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotSynchronizedArgs {
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
pub struct TooManySubscriptionsArgs {
    pub limit: i64,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeReply {
    pub uevents: i64,
    #[serde(rename = "droppedDatagrams")]
    pub dropped_datagrams: i64,
    pub overruns: i64,
    #[serde(rename = "sequenceGaps")]
    pub sequence_gaps: i64,
    #[serde(rename = "monitorMessages")]
    pub monitor_messages: i64,
    pub scans: i64,
    #[serde(rename = "deviceReads")]
    pub device_reads: i64,
    #[serde(rename = "failedScans")]
    pub failed_scans: i64,
    #[serde(rename = "refusedRecords")]
    pub refused_records: i64,
    pub refused: Vec<String>,
    #[serde(rename = "askingUSec")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asking_usec: Option<i64>,
    #[serde(rename = "ibCore")]
    pub ib_core: bool,
    pub monitor: bool,
    #[serde(rename = "netnsMode")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_mode: Option<NetnsMode>,
    pub limits: Vec<Limit>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescribeArgs {}
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
pub struct ListFunctionsArgs {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribeDevicesReply {
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<Vec<String>>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscribeDevicesArgs {}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynchronizeReply {
    pub sequence: i64,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SynchronizeArgs {}
