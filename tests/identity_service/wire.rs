//! The operations by hand: bodies, headers, refusals, and what a token says.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::common::packets::Version;
use crate::site::{CREATE, ISSUE, REVOKE, Reply, Site, operation, renew, text};

#[test]
fn id_01_create_without_a_body_gives_an_identity_alone() {
    let site = Site::start();
    let mut seen = Vec::new();
    for body in [
        "",
        "{}",
        r#"{"createTokenWithScopes":[]}"#,
        r#"{"later":1}"#,
    ] {
        let reply = site.call("POST", CREATE, body);
        assert_eq!(reply.status, 201, "{reply:?}");
        let members = reply.json();
        assert_eq!(members.as_object().unwrap().len(), 1, "{members}");
        let id = text(&members["identity"]["id"]);
        let (resource, user) = id.strip_prefix("8:acs:").unwrap().split_once('_').unwrap();
        assert_eq!((resource.len(), user.len()), (36, 36), "{id}");
        assert!(!seen.contains(&id));
        seen.push(id);
    }
    // The resource is one and stays.
    let resource = |id: &String| id.split('_').next().unwrap().to_owned();
    assert!(seen.iter().all(|id| resource(id) == resource(&seen[0])));
}

#[test]
fn id_02_create_with_scopes_gives_a_token_too() {
    let site = Site::start();
    let body = json!({ "createTokenWithScopes": ["chat"], "expiresInMinutes": 60 }).to_string();
    let reply = site.call("POST", CREATE, &body).json();
    let (id, token) = (text(&reply["identity"]["id"]), &reply["accessToken"]);
    let life = claims(&text(&token["token"]));
    assert_eq!(
        life["exp"].as_u64().unwrap() - life["iat"].as_u64().unwrap(),
        3600
    );
    assert_eq!(
        site.connack(Version::V5, Some(&id), &text(&token["token"])),
        0
    );
    // What is refused makes no identity, and a life time alone is checked.
    let users = || site.broker.metric("tollgate_users");
    let before = users();
    for (body, refusal) in [
        (
            json!({ "createTokenWithScopes": ["fax"] }),
            "400 InvalidScopes",
        ),
        (
            json!({ "createTokenWithScopes": ["chat"], "expiresInMinutes": 59 }),
            "400 InvalidExpiration",
        ),
        (json!({ "expiresInMinutes": 1441 }), "400 InvalidExpiration"),
    ] {
        let reply = site.call("POST", CREATE, &body.to_string());
        assert_eq!(reply.refusal(), refusal, "{body}");
    }
    assert_eq!(users(), before);
}

