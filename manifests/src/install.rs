//! What an installation is made of: every choice that a person has, parsed once, and its one written form.
//!
//! The choices are kept in the cluster, in the ConfigMap [`FACTS`], so that `mesh upgrade` asks for none of them again and control reads
//! those that concern it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
pub use mesh_api::inject::Inbound;
use mesh_api::well_known::FACTS;
use mesh_names::{ClusterName, ParseError, TrustDomain};

/// Everything that differs between two installations, trust aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Where the images are.
    pub images: Images,
    /// Replicas of control, mirror controller, gateway and DNS each.
    pub replicas: Replicas,
    /// How peers reach the gateways.
    pub gateway: GatewayType,
    /// The ranges of pods, Services and cluster-set addresses: where plaintext needs a positive "not meshed".
    pub ranges: Vec<IpNet>,
    /// What becomes of a pod to be meshed while no control answers.
    pub webhook: FailurePolicy,
    /// Whether endpoints without a proxy are exported unless the export or the namespace says otherwise.
    pub allow_unmeshed: bool,
    /// Whether plaintext is let in unless the namespace says otherwise.
    pub inbound: Inbound,
}

/// The registry and the tag of every image of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// What comes before `/control:TAG`.
    pub registry: Registry,
    /// The version.
    pub tag: Tag,
}

/// What comes before the last part of an image's name, such as `registry.example:5000/isthmus`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry(String);

/// An image's tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(String);

/// How many replicas a component has: 1 to 20.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas(u8);

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
        pub enum $name {
            $($(#[$about])* #[value(name = $text)] $variant,)*
        }

        impl $name {
            /// As it is written.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Every word for it.
            pub const WORDS: &[&str] = &[$($text),*];
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(ParseError::new(stringify!($name), text, concat!("it is none of:" $(, " ", $text)*))),
                }
            }
        }
    };
}

choice! {
    /// How peers reach the gateways.
    GatewayType {
        /// Through a load balancer.
        #[default]
        LoadBalancer = "LoadBalancer",
        /// Through a port of every node.
        NodePort = "NodePort",
    }
}

choice! {
    /// What becomes of a pod to be meshed while no control answers.
    FailurePolicy {
        /// It is not created.
        #[default]
        Fail = "Fail",
        /// It is created without a proxy.
        Ignore = "Ignore",
    }
}

