//! `docs/openapi.yaml`, as a broker serves it, against what the broker does: every endpoint, status
//! and member, in both directions.

#[cfg(test)]
mod common;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::{Value, json};

    use crate::common::{
        broker::Setup,
        client::Client,
        packets::{Connect, TELEMETRY, Version},
        secrets,
        tools::{printed, repository, run, tool},
    };

    #[test]
    fn every_endpoint_status_and_member_is_described_and_the_other_way_round() {
        let broker = Setup::new()
            .set("TOLLGATE_LIMITS_HTTP_REQUESTS_PER_SECOND_MAX", "100000")
            .start();
        let token = broker.create_device("boiler");
        let connect = Connect::with_token(Version::V5, "boiler", &token);
        let mut client = Client::connect(&broker, &connect);
        let payload = br#"{"temperature":21.5,"on":true,"mode":"auto"}"#;
        assert_eq!(client.publish(1, TELEMETRY, payload), 0);
        broker.cli_json(&["device", "rotate", "boiler", "--grace", "1d", "--json"]);
        // With the old token, which has a grace time.
        let _client = Client::connect(&broker, &connect);
        let ended = broker.create_device("retired");
        broker.revoke("retired");
        let mut refused = broker.wire();
        refused.send(&Connect::with_token(Version::V5, "retired", &ended).encode());
        refused.packet();
        let key = broker.cli_json(&["identity", "key", "renew", "primary", "--json"]);
        let admin = std::fs::read_to_string(broker.dir().join("secrets/admin.token"));
        let certificate = std::fs::read_to_string(broker.dir().join("certs/server.pem"));
        let http = broker.address("http");
        let errand = json!({
            "host": http.ip().to_string(),
            "port": http.port(),
            "token": admin.expect("made by the start").trim(),
            "access_key": key["access_key"],
            "certificate": certificate.expect("made by the start"),
            "device": "boiler",
        });
        let mut command = Command::new(tool("python"));
        command.arg(repository().join("tests/openapi/check.py"));
        let output = run(command.arg(errand.to_string()));
        let (stdout, stderr) = printed(&output);
        secrets::harvest(&stdout);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{stderr}\n{}",
            broker.stderr()
        );
        let told: Value = serde_json::from_str(&stdout).expect("JSON");
        let wrong = told["wrong"].as_array().expect("a list");
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(told["operations"].as_u64() > Some(40), "{told}");
    }
}
