//! The few messages of TensorBoard's event files that a log of scalars needs.
//!
//! # Source
//! TensorBoard, `tensorboard/compat/proto/event.proto` and `summary.proto` (Apache-2.0): names and numbers of the
//! fields. What is not named here is not written, and skipped when it is read.

use prost::{Enumeration, Message, Oneof};

/// What every file begins with.
pub(super) const FILE_VERSION: &str = "brain.Event:2";

/// One record of a file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub(super) wall_time: f64,
    #[prost(int64, tag = "2")]
    pub(super) step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    pub(super) what: Option<What>,
}

/// What a record tells.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// Values of one step.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub(super) value: Vec<Scalar>,
}

/// One value.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Scalar {
    #[prost(string, tag = "1")]
    pub(super) tag: String,
    /// In f32: the format has no more. It stands in a choice, so it is written also when it is zero.
    #[prost(float, optional, tag = "2")]
    pub(super) simple_value: Option<f32>,
}

/// Tells readers that the run starts again at the event's step.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionLog {
    #[prost(enumeration = "SessionStatus", tag = "1")]
    pub(super) status: i32,
}

/// State of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(super) enum SessionStatus {
    /// Not said.
    Unspecified = 0,
    /// Everything from the event's step on is written anew.
    Start = 1,
}