impl FromStr for Registry {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = |why| ParseError::new("registry", text, why);
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/:".contains(&byte);
        if text.is_empty() || text.len() > 200 || !text.bytes().all(allowed) {
            return Err(error("it is lower-case letters, digits and ._-/: only"));
        }
        if text.split('/').any(str::is_empty) {
            return Err(error("a part between slashes is empty"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Tag {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !begins || text.len() > 128 || !text.bytes().all(allowed) {
            return Err(ParseError::new("tag", text, "it is letters, digits and ._- only, 128 at most"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Replicas {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let number = text.parse().ok().filter(|number| (1..=20).contains(number));
        number.map(Self).ok_or_else(|| ParseError::new("number of replicas", text, "it is 1 to 20"))
    }
}

impl Replicas {
    /// The number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Images {
    /// The image of a component.
    #[must_use]
    pub fn of(&self, component: &str) -> String {
        format!("{}/{component}:{}", self.registry, self.tag)
    }
}

impl Default for Images {
    fn default() -> Self {
        Self { registry: Registry("isthmus".to_owned()), tag: Tag(env!("CARGO_PKG_VERSION").to_owned()) }
    }
}

impl Default for Replicas {
    fn default() -> Self {
        Self(2)
    }
}

/// Why the ConfigMap of an installation can't be read.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// A choice is not there.
    #[error("ConfigMap isthmus-system/{FACTS} lacks {key}: install the mesh again")]
    Lacks {
        /// Its key.
        key: &'static str,
    },
    /// A choice is none.
    #[error("ConfigMap isthmus-system/{FACTS} can't be used")]
    Unusable(#[from] ParseError),
    /// A range is none.
    #[error("ConfigMap isthmus-system/{FACTS} names a range that is none: {text:?}")]
    Range {
        /// What it says.
        text: String,
    },
}

impl Install {
    /// With everything but the name as it is by default.
    #[must_use]
    pub fn new(cluster: ClusterName) -> Self {
        Self {
            trust_domain: TrustDomain::default_for(&cluster),
            cluster,
            images: Images::default(),
            replicas: Replicas::default(),
            gateway: GatewayType::default(),
            ranges: Vec::new(),
            webhook: FailurePolicy::default(),
            allow_unmeshed: false,
            inbound: Inbound::default(),
        }
    }

    /// What the ConfigMap [`FACTS`] says.
    ///
    /// # Errors
    /// When something is missing or can't be read.
    pub fn from_facts(facts: &BTreeMap<String, String>) -> Result<Self, FactsError> {
        let text = |key: &'static str| facts.get(key).map(String::as_str).ok_or(FactsError::Lacks { key });
        let range = |text: &str| text.parse().map_err(|_| FactsError::Range { text: text.to_owned() });
        Ok(Self {
            cluster: text(CLUSTER)?.parse()?,
            trust_domain: text(TRUST_DOMAIN)?.parse()?,
            images: Images { registry: text(REGISTRY)?.parse()?, tag: text(TAG)?.parse()? },
            replicas: text(REPLICAS)?.parse()?,
            gateway: text(GATEWAY)?.parse()?,
            ranges: text(RANGES)?.split_whitespace().map(range).collect::<Result<_, _>>()?,
            webhook: text(WEBHOOK)?.parse()?,
            allow_unmeshed: text(ALLOW_UNMESHED)? == "true",
            inbound: text(INBOUND)?.parse()?,
        })
    }
}

// The keys of the ConfigMap.
pub(crate) const CLUSTER: &str = "cluster";
pub(crate) const TRUST_DOMAIN: &str = "trustDomain";
pub(crate) const REGISTRY: &str = "registry";
pub(crate) const TAG: &str = "tag";
pub(crate) const REPLICAS: &str = "replicas";
pub(crate) const GATEWAY: &str = "gateway";
pub(crate) const RANGES: &str = "ranges";
pub(crate) const WEBHOOK: &str = "webhook";
pub(crate) const ALLOW_UNMESHED: &str = "allowUnmeshed";
pub(crate) const INBOUND: &str = "inbound";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_is_read_back_from_the_object_that_it_makes() {
        let mut install = Install::new("west".parse().unwrap());
        install.images = Images { registry: "r.example:5000/mesh".parse().unwrap(), tag: "v1.2-rc.3".parse().unwrap() };
        install.replicas = "3".parse().unwrap();
        install.gateway = GatewayType::NodePort;
        install.ranges = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/48".parse().unwrap()];
        install.webhook = FailurePolicy::Ignore;
        install.allow_unmeshed = true;
        install.inbound = Inbound::Strict;
        for install in [install, Install::new("east".parse().unwrap())] {
            let objects = crate::objects(&install);
            let facts = objects.iter().find(|object| object.kind() == "ConfigMap" && object.name() == FACTS).unwrap();
            let data = serde_json::from_value(facts.body()["data"].clone()).unwrap();
            assert_eq!(Install::from_facts(&data).unwrap(), install);
        }
    }

    #[test]
    fn what_could_break_out_of_an_image_name_is_refused() {
        for bad in ["", "a b", "A", "a//b", "a\nb", "{{x}}", "a\"", "/a", "a/"] {
            assert!(bad.parse::<Registry>().is_err(), "{bad:?}");
        }
        for bad in ["", "-a", "a:b", "a/b", "a\n", "{{x}}", "a b"] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
        for bad in ["0", "21", "x", "-1"] {
            assert!(bad.parse::<Replicas>().is_err(), "{bad:?}");
        }
    }
}
