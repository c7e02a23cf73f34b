//! What a cluster starts to trust with: the issuer that lies beside a root, one that is signed now, or one of a root whose key nobody keeps.

use std::path::Path;

use anyhow::Context as _;
use mesh_names::{ClusterName, TrustDomain};
use mesh_runtime::clock;
use mesh_trust::{Bundle, Issuer, Root};

use super::{SKEW, days, files};

/// An issuer and the bundle that its SVIDs are checked against.
#[derive(Debug)]
pub(crate) struct Trust {
    pub(crate) issuer: Issuer,
    pub(crate) bundle: Bundle,
}

impl Trust {
    /// What `mesh trust issue` wrote for the cluster into `directory`; if there is a root and no issuer yet, it is issued now.
    ///
    /// # Errors
    /// When neither is there, or what is there is another trust domain's.
    pub(crate) fn of(directory: &Path, cluster: &ClusterName, trust_domain: &TrustDomain) -> anyhow::Result<Self> {
        let pair = files::Pair::of(directory, cluster.as_str());
        if !pair.certificate.exists() {
            super::write_issuer(directory, cluster, trust_domain, ISSUER_DAYS)?;
        }
        let (chain, key) = pair.read()?;
        let issuer = Issuer::from_pem(&chain, &key).with_context(|| format!("{} is no issuer", pair.certificate.display()))?;
        if let Some(carried) = issuer.trust_domain().filter(|carried| *carried != trust_domain) {
            anyhow::bail!(
                "{} is the issuer of {carried}, not of {trust_domain}: name another --trust-dir or --trust-domain",
                pair.certificate.display()
            );
        }
        let bundle = Bundle::new(trust_domain.clone(), 1, vec![issuer.bundle_authority().clone()])?;
        Ok(Self { issuer, bundle })
    }

    /// An issuer below a root of its own, whose key is gone when this returns: nobody can sign another one with it.
    ///
    /// # Errors
    /// When no key can be made.
    pub(crate) fn made(trust_domain: &TrustDomain) -> anyhow::Result<Self> {
        let begins = clock::wall() - SKEW;
        let root = Root::generate(&format!("root of {trust_domain}"), begins, days(ROOT_DAYS))?;
        let issuer = root.issuer_for(trust_domain, begins, days(ISSUER_DAYS))?;
        let bundle = Bundle::new(trust_domain.clone(), 1, vec![issuer.bundle_authority().clone()])?;
        Ok(Self { issuer, bundle })
    }
}

const ROOT_DAYS: u32 = 3650;
const ISSUER_DAYS: u32 = 365;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_signed_once_and_read_from_then_on() {
        let directory = tempfile::tempdir().unwrap();
        let (west, domain) = ("west".parse().unwrap(), "west.mesh".parse().unwrap());
        let missing = Trust::of(directory.path(), &west, &domain).unwrap_err();
        assert!(missing.to_string().contains("mesh trust init"), "{missing}");
        let root = Root::generate("root", clock::wall() - SKEW, days(2)).unwrap();
        let (certificate, key) = root.to_pem();
        files::Pair::of(directory.path(), "root").write(&certificate, &key).unwrap();
        let first = Trust::of(directory.path(), &west, &domain).unwrap();
        let second = Trust::of(directory.path(), &west, &domain).unwrap();
        assert_eq!(first.issuer.chain(), second.issuer.chain());
        assert_eq!(first.bundle, second.bundle);
        assert_eq!(first.bundle.authorities()[0].der(), root.certificate());
        let other = Trust::of(directory.path(), &west, &"other.mesh".parse().unwrap()).unwrap_err();
        assert!(other.to_string().contains("is the issuer of west.mesh"), "{other}");
    }

    #[test]
    fn a_made_issuer_stands_below_its_own_bundle() {
        let made = Trust::made(&"west.mesh".parse().unwrap()).unwrap();
        assert_eq!(made.bundle.authorities()[0].der(), made.issuer.bundle_authority());
        assert_eq!(made.issuer.trust_domain().unwrap().to_string(), "west.mesh");
    }
}
