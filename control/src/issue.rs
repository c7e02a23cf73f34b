//! Identity: a projected service-account token and a signing request become an SVID.
//!
//! The token is asked of the API server at each request (TokenReview), so a deleted pod's token is worth nothing. Only the public key of
//! the request is used, and the id is the token's service account; nobody may ask for another, but the gateways for the one of their way out.

use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use mesh_api::proto;
use mesh_api::well_known::{BUNDLE, CONTROL_ACCOUNT, EGRESS_ACCOUNT, GATEWAY_ACCOUNT, ISSUER, SYSTEM_NAMESPACE};
use mesh_names::{Label, SpiffeId, TrustDomain};
use mesh_trust::rotation::SVID_LIFETIME;
use mesh_trust::{Bundle, Bundles, Csr, IssueError, Issuer, KeyPair, Purpose, Refused, Svid, SvidError, UnixTime, Verifier};
use tokio::sync::Semaphore;

use crate::observed::Observed;

/// Why no SVID was issued.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Facts, bundle or issuer have not been read yet, or can't be.
    #[error("control has not read the cluster's facts, bundle and issuer yet")]
    NotReady,
    /// The API server could not be asked.
    #[error("the API server could not be asked about the token")]
    Review(#[source] Box<kube::Error>),
    /// The token is none, has expired, or is for another audience.
    #[error("the token is not accepted: {why}")]
    Token {
        /// What the API server says.
        why: String,
    },
    /// The token is a person's or a node's.
    #[error("the token is not a service account's")]
    NotAServiceAccount,
    /// Only gateways have a second identity.
    #[error("only {GATEWAY_ACCOUNT} of {SYSTEM_NAMESPACE} may ask for the identity of the way out")]
    NotAGateway,
    /// The signing request is not usable, or the issuer is not.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl Refusal {
    /// The reason as a metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotReady => "not-ready",
            Self::Review(_) => "token-review-failed",
            Self::Token { .. } => "token-refused",
            Self::NotAServiceAccount => "not-a-service-account",
            Self::NotAGateway => "not-a-gateway",
            Self::Issue(IssueError::Csr { .. }) => "bad-signing-request",
            Self::Issue(_) => "issuer-unusable",
        }
    }
}

/// What issuing needs of the cluster at one moment.
#[derive(Clone, Debug)]
pub struct Authority {
    /// The own trust domain.
    pub trust_domain: TrustDomain,
    /// Its bundle.
    pub bundle: Bundle,
    /// What signs.
    pub issuer: Arc<Issuer>,
}

impl Authority {
    /// What `observed` gives; none while something is missing or does not fit together.
    #[must_use]
    pub fn of(observed: &Observed) -> Option<Self> {
        let issuer = Arc::clone(observed.issuer.only()?);
        let trust_domain = observed.facts.only()?.trust_domain.clone();
        let fits = issuer.trust_domain().is_none_or(|carried| *carried == trust_domain);
        fits.then_some(())?;
        Some(Self { trust_domain, bundle: observed.own_bundle()?, issuer })
    }

    /// Control's own SVID, which proves at once that the issuer stands below the bundle that everybody checks against.
    ///
    /// # Errors
    /// When the issuer can't be used.
    pub fn own_svid(&self, now: SystemTime) -> Result<Svid, OwnError> {
        let system: Label = SYSTEM_NAMESPACE.parse()?;
        let id = SpiffeId::workload(&self.trust_domain, &system, CONTROL_ACCOUNT)?;
        let key = KeyPair::generate()?;
        let csr = Csr::parse(&key.csr_der()?)?;
        let issued = self.issuer.issue(&csr, &id, now, SVID_LIFETIME)?;
        let at = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        let verifier = Verifier::fixed(Bundles::of(self.bundle.clone()));
        verifier.verify(&issued.chain, at, Purpose::Server).map_err(OwnError::NotBelowTheBundle)?;
        Ok(Svid::new(key, issued.chain)?)
    }
}

/// Why control has no SVID of its own.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The issuer refuses.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The key or the chain is not usable.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// What the issuer signs would be refused everywhere.
    #[error("the Secret {ISSUER} does not fit the ConfigMap {BUNDLE}: what it signs is refused ({})", .0.reason())]
    NotBelowTheBundle(Refused),
    /// Its name is none; never, for a trust domain that was parsed.
    #[error(transparent)]
    Name(#[from] mesh_names::ParseError),
}

/// Issues SVIDs.
#[derive(Debug)]
pub struct Registrar {
    reviews: Api<TokenReview>,
    audience: String,
    /// Anybody may ask, so what reaches the API server at once is limited; the rest waits, bounded by the connections' limit.
    room: Semaphore,
}

impl Registrar {
    /// Asks the API server behind `client` about tokens for `audience`.
    #[must_use]
    pub fn new(client: Client, audience: String) -> Self {
        Self { reviews: Api::all(client), audience, room: Semaphore::new(REVIEWS_MAX) }
    }

