//! The certificates of one cluster: one authority, and a certificate for everybody who serves or calls. Kubernetes knows a caller by its
//! certificate's subject: the common name is the user, the organisation its group. ECDSA throughout, service accounts' tokens included.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

/// Somebody who calls the API server with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// Whoever may do everything.
    Admin,
    ControllerManager,
    Scheduler,
    Proxy,
    /// The kubelet of a node; the certificate also serves kubelet's own port.
    Node {
        name: String,
        addresses: Vec<IpAddr>,
    },
    /// The API server, when it calls kubelets.
    KubeletClient,
    /// The API server, when it calls aggregated API servers.
    FrontProxy,
}

/// The authority of one cluster, and the folder with all its files.
#[derive(Debug)]
pub struct Pki {
    directory: PathBuf,
    cluster: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Makes the authority of `cluster`, a certificate for its API server at `addresses` (the first service address among them), the
    /// service accounts' keys, and a certificate for everybody but nodes, all in `directory`.
    ///
    /// # Errors
    /// When the folder can't be written.
    pub fn make(directory: &Path, cluster: &str, addresses: &[IpAddr]) -> anyhow::Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("could not make {}", directory.display()))?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("{cluster}-ca"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        fs::write(directory.join("ca.crt"), params.self_signed(&key)?.pem())?;
        fs::write(directory.join("ca.key"), key.serialize_pem())?;
        let pki = Self { directory: directory.to_owned(), cluster: cluster.to_owned(), issuer: Issuer::new(params, key) };

        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
        let names = names.into_iter().map(str::to_owned).chain(addresses.iter().map(IpAddr::to_string));
        let mut server = CertificateParams::new(names.collect::<Vec<_>>())?;
        server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        pki.sign("apiserver", server)?;
        let accounts = KeyPair::generate()?;
        fs::write(pki.path("sa.key"), accounts.serialize_pem())?;
        fs::write(pki.path("sa.pub"), accounts.public_key_pem())?;
        for user in [User::Admin, User::ControllerManager, User::Scheduler, User::Proxy, User::KubeletClient, User::FrontProxy] {
            pki.issue(&user)?;
        }
        Ok(pki)
    }

    /// Makes the certificate of one user; nodes' are made so.
    ///
    /// # Errors
    /// When the folder can't be written.
    pub fn issue(&self, user: &User) -> anyhow::Result<()> {
        let (name, group) = user.subject();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let User::Node { name, addresses } = user {
            let names = std::iter::once(name.clone()).chain(addresses.iter().map(IpAddr::to_string));
            params = CertificateParams::new(names.collect::<Vec<_>>())?;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        }
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        self.sign(&user.file(), params)
    }

    /// A file by its name: `ca.crt`, `ca.key`, `apiserver.crt`, `apiserver.key`, `sa.key`, `sa.pub`.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// A user's certificate.
    #[must_use]
    pub fn certificate(&self, user: &User) -> PathBuf {
        self.path(&format!("{}.crt", user.file()))
    }

    /// A user's key.
    #[must_use]
    pub fn key(&self, user: &User) -> PathBuf {
        self.path(&format!("{}.key", user.file()))
    }

    /// A kubeconfig for `user` of the API server at `server` (such as `https://127.0.0.1:6443`). It stands alone, its context is named
    /// after the cluster and its user after both, so that several can be merged into one file.
    ///
    /// # Errors
    /// When the user has no certificate yet.
    pub fn kubeconfig(&self, user: &User, server: &str) -> anyhow::Result<Value> {
        let data = |path: PathBuf| {
            fs::read(&path).map(|bytes| BASE64_STANDARD.encode(bytes)).with_context(|| format!("could not read {}", path.display()))
        };
        let (cluster, name) = (&self.cluster, format!("{}-{}", self.cluster, user.file()));
        Ok(json!({
            "apiVersion": "v1", "kind": "Config", "current-context": cluster,
            "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": data(self.path("ca.crt"))?}}],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": name}}],
            "users": [{"name": name, "user": {
                "client-certificate-data": data(self.certificate(user))?, "client-key-data": data(self.key(user))?,
            }}],
        }))
    }

    /// Writes that kubeconfig beside the certificates, and gives its path.
    ///
    /// # Errors
    /// When the user has no certificate yet, or the folder can't be written.
    pub fn write_kubeconfig(&self, user: &User, server: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(&format!("{}.kubeconfig", user.file()));
        fs::write(&path, serde_json::to_vec_pretty(&self.kubeconfig(user, server)?)?)?;
        Ok(path)
    }

    fn sign(&self, name: &str, mut params: CertificateParams) -> anyhow::Result<()> {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        fs::write(self.path(&format!("{name}.crt")), params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }
}

