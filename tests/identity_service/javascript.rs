//! @azure/communication-identity for JavaScript, unmodified (section 8.3).

use std::process::Command;

use serde_json::{Value, json};

use crate::common::{
    packets::Version,
    tools::{clients_dir, printed, repository, run, tool},
};
use crate::site::{Site, text};

/// Runs the errand and gives what it printed.
fn life(site: &Site, errand: &Value) -> Value {
    assert!(
        clients_dir()
            .join("node_modules/@azure/communication-identity")
            .exists(),
        "@azure/communication-identity is missing: run scripts/setup"
    );
    let mut command = Command::new(tool("node"));
    // The packages lie beside the scripts of tests/clients.
    command.arg(repository().join("tests/clients/identity_client.mjs"));
    command.arg(errand.to_string());
    command.env("NODE_EXTRA_CA_CERTS", site.broker.ca_file());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().to_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    let output = run(&mut command);
    let (stdout, stderr) = printed(&output);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("no JSON: {stdout} {stderr}"))
}

#[test]
fn id_54_the_javascript_sdk_works_by_connection_string_and_by_constructor() {
    let site = Site::start();
    for errand in [
        json!({ "connectionString": site.connection_string() }),
        json!({ "endpoint": site.broker.admin_url(), "key": site.key }),
    ] {
        let told = life(&site, &errand);
        let user = text(&told["user"]);
        let opens = |user: &str, name: &str| {
            let token = text(&told[name]["token"]);
            site.connack(Version::V5, Some(user), &token)
        };
        assert_eq!(opens(&user, "fresh"), 0);
        assert_eq!(opens(&user, "first"), 0x86, "revoked");
        assert_eq!(opens(&user, "hour"), 0x86, "revoked");
        assert_eq!(opens(&text(&told["other"]), "withOther"), 0x86, "deleted");
        // The SDK reads the date.
        let minutes = told["hour"]["minutes"].as_f64().expect("a number");
        assert!((58.0..=60.0).contains(&minutes), "{told}");
        assert_eq!(told["short"], "RestError 400 InvalidExpiration");
        assert_eq!(told["badScope"], "RestError 400 InvalidScopes");
        assert_eq!(told["after"], "RestError 404 IdentityNotFound");
        assert_eq!(told["teams"], "RestError 400 NotConfigured");
    }
}
