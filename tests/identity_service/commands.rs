//! `tollgate identity …`: the verbs of the reference's command line (section 9), and the
//! operator's.

use serde_json::Value;

use crate::common::packets::Version;
use crate::site::{Site, text};

/// Runs a command with the connection string in the environment.
fn run(site: &Site, connection_string: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = site.broker.command(arguments);
    command.env("AZURE_COMMUNICATION_CONNECTION_STRING", connection_string);
    let output = command.output().expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn good(site: &Site, connection_string: &str, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(site, connection_string, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
    stdout
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

#[test]
fn id_51_the_verbs_of_the_reference_work_with_and_without_tls() {
    let site = Site::start();
    let plain = format!(
        "Endpoint={}/;AccessKey={}",
        site.broker.admin_url(),
        site.key
    );
    for by in [site.connection_string(), plain] {
        let user = good(&site, &by, &["identity", "user", "create"]);
        let user = user.trim_end();
        assert!(user.starts_with("8:acs:"), "{user}");
        let issue = [
            "identity", "token", "issue", "--scope", "chat", "voip", "--user", user,
        ];
        let told = good(&site, &by, &issue);
        let token = told.lines().find_map(|line| line.strip_prefix("token "));
        let token = token.expect("a token").trim();
        assert_eq!(site.connack(Version::V5, Some(user), token), 0);
        // Without a user there is a new one.
        let issue = [
            "identity",
            "token",
            "issue",
            "--scope",
            "chat",
            "--expires-in",
            "60",
        ];
        let created = json(&good(&site, &by, &[&issue[..], &["--json"]].concat()));
        let other = text(&created["identity"]["id"]);
        let of_other = text(&created["accessToken"]["token"]);
        assert_eq!(site.connack(Version::V5, Some(&other), &of_other), 0);

        good(&site, &by, &["identity", "token", "revoke", "--user", user]);
        assert_eq!(site.connack(Version::V5, Some(user), token), 0x86);
        good(
            &site,
            &by,
            &["identity", "user", "delete", "--user", &other],
        );
        assert_eq!(site.connack(Version::V5, Some(&other), &of_other), 0x86);

        let again = [
            "identity", "token", "issue", "--scope", "chat", "--user", &other,
        ];
        let (code, _, stderr) = run(&site, &by, &again);
        assert_eq!(code, Some(6), "{stderr}");
        assert!(stderr.contains("there is no user"), "{stderr}");
        let bad = ["identity", "token", "issue", "--scope", "fax"];
        let (code, _, stderr) = run(&site, &by, &bad);
        assert_eq!(code, Some(6), "{stderr}");
        assert!(stderr.contains("chat.join.limited"), "{stderr}");
    }
}

#[test]
fn id_53_a_renewed_key_is_printed_once_as_a_connection_string() {
    let site = Site::start();
    let port = site.broker.address("https").port();
    let endpoint = format!("https://localhost:{port}");
    let renew = [
        "identity",
        "key",
        "renew",
        "secondary",
        "--endpoint",
        &endpoint,
    ];
    let string = site.broker.cli_ok(&renew);
    assert!(
        string.starts_with(&format!("endpoint={endpoint}/;accesskey=")),
        "{string}"
    );
    good(&site, string.trim_end(), &["identity", "user", "create"]);
    // ID-61: nothing shows it again.
    let key = string
        .trim_end()
        .rsplit_once("accesskey=")
        .expect("a key")
        .1;
    let listed = site.broker.cli_json(&["identity", "key", "list", "--json"]);
    assert_eq!(listed["keys"].as_array().map(Vec::len), Some(2), "{listed}");
    let shown = format!("{listed}{}", site.broker.metrics());
    assert!(!shown.contains(key) && !shown.contains(&site.key));
    // The one before it is refused.
    site.broker.cli_ok(&renew);
    let (code, _, stderr) = run(&site, string.trim_end(), &["identity", "user", "create"]);
    assert_eq!(code, Some(6), "{stderr}");
    assert!(stderr.contains("access key is not in use"), "{stderr}");
}

#[test]
fn what_cannot_work_is_told_without_the_key() {
    let site = Site::start();
    let create = ["identity", "user", "create"];
    let output = site.broker.cli(&create);
    assert_eq!(output.status.code(), Some(2));
    let wrong = format!("endpoint=gate;accesskey={}", site.key);
    let (code, _, stderr) = run(&site, &wrong, &create);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(!stderr.contains(&site.key), "{stderr}");
    let nobody = format!("endpoint=http://127.0.0.1:1/;accesskey={}", site.key);
    let (code, _, stderr) = run(&site, &nobody, &create);
    assert_eq!(code, Some(5), "{stderr}");
}

#[test]
fn id_60_figures_of_a_user_are_told_by_id_and_gone_when_it_is_deleted() {
    let site = Site::start();
    let (user, other) = (site.create(), site.create());
    let token = site.issue(&user, &["chat", "voip"]);
    let mut client = site.connect(Version::V5, &user, &token);
    assert_eq!(client.subscribe("chat/1/#", 1), 1);
    for _ in 0..3 {
        assert_eq!(client.publish(1, "chat/1/messages", b"x"), 0);
        client.take();
    }
    assert_eq!(site.connack(Version::V5, Some(&user), "wrong"), 0x86);
    let show = |user: &str| {
        let show = ["identity", "user", "show", "--user", user, "--json"];
        site.broker.cli_json(&show)
    };
    let shown = show(&user);
    let figures = [
        ("issued", 1),
        ("tokens", 1),
        ("connects", 1),
        ("connections", 1),
        ("connects_refused", 1),
        ("messages_received", 3),
        ("messages_delivered", 3),
        ("revocations", 0),
    ];
    for (name, expected) in figures {
        assert_eq!(shown[name], expected, "{name} of {shown}");
    }
    site.revoke(&user);
    client.expect_end(&[0x87]);
    let shown = show(&user);
    assert_eq!(
        (
            &shown["revocations"],
            &shown["tokens"],
            &shown["connections"]
        ),
        (&1.into(), &0.into(), &0.into())
    );
    let listed = site.broker.cli_ok(&["identity", "user", "list"]);
    assert!(
        listed.contains(&user) && listed.contains(&other),
        "{listed}"
    );
    let metric = |name: &str| site.broker.metric(name);
    assert_eq!(
        metric("tollgate_user_tokens_issued_total{scope=\"voip\"}"),
        1.0
    );
    assert_eq!(metric("tollgate_user_revocations_total"), 1.0);
    assert_eq!(metric("tollgate_users"), 2.0);
    site.delete(&user);
    let gone = ["identity", "user", "show", "--user", &user];
    assert_eq!(site.broker.cli(&gone).status.code(), Some(6));
    let listed = site.broker.cli_ok(&["identity", "user", "list"]);
    assert!(
        !listed.contains(&user) && listed.contains(&other),
        "{listed}"
    );
    // The totals stay, and none of them names anybody.
    assert_eq!(metric("tollgate_users"), 1.0);
    assert_eq!(
        metric("tollgate_user_tokens_issued_total{scope=\"chat\"}"),
        1.0
    );
    assert!(!site.broker.metrics().contains("8:acs:"));
}

#[test]
fn id_61_no_secret_is_in_the_log_at_any_level() {
    let site = Site::start_with(&[("TOLLGATE_LOG_LEVEL", "trace")]);
    let user = site.create();
    let token = site.issue(&user, &["chat"]);
    let client = site.connect(Version::V5, &user, &token);
    client.disconnect();
    assert_eq!(
        site.connack(Version::V5, Some(&user), &format!("{token}x")),
        0x86
    );
    site.call_by("MDEyMw==", "POST", "/identities?api-version=2023-10-01", "");
    site.revoke(&user);
    let log = site.broker.stderr();
    assert!(log.contains(&user), "ids are in it: {log}");
    let signature = token.rsplit('.').next().expect("a signature");
    let body = token.split('.').nth(1).expect("a body");
    for secret in [&site.key, &token, signature, body] {
        assert!(!log.contains(secret), "{secret} is in {log}");
    }
}
