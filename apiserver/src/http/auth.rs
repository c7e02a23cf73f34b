//! Who calls: static tokens, service-account tokens. There is no anonymous access and no RBAC: who is known may do everything.

use std::{collections::HashMap, io, path::Path};

use serde_json::{Value, json};

use crate::{
    object,
    store::{Key, Store},
    tokens::{ISSUER, Signer},
};

/// A known caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// The user name.
    pub name: String,
    /// The uid; empty when there is none.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// Extra facts, such as the pod that a token is bound to.
    pub extra: Value,
}

impl User {
    /// As `UserInfo`.
    pub(crate) fn info(&self) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = json!(self.uid);
        }
        if self.extra.is_object() {
            info["extra"] = self.extra.clone();
        }
        info
    }

    /// A user whom a token file or a client certificate names.
    pub(crate) fn named(name: &str, uid: &str, groups: impl IntoIterator<Item = String>) -> Self {
        let groups = groups.into_iter().chain(["system:authenticated".to_owned()]).collect();
        Self { name: name.to_owned(), uid: uid.to_owned(), groups, extra: Value::Null }
    }
}

/// Static bearer tokens.
#[derive(Debug, Default)]
pub(crate) struct StaticTokens(HashMap<String, User>);

impl StaticTokens {
    /// Reads a token file: `token,user,uid,"group1,group2"` a line.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut tokens = Self::default();
        for line in std::fs::read_to_string(path)?.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut fields = line.splitn(4, ',').map(|field| field.trim().trim_matches('"'));
            let (Some(token), Some(name), Some(uid)) = (fields.next(), fields.next(), fields.next()) else {
                return Err(io::Error::other(format!("{}: a line needs token,user,uid", path.display())));
            };
            let groups =
                fields.next().unwrap_or_default().split(',').filter(|group| !group.is_empty()).map(|group| group.trim().to_owned());
            tokens.add(token, User::named(name, uid, groups));
        }
        Ok(tokens)
    }

    /// Adds a token.
    pub(crate) fn add(&mut self, token: &str, user: User) {
        self.0.insert(token.to_owned(), user);
    }
}

/// The user behind a bearer token that is meant for one of `audiences`, and the audiences that match.
pub(crate) fn authenticate(
    token: &str,
    audiences: &[String],
    statics: &StaticTokens,
    signer: &Signer,
    store: &Store,
) -> Option<(User, Vec<String>)> {
    if let Some(user) = statics.0.get(token) {
        return audiences.iter().any(|audience| audience == ISSUER).then(|| (user.clone(), vec![ISSUER.to_owned()]));
    }
    let claims = signer.verify(token, jiff::Timestamp::now().as_second())?;
    let meant = claims["aud"].as_array()?.iter().filter_map(Value::as_str).map(str::to_owned);
    let meant = meant.filter(|audience| audiences.contains(audience)).collect::<Vec<_>>();
    if meant.is_empty() {
        return None;
    }
    Some((service_account(&claims["kubernetes.io"], claims["jti"].as_str()?, store)?, meant))
}

/// The service account of a token, if it and the pod that the token is bound to still exist.
fn service_account(bound: &Value, id: &str, store: &Store) -> Option<User> {
    let namespace = bound["namespace"].as_str()?;
    let lives = |resource: &str, reference: &Value| {
        let found = store.get(&Key::new(resource, namespace, reference["name"].as_str()?))?;
        (object::uid(&found.value) == reference["uid"]).then_some(())
    };
    let account = &bound["serviceaccount"];
    lives("serviceaccounts", account)?;
    let mut extra = json!({"authentication.kubernetes.io/credential-id": [format!("JTI={id}")]});
    if let Some(pod) = bound.get("pod") {
        lives("pods", pod)?;
        extra["authentication.kubernetes.io/pod-name"] = json!([pod["name"]]);
        extra["authentication.kubernetes.io/pod-uid"] = json!([pod["uid"]]);
    }
    Some(User {
        name: format!("system:serviceaccount:{namespace}:{}", account["name"].as_str()?),
        uid: account["uid"].as_str()?.to_owned(),
        groups: vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}"), "system:authenticated".to_owned()],
        extra,
    })
}
