//! What an endpoint is called outside its cluster: a keyed hash of its pod's uid.
//!
//! The key lies in a Secret that whichever replica comes first makes, so every replica gives the same handle and a restart changes none.
//! Without the key a handle tells nothing, and nobody outside can find out which pod it is.

use aws_lc_rs::hmac;
use mesh_names::{EndpointName, Handle};

/// Names endpoints.
pub struct Handles(hmac::Key);

impl Handles {
    /// Names endpoints with this key; none when it is shorter than 16 bytes.
    #[must_use]
    pub fn new(key: &[u8]) -> Option<Self> {
        (key.len() >= KEY_MIN).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// The handle of an endpoint.
    #[must_use]
    #[expect(clippy::expect_used, reason = "32 hexadecimal digits are a handle")]
    pub fn of(&self, endpoint: &EndpointName) -> Handle {
        let tag = hmac::sign(&self.0, endpoint.as_str().as_bytes());
        let text: String = tag.as_ref()[..HANDLE_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        text.parse().expect("hexadecimal digits are a handle")
    }
}

impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handles(secret)")
    }
}

/// How long a new key is.
pub const KEY_BYTES: usize = 32;
/// A shorter key is none.
const KEY_MIN: usize = 16;
/// 128 bits: no two endpoints of a cluster set share a handle.
const HANDLE_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_depends_on_key_and_endpoint_and_on_nothing_else() {
        let (one, other) = (Handles::new(&[1; 32]).unwrap(), Handles::new(&[2; 32]).unwrap());
        let (pod, next): (EndpointName, EndpointName) = ("uid-1".parse().unwrap(), "uid-2".parse().unwrap());
        assert_eq!(one.of(&pod), Handles::new(&[1; 32]).unwrap().of(&pod));
        assert_ne!(one.of(&pod), other.of(&pod));
        assert_ne!(one.of(&pod), one.of(&next));
        assert!(Handles::new(&[1; 8]).is_none());
    }
}
