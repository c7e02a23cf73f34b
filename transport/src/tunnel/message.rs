//! What opens a tunnel and answers it: one length-prefixed protobuf message each way, of bounded size.
//!
//! Bytes of others are parsed here, once, into typed names; nothing panics. An unknown target is refused, an unknown status reads as
//! `no-endpoint`, so that neighbours of other releases understand each other.

use mesh_names::{ClusterId, Handle, ParseError, ServiceId, ServicePort};
use prost::Message;

/// What a tunnel is opened for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelRequest {
    /// Where it should lead.
    pub target: Target,
    /// How many gateways it has crossed before.
    pub hops: u32,
}

/// Where a tunnel leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// To an endpoint of an exported service.
    Export(Export),
    /// Nowhere: the gateway answers pings and says when it drains.
    Watch,
    /// To the control plane of the gateway's cluster.
    Control(Control),
}

/// An exported service, as peers name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Export {
    /// The id of the cluster that exports it.
    pub cluster: ClusterId,
    /// The service there.
    pub service: ServiceId,
    /// The service's port.
    pub port: ServicePort,
    /// The endpoint; without one the gateway chooses.
    pub handle: Option<Handle>,
}

/// A service of a peer's control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    /// What that cluster exports.
    Exports,
    /// Its trust bundle.
    Bundle,
    /// Runs that reach into that cluster.
    Operations,
}

/// The answer to a [`TunnelRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelReply {
    /// What came of it.
    pub status: Status,
    /// The endpoint that was dialled, when the gateway chose.
    pub handle: Option<Handle>,
    /// One line for a person; never parsed.
    pub detail: String,
}

/// What came of a tunnel request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The endpoint was dialled; bytes follow.
    Accepted,
    /// No such export for this peer, whether it exists or not.
    NotExportedOrUnknown,
    /// This peer may not ask that.
    Denied,
    /// Nothing serves it now.
    NoEndpoint,
    /// The peer's quota is used up.
    Busy,
    /// The gateway is about to end: ask another.
    Draining,
    /// The tunnel crossed too many gateways.
    TooManyHops,
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// It is longer than allowed.
    #[error("a message of {length} bytes, where {max} are allowed")]
    TooLong {
        /// Its length as said.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// It is no protobuf message.
    #[error("the message does not decode")]
    Encoding(#[source] prost::DecodeError),
    /// One of its names is none.
    #[error("a name in the message is not valid")]
    Name(#[from] ParseError),
    /// It has no target, or one of a later release.
    #[error("the target is not known")]
    UnknownTarget,
}

/// Past this many bytes a request is refused unread.
pub const REQUEST_MAX: usize = 2048;

/// Past this many bytes a reply is refused unread.
pub const REPLY_MAX: usize = 1024;

/// What is kept of a detail.
const DETAIL_MAX: usize = 256;

impl TunnelRequest {
    /// A first request for `target`.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self { target, hops: 0 }
    }

    /// The message with its length before it. Names are bounded, so it always fits.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let target = match &self.target {
            Target::Export(export) => wire::Target::Export(wire::Export {
                cluster: export.cluster.as_str().to_owned(),
                namespace: export.service.namespace().as_str().to_owned(),
                service: export.service.name().as_str().to_owned(),
                port: u32::from(export.port.get()),
                handle: export.handle.as_ref().map(|handle| handle.as_str().to_owned()).unwrap_or_default(),
            }),
            Target::Watch => wire::Target::Watch(wire::Watch {}),
            Target::Control(control) => wire::Target::Control(wire::Control { kind: control.number() }),
        };
        framed(&wire::Request { target: Some(target), hops: self.hops })
    }

    /// Reads a message without its length.
    ///
    /// # Errors
    /// When it is too long, does not decode, or names something invalid or unknown.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        check_length(bytes.len(), REQUEST_MAX)?;
        let request = wire::Request::decode(bytes).map_err(Malformed::Encoding)?;
        let target = match request.target.ok_or(Malformed::UnknownTarget)? {
            wire::Target::Export(export) => Target::Export(Export {
                cluster: export.cluster.parse()?,
                service: ServiceId::parse(&export.namespace, &export.service)?,
                port: export.port.try_into()?,
                handle: if export.handle.is_empty() { None } else { Some(export.handle.parse()?) },
            }),
            wire::Target::Watch(wire::Watch {}) => Target::Watch,
            wire::Target::Control(control) => Target::Control(Control::of_number(control.kind).ok_or(Malformed::UnknownTarget)?),
        };
        Ok(Self { target, hops: request.hops })
    }
}

impl TunnelReply {
    /// A reply with nothing but its status and a line for people.
    #[must_use]
    pub fn new(status: Status, detail: impl Into<String>) -> Self {
        Self { status, handle: None, detail: detail.into() }
    }

    /// `accepted`, with the endpoint when the gateway chose it.
    #[must_use]
    pub fn accepted(handle: Option<Handle>) -> Self {
        Self { status: Status::Accepted, handle, detail: String::new() }
    }

    /// The message with its length before it; a long detail is cut.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        framed(&wire::Reply {
            status: self.status.number(),
            handle: self.handle.as_ref().map(|handle| handle.as_str().to_owned()).unwrap_or_default(),
            detail: printable(&self.detail),
        })
    }

    /// Reads a message without its length.
    ///
    /// # Errors
    /// When it is too long, does not decode, or its handle is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        check_length(bytes.len(), REPLY_MAX)?;
        let reply = wire::Reply::decode(bytes).map_err(Malformed::Encoding)?;
        let handle = if reply.handle.is_empty() { None } else { Some(reply.handle.parse()?) };
        Ok(Self { status: Status::of_number(reply.status), handle, detail: printable(&reply.detail) })
    }
}

