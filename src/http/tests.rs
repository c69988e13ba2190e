//! `docs/openapi.yaml` against the code: routes, bodies, codes, limits.
//!
//! The description is read by its indentation, which these tests thereby fix; a YAML reader is a
//! dependency that nothing else needs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::api::*;
use super::identity_service::{API_VERSIONS, Cause, Refusal};
use super::refused::Code;
use super::routes::routes;
use crate::identity::{
    EXPIRES_MAX_MS, FILTERS_MAX, GRACE_DEFAULT_S, GRACE_MAX_S, LIVE_TOKENS_MAX, NETWORKS_MAX,
    SCOPE_BYTES_MAX,
};

const DESCRIPTION: &str = include_str!("../../docs/openapi.yaml");

/// The lines below the line `heading` that are indented deeper than it.
fn section(heading: &str) -> Vec<&'static str> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    DESCRIPTION
        .lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| line.is_empty() || indent(line) > indent(heading))
        .collect()
}

/// The names at one depth of a section, each with the lines below it.
fn entries(lines: &[&'static str], depth: usize) -> BTreeMap<String, Vec<&'static str>> {
    let mut entries: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    let mut current = String::new();
    for line in lines {
        let text = line.trim_start();
        if line.len() - text.len() == depth {
            current = text
                .split(": ")
                .next()
                .unwrap_or_default()
                .trim_end_matches(':')
                .to_owned();
            entries.entry(current.clone()).or_default();
        } else {
            entries.entry(current.clone()).or_default().push(line);
        }
    }
    entries
}

#[test]
fn every_route_is_in_the_description_and_the_other_way_round() {
    let mut described = BTreeSet::new();
    for (path, below) in entries(&section("paths:"), 2) {
        for method in entries(&below, 4)
            .into_keys()
            .filter(|name| name != "parameters")
        {
            described.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let coded = routes()
        .iter()
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    assert_eq!(described, coded);
}

#[test]
fn only_the_open_paths_are_described_as_open() {
    let paths = entries(&section("paths:"), 2);
    let open = paths
        .iter()
        .filter(|(_, below)| below.contains(&"      security: []"));
    let open: Vec<&str> = open.map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        open,
        ["/.well-known/jwks.json", "/healthz", "/metrics", "/readyz"]
    );
}

/// The one table of who may call what, and the description.
#[test]
fn sec_75_every_route_says_what_its_caller_must_have_shown() {
    let mut described = BTreeSet::new();
    for (path, below) in entries(&section("paths:"), 2) {
        for (method, lines) in entries(&below, 4) {
            let scope = lines
                .iter()
                .find_map(|line| line.strip_prefix("      x-scope: "));
            let scope = scope.unwrap_or("nothing said");
            if method != "parameters" {
                described.insert(format!("{} {path} {scope}", method.to_uppercase()));
            }
        }
    }
    let routes = routes();
    let coded = routes.iter().map(|route| {
        let needs = route.needs.as_str();
        format!("{} {} {needs}", route.method, route.path)
    });
    assert_eq!(described, coded.collect());
}

#[test]
fn every_code_is_in_the_description_and_the_other_way_round() {
    let described: BTreeSet<String> = section("x-codes:")
        .iter()
        .map(|line| line.trim_start_matches("  - ").to_owned())
        .collect();
    let coded = Code::ALL
        .iter()
        .map(|code| format!("{} {}", code.as_str(), code.status().as_u16()));
    assert_eq!(described, coded.collect());
}

#[test]
fn every_cause_of_the_identity_service_is_in_the_description() {
    let described: BTreeSet<String> = section("x-identity-codes:")
        .iter()
        .map(|line| line.trim_start_matches("  - ").to_owned())
        .collect();
    let coded = Cause::ALL
        .iter()
        .map(|cause| format!("{} {}", cause.code(), cause.status().as_u16()));
    assert_eq!(described, coded.collect());
}

#[test]
fn every_body_is_in_the_description_field_by_field() {
    let schemas = entries(&section("  schemas:"), 4);
    let mut unseen: BTreeSet<&str> = schemas.keys().map(String::as_str).collect();
    for (schema, bodies) in bodies() {
        let below = schemas
            .get(schema)
            .unwrap_or_else(|| panic!("{schema} is not described"));
        let parts = entries(below, 6);
        let described: BTreeSet<String> = entries(&parts["properties"], 8).into_keys().collect();
        let mut seen = BTreeSet::new();
        for body in &bodies {
            let body: BTreeMap<String, Box<RawValue>> = serde_json::from_str(body).unwrap();
            seen.extend(body.into_keys());
        }
        assert_eq!(described, seen, "{schema}");
        unseen.remove(schema);
    }
    unseen.remove("Health"); // private to its file; tests/http_api.rs sees it
    assert!(unseen.is_empty(), "described, but no type: {unseen:?}");
}

#[test]
fn the_limits_are_in_the_description() {
    for words in [
        format!("maximum: {DEVICES_PER_PAGE_MAX}, default: {DEVICES_PER_PAGE_DEFAULT} }}"),
        format!("At most {FILTERS_MAX} filters in a list and {SCOPE_BYTES_MAX} bytes"),
        format!("maximum: {EXPORT_PER_PAGE_MAX}, default: {EXPORT_PER_PAGE_MAX} }}"),
        format!("at most {NETWORKS_MAX} networks"),
        format!("maximum: {GRACE_MAX_S}\n          default: {GRACE_DEFAULT_S}\n"),
        format!("At most {LIVE_TOKENS_MAX} tokens are live"),
        format!("maximum: {EXPIRES_MAX_MS} "),
        format!("At most {IMPORT_ROWS_MAX} rows"),
        format!("{} s for an import", super::bulk::IMPORT_TIME_MAX.as_secs()),
        format!("maximum: {POINTS_MAX}, default: {POINTS_DEFAULT} }}"),
        format!("At most {KEYS_MAX}."),
        format!("body {} MiB", super::body::BODY_BYTES_MAX / 1024 / 1024),
        format!(
            "head of a request {} KiB",
            super::connection::HEAD_BYTES_MAX / 1024
        ),
        format!("{} s for a request", super::REQUEST_TIME_MAX.as_secs()),
        "100 requests a second (`limits.http_requests_per_second_max`)".to_owned(),
        format!("{} connections", super::CONNECTIONS_MAX),
        format!(
            "{} signed requests a second",
            super::gate::SIGNED_PER_SECOND_MAX
        ),
        format!("enum: [\"{}\"]", API_VERSIONS.join("\", \"")),
    ] {
        assert!(DESCRIPTION.contains(&words), "{words}");
    }
}

/// Every body with every field it can have, as JSON.
fn bodies() -> Vec<(&'static str, Vec<String>)> {
    [
        requests(),
        devices(),
        changes(),
        apps(),
        admins(),
        users(),
        fleet(),
        reports(),
        usages(),
        others(),
        refusals(),
    ]
    .concat()
}

fn refusals() -> Bodies {
    let refused = RefusedClient {
        first_ms: 1,
        last_ms: 2,
        count: 1,
        from: "f".to_owned(),
        client_id: "c".to_owned(),
        reason: "r".to_owned(),
        credential: Some(1),
        identity: Some(Uuid::nil()),
        name: Some("n".to_owned()),
        ended_ms: Some(1),
    };
    let list = RefusedClients {
        refused: vec![refused.clone()],
        next: 1,
    };
    vec![
        ("RefusedClient", json(&refused)),
        ("RefusedClients", json(&list)),
    ]
}

type Bodies = Vec<(&'static str, Vec<String>)>;

fn json(body: &impl Serialize) -> Vec<String> {
    vec![serde_json::to_string(body).unwrap()]
}

fn token() -> TokenText {
    TokenText::new("t".to_owned())
}

fn filters() -> Vec<String> {
    vec!["f".to_owned()]
}

fn device() -> DeviceView {
    DeviceView {
        id: Uuid::nil(),
        name: "a".to_owned(),
        created_ms: 1,
        generation: 1,
        profile: "default".to_owned(),
        label: "l".to_owned(),
        publish: filters(),
        subscribe: filters(),
        credentials: vec![CredentialView {
            id: 1,
            kind: "mqtt_basic".to_owned(),
            asks_for: filters(),
            client_id: Some("c".to_owned()),
            user_name: Some("u".to_owned()),
            fingerprint: Some("f".to_owned()),
            created_ms: 1,
            revoked_ms: Some(2),
            chosen: true,
            not_before_ms: Some(1),
            expires_ms: Some(2),
            rights: Some(filters()),
            networks: filters(),
            connections_max: Some(1),
            messages_max: Some(1),
            certificate: Some("c".to_owned()),
            superseded_by: Some(2),
            retires_older: true,
        }],
    }
}

fn requests() -> Bodies {
    let terms = Terms {
        not_before_ms: Some(Some(1)),
        expires_ms: Some(Some(2)),
        rights: Some(Some(filters())),
        networks: Some(filters()),
        connections_max: Some(Some(1)),
        messages_max: Some(Some(1)),
        certificate: Some(Some("c".to_owned())),
    };
    let create = Create {
        name: "a".to_owned(),
        token: Some(token()),
        publish: filters(),
        subscribe: filters(),
        terms: Some(terms.clone()),
    };
    let reterm = ChangeTerms {
        credential: Some(1),
        terms: terms.clone(),
    };
    let scope = ChangeScope {
        publish: Some(filters()),
        subscribe: Some(filters()),
    };
    let token_only = Rotate {
        token: Some(token()),
        terms: Some(terms.clone()),
        grace_s: Some(1),
        retire_on_use: true,
    };
    vec![
        ("Terms", json(&terms)),
        ("ChangeTerms", json(&reterm)),
        ("Create", json(&create)),
        ("ChangeScope", json(&scope)),
        ("Rotate", json(&token_only)),
        ("TokenCheck", json(&TokenCheck { token: token() })),
    ]
}

fn devices() -> Bodies {
    let next = Some("b".to_owned());
    let created = DeviceCreated {
        device: device(),
        token: token(),
        warnings: filters(),
    };
    let add = AddCredential {
        client_id: Some(token()),
        user_name: Some(token()),
        password: Some(token()),
        certificate: Some("c".to_owned()),
        terms: Some(Terms::default()),
        replace: true,
    };
    let added = CredentialAdded {
        credential: device().credentials[0].clone(),
        receipt: Some(Receipt::default()),
        warnings: filters(),
    };
    vec![
        ("DeviceView", json(&device())),
        ("CredentialView", json(&device().credentials[0])),
        (
            "DevicePage",
            json(&DevicePage {
                devices: vec![device()],
                next,
            }),
        ),
        ("DeviceCreated", json(&created)),
        ("AddCredential", json(&add)),
        ("CredentialAdded", json(&added)),
    ]
}

fn changes() -> Bodies {
    let (device, token, receipt) = (device(), token(), Receipt::default());
    let dry = Receipt {
        dry_run: true,
        suspect_from: Some(1),
        ..receipt
    };
    let wish = Revoke {
        dry_run: true,
        since_ms: Some(1),
    };
    let all = RevokeAll {
        devices: filters(),
        apps: filters(),
        users: filters(),
        dry_run: true,
        since_ms: Some(1),
    };
    let revoked = RevokedView {
        kind: "device".to_owned(),
        id: device.id,
        name: "a".to_owned(),
        receipt,
    };
    let revocation = Revocation {
        revoked: vec![revoked.clone()],
        receipt,
    };
    vec![
        (
            "Rotated",
            json(&Rotated {
                device: device.clone(),
                token,
                receipt,
                warnings: filters(),
            }),
        ),
        (
            "DeviceChanged",
            json(&DeviceChanged {
                device,
                receipt,
                warnings: filters(),
            }),
        ),
        ("Receipt", json(&dry)),
        ("Revoke", json(&wish)),
        ("SuspectView", json(&suspect())),
        ("RevokeAll", json(&all)),
        ("RevokedView", json(&revoked)),
        ("Revocation", json(&revocation)),
    ]
}

fn suspect() -> SuspectView {
    SuspectView {
        from_ms: 1,
        revoked_ms: 2,
        first_offset: 3,
        credential_max: 4,
    }
}

fn apps() -> Bodies {
    let app = AppView {
        id: Uuid::nil(),
        name: "a".to_owned(),
        created_ms: 1,
        generation: 1,
        publish: Vec::new(),
        subscribe: Vec::new(),
        credentials: Vec::new(),
    };
    let page = AppPage {
        apps: Vec::new(),
        next: Some("b".to_owned()),
    };
    let created = AppCreated {
        app: app.clone(),
        token: token(),
        warnings: filters(),
    };
    let receipt = Receipt::default();
    let rotated = AppRotated {
        app: app.clone(),
        token: token(),
        receipt,
        warnings: filters(),
    };
    let changed = AppChanged {
        app: app.clone(),
        receipt,
        warnings: filters(),
    };
    vec![
        ("AppView", json(&app)),
        ("AppPage", json(&page)),
        ("AppCreated", json(&created)),
        ("AppRotated", json(&rotated)),
        ("AppChanged", json(&changed)),
    ]
}

fn admins() -> Bodies {
    let create = CreateAdminToken {
        name: "a".to_owned(),
        scope: "read".to_owned(),
        expires_ms: Some(1),
    };
    let view = AdminTokenView {
        name: "a".to_owned(),
        scope: "read".to_owned(),
        created_ms: 1,
        expires_ms: Some(1),
        expired: true,
    };
    let page = AdminTokenPage {
        admin_tokens: vec![view.clone()],
        next: Some("b".to_owned()),
    };
    let created = AdminTokenCreated {
        admin_token: view.clone(),
        token: token(),
    };
    vec![
        ("CreateAdminToken", json(&create)),
        ("AdminTokenView", json(&view)),
        ("AdminTokenPage", json(&page)),
        ("AdminTokenCreated", json(&created)),
    ]
}

fn users() -> Bodies {
    let key = AccessKeyView {
        name: "primary".to_owned(),
        version: 1,
        created_ms: 1,
    };
    let user = UserView {
        id: "8:acs:x".to_owned(),
        created_ms: 1,
        generation: 1,
        tokens: 1,
        connections: 1,
        issued: 1,
        revocations: 1,
        connects: 1,
        connects_refused: 1,
        messages_received: 1,
        messages_delivered: 1,
    };
    let issued = IdentityToken {
        token: token(),
        expires_on: "t".to_owned(),
    };
    let identity = IdentityRef { id: "i".to_owned() };
    let service = IdentityServiceView {
        resource: Uuid::nil(),
        users: 1,
        tokens: 1,
        keys: vec![key.clone()],
    };
    let renewed = AccessKeyRenewed {
        key: key.clone(),
        access_key: token(),
        users: 1,
        receipt: Receipt::default(),
    };
    let page = UserPage {
        users: vec![user.clone()],
        next: Some("a".to_owned()),
    };
    let create = CreateIdentity {
        create_token_with_scopes: filters(),
        expires_in_minutes: Some(60),
    };
    let issue = IssueToken {
        scopes: filters(),
        expires_in_minutes: Some(60),
    };
    let created = IdentityCreated {
        identity: identity.clone(),
        access_token: Some(issued.clone()),
    };
    let refusal = Refusal::new(Cause::InvalidScopes, "m").target("scopes");
    vec![
        ("AccessKeyView", json(&key)),
        ("AccessKeyRenewed", json(&renewed)),
        ("IdentityServiceView", json(&service)),
        ("UserView", json(&user)),
        ("UserPage", json(&page)),
        ("CreateIdentity", json(&create)),
        ("IssueToken", json(&issue)),
        ("IdentityCreated", json(&created)),
        ("IdentityRef", json(&identity)),
        ("IdentityToken", json(&issued)),
        ("IdentityError", json(&refusal.body())),
        ("IdentityErrorBody", json(&refusal.body().error)),
    ]
}

fn row() -> RowError {
    RowError {
        row: 1,
        field: "f".to_owned(),
        message: "m".to_owned(),
    }
}

fn fleet() -> Bodies {
    let entry = DeviceEntry {
        name: "a".to_owned(),
        id: Uuid::nil(),
        profile: "p".to_owned(),
        label: "l".to_owned(),
        publish: filters(),
        subscribe: filters(),
        terms: Some(Terms::default()),
    };
    vec![
        ("RowError", json(&row())),
        ("DeviceEntry", json(&entry)),
        (
            "Imported",
            json(&Imported {
                created: 1,
                bad: 1,
                rows: vec![row()],
            }),
        ),
        (
            "ExportPage",
            json(&ExportPage {
                devices: vec![entry],
                total: 1,
                next: Some("a".to_owned()),
            }),
        ),
        (
            "BackupRequest",
            json(&BackupRequest {
                passphrase: token(),
            }),
        ),
    ]
}

fn reports() -> Bodies {
    let (device, name, credential) = (Uuid::nil(), "a".to_owned(), 1);
    let reports = [
        TokenReport::Live {
            kind: "device".to_owned(),
            device,
            name: name.clone(),
            credential,
            since_ms: 1,
            refused: Some("r".to_owned()),
            not_before_ms: Some(1),
            expires_ms: Some(2),
            rights: Some(filters()),
            networks: filters(),
            connections_max: Some(1),
            messages_max: Some(1),
            certificate: Some("c".to_owned()),
            publish: filters(),
            subscribe: filters(),
        },
        TokenReport::Revoked {
            kind: "device".to_owned(),
            device,
            name: Some(name),
            credential,
            since_ms: 1,
            revoked_ms: 1,
            expired: true,
        },
        TokenReport::Unknown {
            hint: Some("h".to_owned()),
        },
    ];
    vec![("TokenReport", reports.iter().flat_map(json).collect())]
}

fn usages() -> Bodies {
    let (device, credential) = (Uuid::nil(), 1);
    let usage = TokenUsage {
        kind: "device".to_owned(),
        device,
        name: "a".to_owned(),
        credential,
        superseded_by: 2,
        superseded_ms: 1,
        expires_ms: Some(1),
        connections: Vec::new(),
        connections_new: 1,
        last_used_ms: Some(1),
        last_used_from: Some([127, 0, 0, 1].into()),
    };
    let connection = UsageConnection {
        client_id: "c".to_owned(),
        from: [127, 0, 0, 1].into(),
        since_ms: 1,
    };
    let page = UsagePage {
        tokens: Vec::new(),
        next: Some(1),
    };
    vec![
        ("TokenUsage", json(&usage)),
        ("UsageConnection", json(&connection)),
        ("UsagePage", json(&page)),
    ]
}

fn others() -> Bodies {
    let device = Uuid::nil();
    let value = RawValue::from_string("1".to_owned()).unwrap();
    let error = ErrorBody {
        code: "c".to_owned(),
        message: "m".to_owned(),
        target: Some("t".to_owned()),
        rows: vec![row()],
    };
    let view = TelemetryView {
        device,
        points: Vec::new(),
        truncated: true,
        suspect: vec![suspect()],
    };
    vec![
        ("TelemetryView", json(&view)),
        (
            "TelemetryPoint",
            json(&TelemetryPoint {
                key: "k".to_owned(),
                ts: 1,
                value,
            }),
        ),
        ("ErrorBody", json(&error)),
        ("ApiError", json(&ApiError { error })),
    ]
}