impl User {
    /// The user's name and group in Kubernetes.
    fn subject(&self) -> (String, Option<&'static str>) {
        let masters = Some("system:masters");
        match self {
            Self::Admin => ("kubernetes-admin".to_owned(), masters),
            Self::ControllerManager => ("system:kube-controller-manager".to_owned(), None),
            Self::Scheduler => ("system:kube-scheduler".to_owned(), None),
            Self::Proxy => ("system:kube-proxy".to_owned(), None),
            Self::Node { name, .. } => (format!("system:node:{name}"), Some("system:nodes")),
            Self::KubeletClient => ("kube-apiserver-kubelet-client".to_owned(), masters),
            Self::FrontProxy => ("front-proxy-client".to_owned(), None),
        }
    }

    /// How its files are named, and it in a kubeconfig.
    fn file(&self) -> String {
        match self {
            Self::Admin => "admin".to_owned(),
            Self::ControllerManager => "controller-manager".to_owned(),
            Self::Scheduler => "scheduler".to_owned(),
            Self::Proxy => "proxy".to_owned(),
            Self::Node { name, .. } => format!("node-{name}"),
            Self::KubeletClient => "kubelet-client".to_owned(),
            Self::FrontProxy => "front-proxy".to_owned(),
        }
    }
}

/// One kubeconfig with every cluster, user and context of `all`; the first one's context is the current one.
#[must_use]
pub fn merged(all: &[Value]) -> Value {
    let list = |part: &str| all.iter().filter_map(|one| one[part].as_array()).flatten().cloned().collect::<Vec<_>>();
    let current = all.first().map_or(Value::Null, |first| first["current-context"].clone());
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": current,
        "clusters": list("clusters"), "contexts": list("contexts"), "users": list("users"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubeconfigs_of_two_clusters_merge_without_a_name_in_common() {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = |cluster: &str| {
            let pki = Pki::make(&folder.path().join(cluster), cluster, &["127.0.0.1".parse().unwrap()]).unwrap();
            pki.kubeconfig(&User::Admin, "https://127.0.0.1:6443").unwrap()
        };
        let both = merged(&[kubeconfig("east"), kubeconfig("west")]);
        let names = |part: &str| both[part].as_array().unwrap().iter().map(|one| one["name"].clone()).collect::<Vec<_>>();
        assert_eq!(names("contexts"), ["east", "west"]);
        assert_eq!(names("users"), ["east-admin", "west-admin"]);
        assert_eq!(both["current-context"], "east");
    }

    #[test]
    fn a_nodes_certificate_is_made_when_the_node_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::make(folder.path(), "east", &[]).unwrap();
        let node = User::Node { name: "n1".to_owned(), addresses: vec!["172.30.0.11".parse().unwrap()] };
        assert!(pki.kubeconfig(&node, "https://172.30.0.11:6443").is_err());
        pki.issue(&node).unwrap();
        assert_eq!(pki.kubeconfig(&node, "https://172.30.0.11:6443").unwrap()["users"][0]["name"], "east-node-n1");
    }
}