impl Status {
    /// As it stands in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::NotExportedOrUnknown => "not-exported-or-unknown",
            Self::Denied => "denied",
            Self::NoEndpoint => "no-endpoint",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::TooManyHops => "too-many-hops",
        }
    }

    fn number(self) -> i32 {
        match self {
            Self::Accepted => 1,
            Self::NotExportedOrUnknown => 2,
            Self::Denied => 3,
            Self::NoEndpoint => 4,
            Self::Busy => 5,
            Self::Draining => 6,
            Self::TooManyHops => 7,
        }
    }

    fn of_number(number: i32) -> Self {
        match number {
            1 => Self::Accepted,
            2 => Self::NotExportedOrUnknown,
            3 => Self::Denied,
            5 => Self::Busy,
            6 => Self::Draining,
            7 => Self::TooManyHops,
            _ => Self::NoEndpoint,
        }
    }
}

impl Control {
    fn number(self) -> i32 {
        match self {
            Self::Exports => 1,
            Self::Bundle => 2,
            Self::Operations => 3,
        }
    }

    fn of_number(number: i32) -> Option<Self> {
        match number {
            1 => Some(Self::Exports),
            2 => Some(Self::Bundle),
            3 => Some(Self::Operations),
            _ => None,
        }
    }
}

pub(super) fn check_length(length: usize, max: usize) -> Result<(), Malformed> {
    if length > max { Err(Malformed::TooLong { length, max }) } else { Ok(()) }
}

/// The message after its length as two bytes, most significant first. Every message of ours is far below 64 KiB.
fn framed(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(2 + length);
    bytes.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes
}

/// A bounded line without control characters, safe in a log.
fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(DETAIL_MAX).collect()
}

/// The messages as prost has them.
mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Request {
        #[prost(oneof = "Target", tags = "1, 2, 3")]
        pub(super) target: Option<Target>,
        #[prost(uint32, tag = "4")]
        pub(super) hops: u32,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Target {
        #[prost(message, tag = "1")]
        Export(Export),
        #[prost(message, tag = "2")]
        Watch(Watch),
        #[prost(message, tag = "3")]
        Control(Control),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Export {
        #[prost(string, tag = "1")]
        pub(super) cluster: String,
        #[prost(string, tag = "2")]
        pub(super) namespace: String,
        #[prost(string, tag = "3")]
        pub(super) service: String,
        #[prost(uint32, tag = "4")]
        pub(super) port: u32,
        #[prost(string, tag = "5")]
        pub(super) handle: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Watch {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Control {
        #[prost(int32, tag = "1")]
        pub(super) kind: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Reply {
        #[prost(int32, tag = "1")]
        pub(super) status: i32,
        #[prost(string, tag = "2")]
        pub(super) handle: String,
        #[prost(string, tag = "3")]
        pub(super) detail: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export() -> TunnelRequest {
        TunnelRequest {
            target: Target::Export(Export {
                cluster: "0b9e0a52-aaaa".parse().unwrap(),
                service: "shop/web".parse().unwrap(),
                port: "80".parse().unwrap(),
                handle: Some("abcdefgh12345678".parse().unwrap()),
            }),
            hops: 1,
        }
    }

    #[test]
    fn a_request_and_a_reply_read_back_what_was_written() {
        for request in [export(), TunnelRequest::new(Target::Watch), TunnelRequest::new(Target::Control(Control::Exports))] {
            assert_eq!(TunnelRequest::decode(&request.encode()[2..]).unwrap(), request);
        }
        let reply = TunnelReply { status: Status::Busy, handle: None, detail: "quota".into() };
        assert_eq!(TunnelReply::decode(&reply.encode()[2..]).unwrap(), reply);
    }

    #[test]
    fn a_status_of_a_later_release_reads_as_no_endpoint_and_a_target_is_refused() {
        let reply = wire::Reply { status: 99, handle: String::new(), detail: String::new() };
        assert_eq!(TunnelReply::decode(&reply.encode_to_vec()).unwrap().status, Status::NoEndpoint);
        // Field 9, length-delimited, empty: a target that we do not know.
        assert!(matches!(TunnelRequest::decode(&[0x4a, 0x00]), Err(Malformed::UnknownTarget)));
        let control = wire::Request { target: Some(wire::Target::Control(wire::Control { kind: 9 })), hops: 0 };
        assert!(matches!(TunnelRequest::decode(&control.encode_to_vec()), Err(Malformed::UnknownTarget)));
    }

    #[test]
    fn names_in_a_request_are_checked() {
        let bad = wire::Export { cluster: "c".into(), namespace: "a/../b".into(), service: "web".into(), port: 80, handle: String::new() };
        let bad = wire::Request { target: Some(wire::Target::Export(bad)), hops: 0 };
        assert!(matches!(TunnelRequest::decode(&bad.encode_to_vec()), Err(Malformed::Name(_))));
    }

    #[test]
    fn no_bytes_panic_and_control_characters_do_not_survive() {
        let good = export().encode();
        for cut in 0..good.len() {
            let _ = TunnelRequest::decode(&good[cut..]);
            let mut flipped = good.clone();
            flipped[cut] ^= 0xff;
            let _ = TunnelRequest::decode(&flipped);
            let _ = TunnelReply::decode(&flipped);
        }
        let reply = TunnelReply::new(Status::Denied, "a\r\nb");
        assert_eq!(TunnelReply::decode(&reply.encode()[2..]).unwrap().detail, "ab");
    }
}
