//! Service-account tokens: JWTs signed with ES256 by a key in the data directory.
//!
//! A token is only as good as the objects it names: whoever checks one also looks up its service account and pod by uid.

use std::{io, path::Path};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::config::write_private;

/// Signs and checks tokens.
#[derive(Debug)]
pub(crate) struct Signer {
    key: EcdsaKeyPair,
}

impl Signer {
    /// Loads the key of a data directory, made on first use.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join("service-account.key");
        let pkcs8 = if path.exists() {
            std::fs::read(&path)?
        } else {
            let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(|_| io::Error::other("could not make a signing key"))?;
            write_private(&path, made.as_ref())?;
            made.as_ref().to_vec()
        };
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).map_err(io::Error::other)?;
        Ok(Self { key })
    }

    /// A signed token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> Option<String> {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "ES256", "typ": "JWT", "kid": "1"})), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }

    /// The claims of a token that this signer signed and that is valid at `now` (seconds since the epoch).
    pub(crate) fn verify(&self, token: &str, now: i64) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        public.verify(signed.as_bytes(), &signature).ok()?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split_once('.')?.1).ok()?).ok()?;
        let inside = claims["nbf"].as_i64()? <= now && now < claims["exp"].as_i64()?;
        (claims["iss"] == ISSUER && inside).then_some(claims)
    }
}

/// The issuer of every token, and the audience of those meant for this server.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_accepted_only_whole_and_in_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let signer = Signer::open(directory.path()).unwrap();
        let token = signer.sign(&json!({"iss": ISSUER, "nbf": 10, "exp": 20})).unwrap();
        assert!(signer.verify(&token, 15).is_some());
        assert!(signer.verify(&token, 20).is_none());
        assert!(signer.verify(&token, 9).is_none());
        assert!(signer.verify(&token[..token.len() - 2], 15).is_none());
        let again = Signer::open(directory.path()).unwrap();
        assert!(again.verify(&token, 15).is_some());
        let other = Signer::open(tempfile::tempdir().unwrap().path()).unwrap();
        assert!(other.verify(&token, 15).is_none());
    }
}
