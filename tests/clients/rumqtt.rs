//! rumqttc, in this process, without TLS: what its event loop says.
//!
//! It speaks 3.1.1 and 5, with a module and types of its own for each.

use std::time::Duration;

use rumqttc::v5;

use crate::{
    common::packets::TELEMETRY,
    site::{Errand, Fault, Site},
};

/// How long one errand may take.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn publishes_at_every_qos() {
    let mut site = Site::start();
    for version in ["3.1.1", "5"] {
        let errand = site.good_errand(version, false, &[0, 1, 2]);
        let expected = [
            "ConnAck Success",
            "PubAck Success",
            "PubRec Success",
            "PubComp Success",
        ];
        assert_eq!(said(&site, &errand), expected, "{version}");
    }
    site.check_stored();
}

/// TB-04, TB-16: the packets it shows and the error that ends its event loop.
#[test]
fn says_why_it_was_refused() {
    const BAD_ID: &str = "Connection refused, return code: `BadClientId`";
    const NOT_AUTHORIZED: &str = "Connection refused, return code: `NotAuthorized`";
    const BAD_USER: &str = "Connection refused, return code: `BadUserNamePassword`";
    const CLOSED: &[&str] = &[
        "ConnAck Success",
        "Mqtt state: Connection closed by peer abruptly",
    ];
    const TOLD: &[&str] = &["ConnAck Success", "PayloadFormatInvalid"];
    let table: [(_, _, &[&str]); 13] = [
        ("3.1.1", Fault::WrongToken, &[NOT_AUTHORIZED]),
        ("3.1.1", Fault::RevokedToken, &[NOT_AUTHORIZED]),
        ("3.1.1", Fault::NoUserName, &[BAD_ID]),
        ("3.1.1", Fault::Nothing, &[NOT_AUTHORIZED]),
        ("3.1.1", Fault::BadJson(0), CLOSED),
        ("3.1.1", Fault::BadJson(1), CLOSED),
        ("3.1.1", Fault::BadJson(2), CLOSED),
        ("5", Fault::WrongToken, &[BAD_USER]),
        ("5", Fault::RevokedToken, &[BAD_USER]),
        (
            "5",
            Fault::NoUserName,
            &["Connection refused, return code: `ClientIdentifierNotValid`"],
        ),
        ("5", Fault::Nothing, &[NOT_AUTHORIZED]),
        ("5", Fault::BadJson(0), TOLD),
        (
            "5",
            Fault::BadJson(1),
            &["ConnAck Success", "PubAck PayloadFormatInvalid"],
        ),
    ];
    let site = Site::start();
    for (version, fault, expected) in table {
        let errand = site.bad_errand(version, fault);
        assert_eq!(said(&site, &errand), expected, "{version} {fault:?}");
    }
    site.check_stored();
}

/// TB-07: what a device sees whose token is revoked while it is connected.
#[test]
fn says_that_it_was_cut_off() {
    let site = Site::start();
    let errand = site.revoked_errand("3.1.1");
    let expected = [
        "ConnAck Success",
        "Mqtt state: Connection closed by peer abruptly",
    ];
    assert_eq!(said(&site, &errand), expected);
    let errand = site.revoked_errand("5");
    assert_eq!(
        said(&site, &errand),
        ["ConnAck Success", "AdministrativeAction"]
    );
}

fn said(site: &Site, errand: &Errand) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let errand = async {
            if errand.version == "5" {
                run_v5(site, errand).await
            } else {
                run_v311(site, errand).await
            }
        };
        tokio::time::timeout(LIMIT, errand)
            .await
            .expect("the errand ends in time")
    })
}

async fn run_v311(site: &Site, errand: &Errand) -> Vec<String> {
    use rumqttc::{AsyncClient, Event, MqttOptions, Outgoing, Packet, QoS};
    let id = errand.client_id.unwrap_or("rumqttc");
    let mut options = MqttOptions::new(id, "localhost", errand.port(&site.broker));
    if let Some(token) = &errand.token {
        options.set_credentials(token, "");
    }
    let (client, mut events) = AsyncClient::new(options, 10);
    let mut open = 0;
    for (qos, payload) in &errand.messages {
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(*qos)];
        open += usize::from(qos != QoS::AtMostOnce);
        client
            .publish(TELEMETRY, qos, false, payload.as_bytes())
            .await
            .expect("room for it");
    }
    let mut said = Vec::new();
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                said.push(format!("ConnAck {:?}", ack.code));
                site.connected(errand);
            }
            Ok(Event::Incoming(Packet::PubRec(_))) => said.push("PubRec Success".to_owned()),
            Ok(Event::Incoming(Packet::PubAck(_))) => {
                said.push("PubAck Success".to_owned());
                open -= 1;
            }
            Ok(Event::Incoming(Packet::PubComp(_))) => {
                said.push("PubComp Success".to_owned());
                open -= 1;
            }
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return said,
            Ok(_) => continue,
            Err(error) => {
                said.push(error.to_string());
                return said;
            }
        }
        if open == 0 && !errand.wait_for_close {
            client.disconnect().await.expect("room for it");
        }
    }
}

async fn run_v5(site: &Site, errand: &Errand) -> Vec<String> {
    use v5::{
        AsyncClient, ConnectionError, Event, MqttOptions, StateError,
        mqttbytes::{QoS, v5::Packet},
    };
    let id = errand.client_id.unwrap_or("rumqttc");
    let mut options = MqttOptions::new(id, "localhost", errand.port(&site.broker));
    if let Some(token) = &errand.token {
        options.set_credentials(token, "");
    }
    let (client, mut events) = AsyncClient::new(options, 10);
    let mut open = 0;
    for (qos, payload) in &errand.messages {
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(*qos)];
        open += usize::from(qos != QoS::AtMostOnce);
        client
            .publish(TELEMETRY, qos, false, payload.clone())
            .await
            .expect("room for it");
    }
    let mut said = Vec::new();
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                said.push(format!("ConnAck {:?}", ack.code));
                site.connected(errand);
            }
            Ok(Event::Incoming(Packet::PubRec(ack))) => {
                said.push(format!("PubRec {:?}", ack.reason));
            }
            Ok(Event::Incoming(Packet::PubAck(ack))) => {
                said.push(format!("PubAck {:?}", ack.reason));
                open -= 1;
            }
            Ok(Event::Incoming(Packet::PubComp(ack))) => {
                said.push(format!("PubComp {:?}", ack.reason));
                open -= 1;
            }
            Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return said,
            Ok(_) => continue,
            Err(ConnectionError::MqttState(StateError::ServerDisconnect {
                reason_code, ..
            })) => {
                said.push(format!("{reason_code:?}"));
                return said;
            }
            Err(error) => {
                said.push(error.to_string());
                return said;
            }
        }
        if open == 0 && !errand.wait_for_close {
            client.disconnect().await.expect("room for it");
        }
    }
}