    /// Answers one request at `now`.
    ///
    /// # Errors
    /// When the token or the signing request is refused, or control can't issue yet.
    pub async fn issue(
        &self,
        authority: Option<Authority>,
        request: proto::IssueRequest,
        now: SystemTime,
    ) -> Result<(SpiffeId, proto::IssueReply), Refusal> {
        let authority = authority.ok_or(Refusal::NotReady)?;
        let csr = Csr::parse(&request.csr_der)?;
        let user = self.user(request.token).await?;
        let id = id_of(&user, &authority.trust_domain, request.for_egress)?;
        let issued = authority.issuer.issue(&csr, &id, now, SVID_LIFETIME)?;
        let not_after = issued.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let reply = proto::IssueReply {
            chain: issued.chain.iter().map(|certificate| certificate.to_vec()).collect(),
            bundle: authority.bundle.to_spiffe_json().into_bytes(),
            not_after: not_after.try_into().unwrap_or(i64::MAX),
        };
        Ok((id, reply))
    }

    async fn user(&self, token: String) -> Result<String, Refusal> {
        let refused = |why: &str| Refusal::Token { why: why.to_owned() };
        if token.is_empty() || token.len() > TOKEN_MAX {
            return Err(refused("it is empty, or longer than 16 KiB"));
        }
        let spec = TokenReviewSpec { token: Some(token), audiences: Some(vec![self.audience.clone()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let room = self.room.acquire().await;
        let reviewed = self.reviews.create(&PostParams::default(), &review).await.map_err(|error| Refusal::Review(Box::new(error)))?;
        drop(room);
        let status = reviewed.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            return Err(refused(status.error.as_deref().unwrap_or("the API server does not know it")));
        }
        if !status.audiences.is_some_and(|audiences| audiences.contains(&self.audience)) {
            return Err(refused("it is for another audience"));
        }
        status.user.and_then(|user| user.username).ok_or(Refusal::NotAServiceAccount)
    }
}

/// The id of the service account that `user` is.
fn id_of(user: &str, trust_domain: &TrustDomain, for_egress: bool) -> Result<SpiffeId, Refusal> {
    let account = user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let (namespace, account) = account.ok_or(Refusal::NotAServiceAccount)?;
    let account = match (for_egress, namespace, account) {
        (false, _, account) => account,
        (true, SYSTEM_NAMESPACE, GATEWAY_ACCOUNT) => EGRESS_ACCOUNT,
        (true, _, _) => return Err(Refusal::NotAGateway),
    };
    let namespace: Label = namespace.parse().map_err(|_| Refusal::NotAServiceAccount)?;
    SpiffeId::workload(trust_domain, &namespace, account).map_err(|_| Refusal::NotAServiceAccount)
}

/// Questions that the API server is asked at once.
const REVIEWS_MAX: usize = 32;
/// A longer token is none.
const TOKEN_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(user: &str, for_egress: bool, expected: Result<&str, &str>) {
        let id = id_of(user, &"west.mesh".parse().unwrap(), for_egress);
        let id = id.as_ref().map(SpiffeId::as_str).map_err(Refusal::reason);
        assert_eq!(id, expected, "{user}");
    }

    #[test]
    fn an_id_is_the_service_account_s_and_nobody_else_s() {
        check("system:serviceaccount:shop:web", false, Ok("spiffe://west.mesh/ns/shop/sa/web"));
        check("system:serviceaccount:shop:web.v2", false, Ok("spiffe://west.mesh/ns/shop/sa/web.v2"));
        check("admin", false, Err("not-a-service-account"));
        check("system:node:one", false, Err("not-a-service-account"));
        check("system:serviceaccount:shop:a/b/../c", false, Err("not-a-service-account"));
        check("system:serviceaccount::web", false, Err("not-a-service-account"));
    }

    #[test]
    fn only_gateways_get_the_identity_of_the_way_out() {
        check("system:serviceaccount:isthmus-system:mesh-gateway", true, Ok("spiffe://west.mesh/ns/isthmus-system/sa/mesh-egress"));
        check("system:serviceaccount:isthmus-system:mesh-gateway", false, Ok("spiffe://west.mesh/ns/isthmus-system/sa/mesh-gateway"));
        check("system:serviceaccount:shop:mesh-gateway", true, Err("not-a-gateway"));
        check("system:serviceaccount:isthmus-system:mesh-dns", true, Err("not-a-gateway"));
    }

    #[test]
    fn control_does_not_become_who_its_own_bundle_would_refuse() {
        let hour = std::time::Duration::from_secs(3600);
        let now = SystemTime::UNIX_EPOCH + hour;
        let trust_domain: TrustDomain = "west.mesh".parse().unwrap();
        let root = || mesh_trust::Root::generate("root", now, hour).unwrap();
        let (one, other) = (root(), root());
        let authority = |bundled: &mesh_trust::Root| Authority {
            bundle: Bundle::new(trust_domain.clone(), 1, vec![bundled.certificate().clone()]).unwrap(),
            issuer: Arc::new(one.issuer_for(&trust_domain, now, hour).unwrap()),
            trust_domain: trust_domain.clone(),
        };
        assert_eq!(authority(&one).own_svid(now).unwrap().id().as_str(), "spiffe://west.mesh/ns/isthmus-system/sa/mesh-control");
        assert!(matches!(authority(&other).own_svid(now), Err(OwnError::NotBelowTheBundle(Refused::UntrustedIssuer))));
    }
}
