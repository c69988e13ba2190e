//! azure-communication-identity for Python, unmodified (section 8.2).

use std::process::Command;

use serde_json::{Value, json};

use crate::common::{
    packets::Version,
    secrets,
    tools::{printed, repository, run, tool},
};
use crate::site::{Site, text};

/// Runs the errand and gives what it printed.
fn life(site: &Site, errand: &Value) -> Value {
    let script = repository().join("tests/identity_service/sdk_client.py");
    let mut command = Command::new(tool("python"));
    command.arg(script).arg(errand.to_string());
    // The client trusts the broker's authority, and asks no proxy.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().to_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command.env("REQUESTS_CA_BUNDLE", site.broker.ca_file());
    command.env("SSL_CERT_FILE", site.broker.ca_file());
    let output = run(&mut command);
    let (stdout, stderr) = printed(&output);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    secrets::harvest(&stdout);
    serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("no JSON: {stdout} {stderr}"))
}

fn check(site: &Site, told: &Value) {
    let issued = |name: &str| text(&told[name][0]);
    for name in ["short", "long"] {
        assert_eq!(told[name], "HttpResponseError 400 InvalidExpiration");
    }
    for name in ["no_scopes", "bad_scope"] {
        assert_eq!(told[name], "HttpResponseError 400 InvalidScopes");
    }
    for name in ["revoked", "deleted", "again"] {
        assert_eq!(told[name], Value::Null, "{told}");
    }
    for name in ["after", "revoked_after"] {
        assert_eq!(told[name], "ResourceNotFoundError 404 IdentityNotFound");
    }
    assert_eq!(told["teams"], "HttpResponseError 400 NotConfigured");
    let user = text(&told["user"]);
    let opens = |user: &str, name: &str| site.connack(Version::V5, Some(user), &issued(name));
    assert_eq!(opens(&user, "fresh"), 0);
    assert_eq!(opens(&user, "first"), 0x86, "revoked");
    assert_eq!(opens(&user, "hour"), 0x86, "revoked");
    assert_eq!(opens(&text(&told["other"]), "with_user"), 0);
    assert_eq!(opens(&text(&told["third"]), "with_third"), 0x86, "deleted");
    assert_eq!(opens(&user, "with_user"), 0x86, "of another user");
}

#[test]
fn id_50_the_python_sdk_works_by_connection_string_over_tls() {
    let site = Site::start();
    let errand = json!({ "connection_string": site.connection_string() });
    check(&site, &life(&site, &errand));
    let errand = json!({ "connection_string": site.connection_string(), "async": true });
    check(&site, &life(&site, &errand));
}

#[test]
fn id_52_the_python_sdk_works_by_constructor_over_plain_http() {
    let site = Site::start();
    let endpoint = site.broker.admin_url();
    for endpoint in [endpoint.clone(), format!("{endpoint}/")] {
        for is_async in [false, true] {
            let errand = json!({ "endpoint": endpoint, "key": site.key, "async": is_async });
            check(&site, &life(&site, &errand));
        }
    }
}
