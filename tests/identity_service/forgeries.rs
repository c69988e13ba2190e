//! Tokens that were never issued, however they look (SEC-57 to SEC-59). The broker knows what it
//! issued by its digest and reads nothing of what it did not: no header picks a key, a rule or a
//! file.

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use tollgate::identity::base64;

use crate::common::{
    packets::Version,
    wire::{ANSWER_LIMIT, Wire},
};
use crate::site::{Site, with_token};
use crate::wire::claims;

/// As JWTs write bytes.
fn unpadded(bytes: &[u8]) -> String {
    let text = base64::encode(bytes).replace('+', "-").replace('/', "_");
    text.trim_end_matches('=').to_owned()
}

/// A token in compact form, signed with this key by HS256.
fn signed(header: &Value, claims: &str, key: &[u8]) -> String {
    let head = unpadded(header.to_string().as_bytes());
    let text = format!("{head}.{}", unpadded(claims.as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let signature = hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", unpadded(signature.as_ref()))
}

/// The claims of an issued token with one of them changed, or left out.
fn but(issued: &Value, name: &str, value: Value) -> String {
    let mut claims = issued.clone();
    let members = claims.as_object_mut().expect("an object");
    match value {
        Value::Null => members.remove(name),
        value => members.insert(name.to_owned(), value),
    };
    claims.to_string()
}

#[test]
fn sec_57_sec_58_sec_59_s_19_a_forged_token_is_refused_like_any_other() {
    let site = Site::start();
    let user = site.create();
    let issued = site.issue(&user, &["chat"]);
    let good = claims(&issued);
    let parts: Vec<&str> = issued.split('.').collect();
    let keys = site.send("GET", "/.well-known/jwks.json", &[], "");
    let public = keys.json()["keys"][0].clone();
    let point = public["x"].as_str().expect("a coordinate").as_bytes();
    let plain = good.to_string();
    let hs256 = |more: Value| {
        let mut header = json!({ "alg": "HS256", "typ": "JWT", "kid": public["kid"] });
        let members = header.as_object_mut().expect("an object");
        members.extend(more.as_object().expect("an object").clone());
        header
    };
    let mut forged: Vec<String> = [
        json!({ "alg": "none" }),
        json!({ "alg": "None", "kid": null }),
        json!({ "kid": "../../secrets/registry.key" }),
        json!({ "kid": "'; DROP TABLE credential; --" }),
        json!({ "kid": "k".repeat(65) }),
        json!({ "kid": "unknown" }),
        json!({ "jwk": { "kty": "oct", "k": "AA" } }),
        json!({ "jku": format!("{}/keys", site.broker.admin_url()) }),
        json!({ "x5u": "file:///etc/passwd", "x5c": ["AA"] }),
        json!({ "crit": ["exp"] }),
    ]
    .into_iter()
    .map(|more| signed(&hs256(more), &plain, point))
    .collect();
    // The public key, as it is shown, for a secret one.
    for key in [public.to_string().as_bytes(), point, b""] {
        forged.push(signed(&hs256(json!({})), &plain, key));
    }
    for claims in [
        but(&good, "exp", Value::Null),
        but(&good, "exp", json!("never")),
        but(&good, "exp", json!(u64::MAX)),
        but(&good, "nbf", json!(4_000_000_000_u64)),
        but(&good, "aud", json!("somebody-else")),
        but(&good, "iss", json!("somebody-else")),
        plain.replacen('{', r#"{"sub":"8:acs:other","#, 1),
        "[".repeat(9),
    ] {
        forged.push(signed(&hs256(json!({})), &claims, point));
        // With the signature of the one that was issued.
        let claims = unpadded(claims.as_bytes());
        forged.push(format!("{}.{claims}.{}", parts[0], parts[2]));
    }
    forged.push(format!("{}.{}.{}", parts[0], "A".repeat(32_000), parts[2]));
    for token in &forged {
        assert_eq!(refusal(&site, &user, token), Some(0x86), "{token:.200}");
    }
    // As long as a field can be: more than CONNECT may have.
    let long = "A".repeat(usize::from(u16::MAX));
    assert_ne!(refusal(&site, &user, &long), Some(0));
    assert_eq!(refusal(&site, &user, &issued), Some(0), "still good");
}

/// The reason of the CONNACK, over TCP and TLS alike.
fn refusal(site: &Site, user: &str, token: &str) -> Option<u8> {
    let connect = with_token(Version::V5, "c", Some(user), token).encode();
    let [plain, tls] = [site.broker.wire(), site.broker.wire_tls()].map(|mut wire: Wire| {
        wire.send(&connect);
        let connack = wire.packet_within(ANSWER_LIMIT)?;
        Some(connack[3])
    });
    assert_eq!(plain, tls, "TCP and TLS differ for {} bytes", connect.len());
    plain
}
