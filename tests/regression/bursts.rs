//! A client that sends much at once over TLS is no flood: the TLS layer reads on until its caller's
//! buffer is full, and what came was counted before anybody knew that it was data.

use crate::common::{
    broker::Broker,
    client::Client,
    packets::{Connect, Version},
};

#[test]
fn sec_70_a_large_packet_over_tls_is_no_flood() {
    let broker = Broker::start();
    let wanted = [
        "app",
        "create",
        "b",
        "--publish",
        "big",
        "--subscribe",
        "big",
        "--json",
    ];
    let made = broker.cli_json(&wanted);
    let token = made["token"].as_str().expect("a token").to_owned();
    let connect = Connect::with_token(Version::V5, "b", &token);
    let mut client = Client::over(broker.wire_tls(), &connect);
    for _ in 0..5 {
        assert_eq!(client.publish(1, "big", &[b'x'; 250_000]), 0);
    }
    let floods = r#"tollgate_tls_failures_total{reason="flood"}"#;
    assert_eq!(broker.metric(floods), 0.0);
}
