//! Ports: one type per role, so that a tunnel port is never used as an application's.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use crate::{ParseError, text_identifier};

macro_rules! port {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(NonZeroU16);

        impl $name {
            /// The number, never 0.
            #[must_use]
            pub fn get(self) -> u16 {
                self.0.get()
            }
        }

        impl TryFrom<u32> for $name {
            type Error = ParseError;

            fn try_from(number: u32) -> Result<Self, ParseError> {
                u16::try_from(number)
                    .ok()
                    .and_then(NonZeroU16::new)
                    .map(Self)
                    .ok_or_else(|| ParseError::new("port", &number.to_string(), "a port is 1 to 65535"))
            }
        }

        impl TryFrom<u16> for $name {
            type Error = ParseError;

            fn try_from(number: u16) -> Result<Self, ParseError> {
                u32::from(number).try_into()
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                text.parse::<u32>().map_err(|_| ParseError::new("port", text, "it is not a number"))?.try_into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

port! {
    /// A port that a workload itself listens on (a container's port).
    AppPort
}
port! {
    /// A port of a Service, as its callers name it.
    ServicePort
}
port! {
    /// A port that a gateway or an inbound proxy accepts tunnels or sessions on.
    TunnelPort
}

/// A port's name: lower-case `a-z 0-9 -`, 1 to 63 (Service port names are DNS labels).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortName(Arc<str>);

impl PortName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PortName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        crate::label::check_label(text).map_err(|why| ParseError::new("port name", text, why))?;
        Ok(Self(text.into()))
    }
}

text_identifier!(PortName);

/// What is spoken on a port, as far as the mesh was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1, or HTTP/2 by prior knowledge; requests are balanced one by one.
    Http,
    /// HTTP/2 with prior knowledge (gRPC is this too).
    Http2,
    /// Bytes, whatever they are.
    Tcp,
    /// Datagrams.
    Udp,
    /// Nobody said: looked at when the client speaks first, else carried as bytes.
    #[default]
    Unknown,
}

impl Protocol {
    /// Whether it is HTTP of any version.
    #[must_use]
    pub fn is_http(self) -> bool {
        match self {
            Self::Http | Self::Http2 => true,
            Self::Tcp | Self::Udp | Self::Unknown => false,
        }
    }

    /// The protocol that a Service port declares: by `appProtocol` (KEP-3726 names included), else by its transport, else by the
    /// customary prefix of its name (`http-web`, `grpc`, `tcp-…`).
    #[must_use]
    pub fn declared(transport: Option<&str>, app_protocol: Option<&str>, name: Option<&str>) -> Self {
        if transport == Some("UDP") {
            return Self::Udp;
        }
        match app_protocol.map(str::to_ascii_lowercase).as_deref() {
            Some("http" | "kubernetes.io/ws") => return Self::Http,
            Some("http2" | "grpc" | "kubernetes.io/h2c") => return Self::Http2,
            Some(_) => return Self::Tcp,
            None => {}
        }
        match name.map(|name| name.split_once('-').map_or(name, |(prefix, _)| prefix)) {
            Some("http") => Self::Http,
            Some("http2" | "grpc" | "h2c") => Self::Http2,
            Some("tcp" | "tls" | "https") => Self::Tcp,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_1_to_65535() {
        assert_eq!("80".parse::<AppPort>().unwrap().get(), 80);
        for bad in ["0", "65536", "-1", "x", ""] {
            assert!(bad.parse::<AppPort>().is_err(), "{bad}");
        }
    }

    #[test]
    fn app_protocol_wins_over_the_name() {
        assert_eq!(Protocol::declared(Some("TCP"), Some("kubernetes.io/h2c"), Some("tcp-x")), Protocol::Http2);
        assert_eq!(Protocol::declared(None, None, Some("http-web")), Protocol::Http);
        assert_eq!(Protocol::declared(None, None, Some("grpc")), Protocol::Http2);
        assert_eq!(Protocol::declared(Some("UDP"), Some("http"), None), Protocol::Udp);
        assert_eq!(Protocol::declared(None, None, Some("web")), Protocol::Unknown);
    }
}
