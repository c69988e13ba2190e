//! The key that users' tokens are signed with, and the public half that others check them by.
//!
//! ES256 (ECDSA with P-256 and SHA-256), one key pair for each installation. The broker itself
//! knows its tokens by their digests: the signature is for programs beside it, which read the
//! public key at `/.well-known/jwks.json`. A lost key is replaced by a new one; tokens that were
//! signed with the old one go on opening the door.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use crate::identity::base64;

/// Signs tokens.
pub(in crate::identity) struct Signer {
    key: EcdsaKeyPair,
    /// Names the key: its thumbprint (RFC 7638).
    key_id: String,
    x: String,
    y: String,
}

impl Signer {
    /// A fresh private key, as it is kept in its file.
    pub(in crate::identity) fn generate() -> Option<String> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
        let document = key.to_pkcs8v1().ok()?;
        Some(base64::encode(document.as_ref()))
    }

    /// Reads a private key; `None` if the text is none.
    pub(in crate::identity) fn read(text: &str) -> Option<Signer> {
        let document = base64::decode(text)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &document).ok()?;
        // Uncompressed: 4, then both coordinates.
        let point = key.public_key().as_ref().strip_prefix(&[4])?;
        let (x, y) = point.split_first_chunk::<32>()?;
        let (x, y) = (base64::encode_url(x), base64::encode_url(y));
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let thumbprint = digest::digest(&digest::SHA256, members.as_bytes());
        Some(Signer {
            key_id: base64::encode_url(thumbprint.as_ref()),
            key,
            x,
            y,
        })
    }

    /// A JWT with these claims, which are a JSON object.
    ///
    /// # Panics
    /// If the system gives no random numbers: then no token may be made.
    pub(super) fn sign(&self, claims: &str) -> String {
        let header = format!(r#"{{"alg":"ES256","kid":"{}","typ":"JWT"}}"#, self.key_id);
        let mut token = base64::encode_url(header.as_bytes());
        token.push('.');
        token.push_str(&base64::encode_url(claims.as_bytes()));
        let signature = self
            .key
            .sign(&SystemRandom::new(), token.as_bytes())
            .expect("without random numbers no token may be made");
        token.push('.');
        token.push_str(&base64::encode_url(signature.as_ref()));
        token
    }

    /// The public key as a JSON Web Key Set (RFC 7517).
    pub(super) fn public_keys(&self) -> String {
        let Signer { key_id, x, y, .. } = self;
        let names = format!(r#""kid":"{key_id}","use":"sig","alg":"ES256""#);
        format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}",{names}}}]}}"#)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.key_id)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    #[test]
    fn id_40_a_token_is_signed_by_the_key_that_is_shown() {
        let text = Signer::generate().unwrap();
        let signer = Signer::read(&text).unwrap();
        let token = signer.sign(r#"{"sub":"a"}"#);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let usual = |text: &str| {
            let mut text = text.replace('-', "+").replace('_', "/");
            while !text.len().is_multiple_of(4) {
                text.push('=');
            }
            base64::decode(&text).unwrap()
        };
        let (header, claims) = signed.split_once('.').unwrap();
        assert_eq!(usual(claims), br#"{"sub":"a"}"#);
        let header = String::from_utf8(usual(header)).unwrap();
        assert!(header.contains(r#""alg":"ES256""#) && header.contains(&signer.key_id));
        assert!(signer.public_keys().contains(&signer.key_id));
        let point = [&[4][..], &usual(&signer.x), &usual(&signer.y)].concat();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        assert!(public.verify(signed.as_bytes(), &usual(signature)).is_ok());
        assert!(public.verify(b"other", &usual(signature)).is_err());
        for bad in ["", "AAAA", &text[..text.len() - 4]] {
            assert!(Signer::read(bad).is_none());
        }
        let shown = format!("{signer:?}");
        assert!(!shown.contains(&text[40..60]), "{shown}");
    }
}
