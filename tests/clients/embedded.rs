//! rust-mqtt, a client for microcontrollers (no operating system needed, MQTT 5 only).
//!
//! It writes a packet in several small pieces and asks for no problem information, which no other
//! client here does.

use std::{sync::Arc, time::Duration};

use embedded_io_adapters::tokio_1::FromTokio;
use rust_mqtt::{
    Bytes,
    buffer::AllocBuffer,
    client::{
        Client, MqttError,
        event::Event,
        options::{ConnectOptions, DisconnectOptions, PublicationOptions, TopicReference},
    },
    types::{MqttString, QoS, TopicName},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    common::packets::TELEMETRY,
    site::{Errand, Fault, Site},
};

/// How long one errand may take.
const LIMIT: Duration = Duration::from_secs(120);

/// What carries the bytes: TCP, or TLS over it.
trait Transport: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Transport for T {}

#[test]
fn publishes_at_every_qos_over_tcp_and_tls() {
    let mut site = Site::start();
    for tls in [false, true] {
        let errand = site.good_errand("5", tls, &[0, 1, 2]);
        let expected = ["connected", "acknowledged", "received", "complete"];
        assert_eq!(said(&site, &errand), expected, "{tls}");
    }
    site.check_stored();
}

/// TB-04, TB-16.
#[test]
fn says_why_it_was_refused() {
    let table: [(_, &[&str]); 7] = [
        (Fault::WrongToken, &["disconnected: BadUserNameOrPassword"]),
        (
            Fault::RevokedToken,
            &["disconnected: BadUserNameOrPassword"],
        ),
        (
            Fault::NoUserName,
            &["disconnected: ClientIdentifierNotValid"],
        ),
        (Fault::Nothing, &["disconnected: NotAuthorized"]),
        (
            Fault::BadJson(0),
            &["connected", "disconnected: PayloadFormatInvalid"],
        ),
        (
            Fault::BadJson(1),
            &["connected", "rejected: PayloadFormatInvalid"],
        ),
        (
            Fault::BadJson(2),
            &["connected", "rejected: PayloadFormatInvalid"],
        ),
    ];
    let site = Site::start();
    for (fault, expected) in table {
        let errand = site.bad_errand("5", fault);
        assert_eq!(said(&site, &errand), expected, "{fault:?}");
    }
    site.check_stored();
}

/// TB-07: what a device sees whose token is revoked while it is connected.
#[test]
fn says_that_it_was_cut_off() {
    let site = Site::start();
    let errand = site.revoked_errand("5");
    assert_eq!(
        said(&site, &errand),
        ["connected", "disconnected: AdministrativeAction"]
    );
}

fn said(site: &Site, errand: &Errand) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let socket = TcpStream::connect(("127.0.0.1", errand.port(&site.broker))).await;
        let socket = socket.expect("the broker accepts");
        let transport: Box<dyn Transport> = if errand.tls {
            let name = ServerName::try_from("localhost").expect("a valid name");
            Box::new(
                connector(site)
                    .connect(name, socket)
                    .await
                    .expect("a TLS session"),
            )
        } else {
            Box::new(socket)
        };
        let end = tokio::time::timeout(LIMIT, go(site, transport, errand)).await;
        end.expect("the errand ends in time")
    })
}

async fn go(site: &Site, transport: Box<dyn Transport>, errand: &Errand) -> Vec<String> {
    let mut buffer = AllocBuffer;
    let mut client = Client::<'_, '_, _, _, 1, 1, 1, 0, 1, 0, 0>::new(&mut buffer);
    let mut options = ConnectOptions::new().clean_start();
    options.user_name = errand.token.as_deref().map(string);
    let mut said = Vec::new();
    let id = errand.client_id.map(string);
    if let Err(error) = client
        .connect(FromTokio::new(transport), &options, id)
        .await
    {
        said.push(describe(&error));
        return said;
    }
    said.push("connected".to_owned());
    site.connected(errand);
    if errand.messages.is_empty() {
        said.push(describe(
            &client
                .poll()
                .await
                .expect_err("nothing but the end can come"),
        ));
        return said;
    }
    let topic = TopicReference::Name(TopicName::new(string(TELEMETRY)).expect("a valid topic"));
    for (qos, payload) in &errand.messages {
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(*qos)];
        let options = PublicationOptions::new(topic.as_borrowed()).qos(qos);
        client
            .publish(&options, Bytes::from(payload.as_bytes()))
            .await
            .expect("it can be sent");
        if qos == QoS::AtMostOnce && !errand.wait_for_close {
            continue;
        }
        loop {
            match client.poll().await {
                Ok(Event::PublishAcknowledged(_)) => said.push("acknowledged".to_owned()),
                Ok(Event::PublishComplete(_)) => said.push("complete".to_owned()),
                Ok(Event::PublishRejected(rejection)) => {
                    said.push(format!("rejected: {:?}", rejection.reason_code));
                }
                Ok(Event::PublishReceived(_)) => {
                    said.push("received".to_owned());
                    continue;
                }
                Ok(other) => panic!("nobody asked for {other:?}"),
                Err(error) => {
                    said.push(describe(&error));
                    return said;
                }
            }
            break;
        }
    }
    client
        .disconnect(&DisconnectOptions::new())
        .await
        .expect("DISCONNECT can be sent");
    said
}

fn describe<const N: usize>(error: &MqttError<'_, N>) -> String {
    match error {
        MqttError::Disconnect { reason, .. } => format!("disconnected: {reason:?}"),
        other => format!("{other:?}"),
    }
}

fn string(text: &str) -> MqttString<'_> {
    MqttString::from_str(text).expect("short enough")
}

/// TLS that trusts nothing but the authority of this broker.
fn connector(site: &Site) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(site.broker.ca_file()).expect("a PEM file");
    roots.add(authority).expect("a usable authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}