#[test]
fn id_03_id_07_id_13_tokens_are_issued_for_ids_however_they_are_written() {
    let site = Site::start();
    let user = site.create();
    let mut tokens = Vec::new();
    for user in [
        user.clone(),
        user.replace(':', "%3A"),
        user.replace(':', "%3a"),
        user.replacen(':', "%3A", 1),
    ] {
        let reply = site.call("POST", &operation(&user, ISSUE), r#"{"scopes": ["chat"]}"#);
        let token = reply.json();
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(token.as_object().unwrap().len(), 2);
        tokens.push(text(&token["token"]));
    }
    // Refresh: all of them work, each by itself.
    for token in &tokens {
        assert_eq!(site.connack(Version::V5, Some(&user), token), 0);
    }
    tokens.dedup();
    assert_eq!(tokens.len(), 4);
}

#[test]
fn id_08_the_version_is_known_and_shown() {
    let site = Site::start();
    const ALL: &str = "2021-03-07, 2022-06-01, 2022-10-01, 2023-10-01";
    for version in ALL.split(", ") {
        let reply = site.call("POST", &format!("/identities?api-version={version}"), "");
        assert_eq!(reply.status, 201, "{version}");
        assert_eq!(reply.header("api-supported-versions"), Some(ALL));
        assert!(reply.header("x-ms-request-id").is_some());
    }
    for query in [
        "",
        "?",
        "?api-version=",
        "?api-version=2020-01-01",
        "?api-version=%",
    ] {
        let reply = site.call("POST", &format!("/identities{query}"), "");
        assert_eq!(reply.refusal(), "400 UnsupportedApiVersion", "{query}");
        assert_eq!(reply.header("api-supported-versions"), Some(ALL));
    }
}

#[test]
fn id_09_refusals_have_their_form_and_codes() {
    let site = Site::start();
    let user = site.create();
    let stranger = user.replace('_', "_0").replace("_0", "_f");
    let issue = |body: &str| site.call("POST", &operation(&user, ISSUE), body).refusal();
    for body in [
        "",
        "{}",
        r#"{"scopes":[]}"#,
        r#"{"scopes":null}"#,
        r#"{"scopes":["Chat"]}"#,
    ] {
        assert_eq!(issue(body), "400 InvalidScopes", "{body}");
    }
    for body in [
        "x",
        "[]",
        "\"chat\"",
        r#"{"scopes":"chat"}"#,
        r#"{"scopes":[1]}"#,
    ] {
        assert_eq!(issue(body), "400 InvalidRequest", "{body}");
    }
    for (target, method, refusal) in [
        (operation(&stranger, ISSUE), "POST", "404 IdentityNotFound"),
        (operation("8:acs:x", ISSUE), "POST", "404 IdentityNotFound"),
        (operation("%ff", REVOKE), "POST", "404 IdentityNotFound"),
        (operation(&stranger, ""), "DELETE", "404 IdentityNotFound"),
        (operation(&user, ISSUE), "GET", "405 MethodNotAllowed"),
        (operation(&user, ""), "PUT", "405 MethodNotAllowed"),
        (CREATE.to_owned(), "DELETE", "405 MethodNotAllowed"),
        (operation(&user, "/:other"), "POST", "404 NotFound"),
        ("/identities/a/b/c/d".to_owned(), "POST", "404 NotFound"),
    ] {
        let body = r#"{"scopes":["chat"]}"#;
        let reply = site.call(method, &target, body);
        assert_eq!(reply.refusal(), refusal, "{method} {target}");
    }
    let long = format!(r#"{{"scopes":["chat"],"x":"{}"}}"#, "x".repeat(64 * 1024));
    assert_eq!(issue(&long), "413 PayloadTooLarge");
    let reply = site.call("POST", &operation(&user, ISSUE), r#"{"scopes":["fax"]}"#);
    assert_eq!(reply.json()["error"]["target"], "scopes");
}

#[test]
fn id_10_id_11_scopes_and_life_times_at_their_edges() {
    let site = Site::start();
    let user = site.create();
    let issue = |body: Value| site.call("POST", &operation(&user, ISSUE), &body.to_string());
    for scope in [
        "chat",
        "voip",
        "chat.join",
        "chat.join.limited",
        "voip.join",
    ] {
        let token = text(&issue(json!({ "scopes": [scope, scope] })).json()["token"]);
        assert_eq!(claims(&token)["acsScope"], scope);
    }
    for (minutes, life) in [
        (json!(60), 60),
        (json!(61), 61),
        (json!(1440), 1440),
        (Value::Null, 1440),
    ] {
        let body = json!({ "scopes": ["chat"], "expiresInMinutes": minutes });
        let claims = claims(&text(&issue(body).json()["token"]));
        let lived = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
        assert_eq!(lived, life * 60);
    }
    for (minutes, refusal) in [
        (json!(59), "400 InvalidExpiration"),
        (json!(1441), "400 InvalidExpiration"),
        (json!(0), "400 InvalidExpiration"),
        (json!(-60), "400 InvalidExpiration"),
        (json!(60.5), "400 InvalidExpiration"),
        (json!(1e300), "400 InvalidExpiration"),
        (json!("60"), "400 InvalidRequest"),
        (json!(true), "400 InvalidRequest"),
    ] {
        let body = json!({ "scopes": ["chat"], "expiresInMinutes": minutes });
        assert_eq!(issue(body).refusal(), refusal, "{minutes}");
    }
}

#[test]
fn id_12_id_40_a_token_is_a_jwt_that_says_when_it_ends() {
    let site = Site::start();
    let user = site.create();
    let reply = site.call(
        "POST",
        &operation(&user, ISSUE),
        r#"{"scopes":["voip","chat"]}"#,
    );
    let reply = reply.json();
    let (token, expires_on) = (text(&reply["token"]), text(&reply["expiresOn"]));
    let claims = claims(&token);
    let (date, rest) = expires_on.split_at(19);
    assert_eq!(rest, ".0000000+00:00", "{expires_on}");
    let date = format!("{date}Z");
    let date = time::OffsetDateTime::parse(&date, &time::format_description::well_known::Rfc3339);
    let expires_s = u64::try_from(date.unwrap().unix_timestamp()).unwrap();
    assert_eq!(claims["exp"].as_u64(), Some(expires_s));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!((now + 86_400 - 120..=now + 86_400).contains(&expires_s));
    assert_eq!(claims["sub"], user.as_str());
    assert_eq!(claims["skypeid"], &user[2..]);
    assert_eq!(claims["acsScope"], "chat,voip");
    for name in ["iss", "aud", "jti", "resourceId"] {
        assert!(claims[name].is_string(), "{name} in {claims}");
    }
    for name in ["iat", "exp", "gen", "kv"] {
        assert!(claims[name].is_u64(), "{name} in {claims}");
    }
    // The key that signed it is shown to everybody.
    let address = site.broker.address("http").to_string();
    let host = [format!("Host: {address}")];
    let keys = site.send("GET", "/.well-known/jwks.json", &host, "").json();
    let header: Value =
        serde_json::from_slice(&unpacked(token.split('.').next().unwrap())).unwrap();
    assert_eq!(header["alg"], "ES256");
    assert_eq!(header["kid"], keys["keys"][0]["kid"]);
    assert_eq!(keys["keys"][0]["crv"], "P-256");
}

#[test]
fn id_22_what_is_not_signed_as_it_must_be_is_denied_before_anything_is_told() {
    let site = Site::start();
    let (user, other) = (
        site.create(),
        "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    );
    for target in [
        CREATE.to_owned(),
        operation(&user, ISSUE),
        operation("no", ISSUE),
    ] {
        let reply = site.call_by(other, "POST", &target, "");
        assert_eq!(reply.refusal(), "401 Denied");
        let message = text(&reply.json()["error"]["message"]);
        assert_eq!(message, "Denied by the resource provider.");
        assert!(reply.header("api-supported-versions").is_some());
    }
    let tokens = [
        Vec::new(),
        vec![format!("Authorization: Bearer {}", site.key)],
        vec!["Authorization: HMAC-SHA256 SignedHeaders=host&Signature=AAAA".to_owned()],
    ];
    for headers in tokens {
        let reply = site.send("POST", CREATE, &headers, "");
        assert_eq!(reply.refusal(), "401 Denied", "{headers:?}");
    }
    // The body is not the one that was signed: same length, other letters.
    let signed = tampered(&site, &operation(&user, ISSUE));
    assert_eq!(signed.refusal(), "401 Denied");
    // The admin token is none of the service's, and its keys are none of the admin API's.
    let bearer = [format!("Authorization: Bearer {}", site.key)];
    assert_eq!(
        site.send("GET", "/admin/v1/identity", &bearer, "").status,
        401
    );
}

/// A signature over one body, with another.
fn tampered(site: &Site, target: &str) -> Reply {
    let host = site.broker.address("http").to_string();
    let key = tollgate::http::identity_service::AccessKeyText::parse(&site.key).unwrap();
    let (signed_body, sent) = (r#"{"scopes":["chat"]}"#, r#"{"scopes":["voip"]}"#);
    let headers = tollgate::http::identity_service::signed_headers(
        &key,
        "POST",
        &host,
        target,
        signed_body.as_bytes(),
        SystemTime::now(),
    );
    let headers: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    site.send("POST", target, &headers, sent)
}

#[test]
fn id_24_two_keys_are_good_and_a_replaced_one_is_refused_at_once() {
    let site = Site::start();
    let (primary, secondary) = (site.key.clone(), renew(&site.broker, "secondary"));
    let create = |key: &str| site.call_by(key, "POST", CREATE, "").status;
    assert_eq!((create(&primary), create(&secondary)), (201, 201));
    let user = site.create();
    let by = |key: &str| {
        let reply = site.call_by(
            key,
            "POST",
            &operation(&user, ISSUE),
            r#"{"scopes":["chat"]}"#,
        );
        text(&reply.json()["token"])
    };
    let (first, second) = (by(&primary), by(&secondary));
    let mut cut = site.connect(Version::V5, &user, &first);
    let again = renew(&site.broker, "primary");
    // The tokens that the old key asked for end with it, and only they.
    cut.expect_end(&[0x87]);
    assert_eq!(
        (create(&primary), create(&secondary), create(&again)),
        (401, 201, 201)
    );
    assert_eq!(site.connack(Version::V5, Some(&user), &first), 0x86);
    assert_eq!(site.connack(Version::V5, Some(&user), &second), 0);
    assert_eq!(site.connack(Version::V5, Some(&user), &by(&again)), 0);
}

#[test]
fn id_06_the_exchange_answers_that_it_is_not_configured() {
    let site = Site::start();
    let target = "/teamsUser/:exchangeAccessToken?api-version=2023-10-01";
    let body = json!({ "token": "t", "appId": "a", "userId": "u" }).to_string();
    assert_eq!(
        site.call("POST", target, &body).refusal(),
        "400 NotConfigured"
    );
    for body in [
        "",
        "{}",
        r#"{"token":"t","appId":"a"}"#,
        r#"{"token":1,"appId":"a","userId":"u"}"#,
    ] {
        assert_eq!(
            site.call("POST", target, body).refusal(),
            "400 InvalidRequest"
        );
    }
    assert_eq!(
        site.call_by("AAAA", "POST", target, &body).refusal(),
        "401 Denied"
    );
}

#[test]
fn the_id_of_a_request_comes_back_and_is_not_believed_at_any_length() {
    let site = Site::start();
    let with = |id: &str| {
        let id = [format!("x-ms-client-request-id: {id}")];
        let reply = site.send("POST", CREATE, &id, "");
        reply.header("x-ms-client-request-id").map(str::to_owned)
    };
    assert_eq!(with("abc-1").as_deref(), Some("abc-1"));
    assert_eq!(with(&"x".repeat(200)), None);
}

/// What a token says, read without asking whether it is true.
pub(crate) fn claims(token: &str) -> Value {
    let mut parts = token.split('.');
    let claims = parts.nth(1).expect("three parts");
    assert_eq!(parts.count(), 1, "{token}");
    serde_json::from_slice(&unpacked(claims)).expect("JSON")
}

fn unpacked(text: &str) -> Vec<u8> {
    let mut text = text.replace('-', "+").replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    tollgate::identity::base64::decode(&text).expect("base 64")
}
