//! The command line as a person or a script sees it: words, output, exit codes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at what it does not expect"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
};

use tempfile::TempDir;

const HELP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/help");

/// A working directory of its own: no configuration, no secrets, no broker.
struct Place {
    dir: TempDir,
    variables: Vec<(String, String)>,
}

fn place() -> Place {
    Place {
        dir: tempfile::tempdir().unwrap(),
        variables: Vec::new(),
    }
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn with(mut self, name: &str, value: &str) -> Place {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A place that knows a broker and its token.
    fn beside(broker: &Broker) -> Place {
        place()
            .with("TOLLGATE_ADMIN_URL", &broker.url)
            .with("TOLLGATE_ADMIN_TOKEN", "tga_admin")
    }

    fn run(&self, arguments: &[&str]) -> Said {
        self.run_with_input(arguments, "")
    }

    fn run_with_input(&self, arguments: &[&str], input: &str) -> Said {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(arguments)
            .current_dir(self.dir.path())
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that wants no input may be gone before it is written.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let Output {
            status,
            stdout,
            stderr,
        } = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said {
            code: status.code().unwrap(),
            out: text(stdout),
            err: text(stderr),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Something that answers HTTP with what it was told, and reports what it was asked.
struct Broker {
    url: String,
    asked: mpsc::Receiver<String>,
}

impl Broker {
    /// Answers one request after the other with these: status and body.
    fn answering(replies: &[(u16, &str)]) -> Broker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (report, asked) = mpsc::channel();
        let replies: Vec<_> = replies
            .iter()
            .map(|(status, body)| (*status, (*body).to_owned()))
            .collect();
        thread::spawn(move || {
            for (status, body) in replies {
                let (stream, _) = listener.accept().unwrap();
                report.send(answer(stream, status, &body)).unwrap();
            }
        });
        Broker { url, asked }
    }

    /// Method, path, headers and body of the next request.
    fn asked(&self) -> String {
        self.asked.recv().unwrap()
    }
}

fn answer(stream: TcpStream, status: u16, body: &str) -> String {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut request = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        request.push_str(&line);
        if line.trim().is_empty() {
            break;
        }
    }
    let mut sent = vec![0; length];
    reader.read_exact(&mut sent).unwrap();
    request.push_str(&String::from_utf8(sent).unwrap());
    let length = body.len();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .unwrap();
    request
}

const DEVICE: &str = r#"{"id":"00000000-0000-0000-0000-00000000000a","name":"boiler",
    "created_ms":1769860800000,"generation":1,"credentials":[{"id":1,"kind":"access_token",
    "created_ms":1769860800000,"revoked_ms":1769860800001,"chosen":true},{"id":2,
    "kind":"access_token","created_ms":1769860800001,"chosen":false}]}"#;

const RECEIPT: &str = r#"{"connections":1,"sessions":2,"subscriptions":5,"queued":3,"in_flight":6,
    "unfinished":7,"wills":8,"retained":9,"milliseconds":4}"#;

#[test]
fn help_is_as_it_was_agreed() {
    let commands = [
        "",
        "serve",
        "device",
        "device create",
        "device list",
        "device import",
        "device export",
        "device show",
        "device scope",
        "device rotate",
        "device revoke",
        "device delete",
        "app",
        "app create",
        "app scope",
        "token",
        "token check",
        "identity",
        "identity user",
        "identity user create",
        "identity user delete",
        "identity user list",
        "identity user show",
        "identity token",
        "identity token issue",
        "identity token revoke",
        "identity key",
        "identity key renew",
        "identity key list",
        "query",
        "check",
        "backup",
        "restore",
        "bench",
        "bench ingest",
        "bench raw",
        "bench store",
        "store",
        "store path",
        "store verify",
    ];
    for command in commands {
        let mut arguments: Vec<_> = command.split_whitespace().collect();
        arguments.push("--help");
        let said = place().run(&arguments);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{command}");
        let name = ["tollgate", command].join(" ").trim().replace(' ', "-");
        let file = Path::new(HELP).join(format!("{name}.txt"));
        if std::env::var_os("TOLLGATE_TEST_UPDATE").is_some() {
            fs::write(&file, &said.out).unwrap();
        }
        let agreed = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            said.out,
            agreed,
            "{}: TOLLGATE_TEST_UPDATE=1 writes it anew",
            file.display()
        );
    }
}

#[test]
fn wrong_arguments_are_code_2_and_say_what_is_allowed() {
    for (arguments, expected) in [
        (&["devices"][..], "unrecognized subcommand 'devices'"),
        (&["device"], "Usage: tollgate device"),
        (&["device", "create"], "<NAME>"),
        (
            &["query", "boiler", "--format", "xml"],
            "[possible values: table, json, csv]",
        ),
        (
            &["query", "boiler", "--limit", "0"],
            "allowed is 1 to 10000",
        ),
        (
            &["query", "boiler", "--from", "now", "--to", "1h"],
            "must lie before --to",
        ),
        (&["query", "boiler", "--last", "long"], "as in 10m"),
        (
            &["--mqtt-listen", "here"],
            "--mqtt-listen: mqtt.listen = \"here\": allowed is",
        ),
        (
            &["serve", "--data-dir", ""],
            "--data-dir: data_dir = \"\": allowed is a path",
        ),
        (
            &["device", "list", "--admin-url", "https://a"],
            "allowed is http://HOST:PORT",
        ),
        (
            &["device", "list", "--http-listen", "off"],
            "http.listen is off",
        ),
        (
            &["device", "list", "--http-listen", "127.0.0.1:0"],
            "has port 0",
        ),
        (&["token", "check", "-"], "standard input holds no token"),
        (
            &["device", "credential", "add", "pump"],
            "--user-name (with --password), --client-id, or --certificate FILE",
        ),
        (
            &[
                "identity",
                "token",
                "issue",
                "--scope",
                "chat",
                "--expires-in",
                "5",
            ],
            "for '--expires-in <MINUTES>'",
        ),
        (
            &["backup", "b", "--passphrase-file", "nowhere"],
            "--passphrase-file nowhere cannot be read: No such file",
        ),
    ] {
        let said = place().run(arguments);
        assert_eq!(said.code, 2, "{arguments:?}: {}", said.err);
        assert!(said.err.contains(expected), "{arguments:?}: {}", said.err);
        assert_eq!(said.out, "", "{arguments:?}");
    }
}

#[test]
fn a_wrong_configuration_is_code_2_for_every_command() {
    let here = place();
    fs::write(here.path("config.toml"), "[mqtt]\nlissen = \"off\"\n").unwrap();
    for arguments in [
        &["serve"][..],
        &[],
        &["check"],
        &["device", "list"],
        &["query", "d"],
    ] {
        let said = here.run(arguments);
        assert_eq!(said.code, 2, "{arguments:?}");
        assert_eq!(
            said.err,
            "tollgate: config.toml, line 2: there is no key mqtt.lissen; the nearest is \
             mqtt.listen. Correct the name or remove it\n"
        );
    }
    let there = place().with("TOLLGATE_DATA_DIRECTORY", "x");
    let said = there.run(&["check"]);
    assert_eq!(said.code, 2);
    assert!(
        said.err.contains("the nearest is TOLLGATE_DATA_DIR."),
        "{}",
        said.err
    );
}

#[test]
fn without_a_broker_every_command_says_where_it_looked_and_how_to_start_one() {
    let url = "http://127.0.0.1:1"; // nothing listens on the lowest port
    for arguments in [
        &["device", "create", "boiler"][..],
        &["device", "list", "--json"],
        &["device", "show", "boiler"],
        &["device", "rotate", "boiler"],
        &["device", "revoke", "boiler"],
        &["device", "delete", "boiler"],
        &["token", "check", "tgd_x"],
        &["query", "boiler", "--last", "1h"],
    ] {
        // With and without a token at hand: that nobody is there comes first.
        for place in [place(), place().with("TOLLGATE_ADMIN_TOKEN", "tga_admin")] {
            let said = place.with("TOLLGATE_ADMIN_URL", url).run(arguments);
            assert_eq!(
                (said.code, said.out.as_str()),
                (5, ""),
                "{arguments:?}: {}",
                said.err
            );
            let expected = format!("tollgate: no broker answers at {url}: ");
            assert!(said.err.starts_with(&expected), "{}", said.err);
            assert!(
                said.err.contains("Start one with `tollgate serve`"),
                "{}",
                said.err
            );
        }
    }
}

#[test]
fn the_address_comes_from_flag_variable_or_configuration() {
    // Nothing listens on the lowest ports; a free one might be another test's by now.
    let (flag, variable, configured) = (1, 2, 3);
    let here = place();
    let text = format!("[http]\nlisten = [\"[::]:{configured}\", \"127.0.0.9:1\"]\n");
    fs::write(here.path("config.toml"), text).unwrap();
    let tried = |said: Said| said.err.split("answers at ").nth(1).unwrap().to_owned();
    let said = tried(here.run(&["device", "list"]));
    assert!(
        said.starts_with(&format!("http://127.0.0.1:{configured}: ")),
        "{said}"
    );
    let here = here.with(
        "TOLLGATE_ADMIN_URL",
        &format!("http://localhost:{variable}"),
    );
    let said = tried(here.run(&["device", "list"]));
    assert!(
        said.starts_with(&format!("http://localhost:{variable}: ")),
        "{said}"
    );
    let url = format!("http://[::1]:{flag}/");
    let said = tried(here.run(&["device", "list", "--admin-url", &url]));
    assert!(
        said.starts_with(&format!("http://[::1]:{flag}: ")),
        "{said}"
    );
}

#[test]
fn what_is_no_broker_is_not_taken_for_one() {
    let broker = Broker::answering(&[(404, "<html>not here</html>")]);
    let said = Place::beside(&broker).run(&["device", "list"]);
    assert_eq!(said.code, 5);
    assert!(
        said.err
            .contains("is not Tollgate's admin API (HTTP status 404"),
        "{}",
        said.err
    );
    let broker = Broker::answering(&[(200, "hello")]);
    let said = Place::beside(&broker).run(&["device", "list"]);
    assert_eq!(said.code, 5);
}

#[test]
fn a_refusal_is_the_brokers_own_words_and_code_6() {
    let error =
        r#"{"error":{"code":"exists","message":"there is a device boiler","target":"name"}}"#;
    let broker = Broker::answering(&[(409, error)]);
    let said = Place::beside(&broker).run(&["device", "create", "boiler"]);
    assert_eq!((said.code, said.out.as_str()), (6, ""));
    assert_eq!(
        said.err,
        "tollgate: the broker refused: there is a device boiler\n"
    );
    // What the API calls by a field's name, a command calls by its option's; and what is not there
    // can be looked for.
    for (reply, arguments, said_so) in [
        (
            r#"{"code":"bad_field","message":"grace_s is 1, give grace_s 0","target":"grace_s"}"#,
            &["device", "rotate", "boiler"][..],
            "--grace is 1, give --grace 0s\n",
        ),
        (
            r#"{"code":"device_not_found","message":"there is no device \"x\"","target":"device"}"#,
            &["device", "show", "x"],
            "there is no device \"x\"; `tollgate device list` names all\n",
        ),
    ] {
        let broker = Broker::answering(&[(422, &format!(r#"{{"error":{reply}}}"#))]);
        let said = Place::beside(&broker).run(arguments);
        assert_eq!(said.code, 6);
        assert_eq!(said.err, format!("tollgate: the broker refused: {said_so}"));
    }
    let error = r#"{"error":{"code":"unauthorized","message":"wrong token"}}"#;
    let broker = Broker::answering(&[(401, error)]);
    let said = Place::beside(&broker).run(&["device", "list"]);
    assert_eq!(said.code, 6);
    assert!(
        said.err
            .contains("wrong token (the token is that of TOLLGATE_ADMIN_TOKEN)")
    );
    assert!(!said.err.contains("tga_admin"), "SEC-55");
}

#[test]
fn the_admin_token_comes_from_the_secrets_directory() {
    let broker = Broker::answering(&[(200, r#"{"devices":[]}"#)]);
    let here = place().with("TOLLGATE_ADMIN_URL", &broker.url);
    fs::create_dir(here.path("keys")).unwrap();
    fs::write(here.path("keys/admin.token"), "tga_from_file\n").unwrap();
    let said = here.run(&["device", "list", "--secrets-dir", "keys"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("no devices yet"), "{}", said.out);
    assert!(broker.asked().contains("Bearer tga_from_file\r\n"));
    // A broker answers but no token is there.
    let broker = Broker::answering(&[(200, "{}")]);
    let said = place()
        .with("TOLLGATE_ADMIN_URL", &broker.url)
        .run(&["device", "list"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err
            .contains("secrets/admin.token: the admin token cannot be read")
    );
    assert!(said.err.contains("TOLLGATE_ADMIN_TOKEN"), "{}", said.err);
    // Where it was looked for, and what to do elsewhere.
    let looked = said.err.strip_prefix("tollgate: /");
    assert!(looked.is_some_and(|path| path.contains("/secrets/admin.token: ")));
    assert!(
        said.err
            .contains("Run this in the broker's directory, or say where its files are"),
        "{}",
        said.err
    );
}

#[test]
fn a_created_device_is_shown_with_its_token_and_a_line_to_paste() {
    let reply = format!(r#"{{"device":{DEVICE},"token":"tgd_once"}}"#);
    let broker = Broker::answering(&[(201, &reply)]);
    let said = Place::beside(&broker).run(&["device", "create", "boiler"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert_eq!(
        said.out,
        "device   boiler\n\
         id       00000000-0000-0000-0000-00000000000a\n\
         created  2026-01-31T12:00:00.000Z\n\
         \n\
         CREDENTIAL  KIND                   CREATED                   STATE\n\
         1           access token (chosen)  2026-01-31T12:00:00.000Z  \
         revoked 2026-01-31T12:00:00.001Z\n\
         2           access token           2026-01-31T12:00:00.001Z  live\n\
         \n\
         token    tgd_once\n         shown once: keep it now\n\
         \n\
         Send a value:\n\
         \n  \
         mosquitto_pub -d -q 1 -h localhost -p 1883 -t v1/devices/me/telemetry -u tgd_once -m \
         '{\"temperature\":25}'\n"
    );
    let asked = broker.asked();
    assert!(
        asked.starts_with("POST /admin/v1/devices HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(asked.ends_with("\r\n\r\n{\"name\":\"boiler\"}"), "{asked}");
}

#[test]
fn a_chosen_token_may_come_from_standard_input() {
    let reply = format!(r#"{{"device":{DEVICE},"token":"it's mine"}}"#);
    let broker = Broker::answering(&[(201, &reply), (201, &reply)]);
    let here = Place::beside(&broker);
    let said = here.run_with_input(
        &["device", "create", "boiler", "--token", "-"],
        "it's mine\n",
    );
    assert!(said.out.contains(r"-u 'it'\''s mine' -m"), "{}", said.out);
    assert!(
        broker
            .asked()
            .ends_with(r#"{"name":"boiler","token":"it's mine"}"#)
    );
    let said = here.run(&[
        "device",
        "create",
        "boiler",
        "--token",
        "it's mine",
        "--json",
    ]);
    assert!(
        said.out.contains("\"token\": \"it's mine\""),
        "{}",
        said.out
    );
    assert!(
        broker
            .asked()
            .ends_with(r#"{"name":"boiler","token":"it's mine"}"#)
    );
}

#[test]
fn a_list_is_read_page_by_page() {
    let page = |next: &str| format!(r#"{{"devices":[{DEVICE}]{next}}}"#);
    let (first, last) = (page(r#","next":"boiler &""#), page(""));
    let broker = Broker::answering(&[(200, &first), (200, &last)]);
    let said = Place::beside(&broker).run(&["device", "list"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(said.out.lines().count(), 3);
    assert!(said.out.starts_with("NAME    ID "), "{}", said.out);
    assert!(
        broker
            .asked()
            .starts_with("GET /admin/v1/devices?limit=10000 HTTP")
    );
    let asked = broker.asked();
    assert!(asked.starts_with("GET /admin/v1/devices?limit=10000&after=boiler%20%26 HTTP"));
}

#[test]
fn changes_name_the_device_and_show_the_receipt() {
    let done = format!(r#"{{"device":{DEVICE},"receipt":{RECEIPT}}}"#);
    let rotated = format!(r#"{{"device":{DEVICE},"token":"tgd_new","receipt":{RECEIPT}}}"#);
    let receipt = "boiler (00000000-0000-0000-0000-00000000000a): 1 connections closed; 2 \
                   sessions, 5 subscriptions, 3 queued, 6 in-flight and 7 unfinished messages, 8 \
                   wills and 9 retained messages dropped; confirmed everywhere in 4 ms\n";
    for (command, reply, request) in [
        (
            "revoke",
            &done,
            "POST /admin/v1/devices/Halle%201%2Fx/revoke HTTP",
        ),
        (
            "delete",
            &done,
            "DELETE /admin/v1/devices/Halle%201%2Fx HTTP",
        ),
        (
            "rotate",
            &rotated,
            "POST /admin/v1/devices/Halle%201%2Fx/rotate HTTP",
        ),
    ] {
        let broker = Broker::answering(&[(200, reply), (200, reply)]);
        let here = Place::beside(&broker);
        let said = here.run(&["device", command, "Halle 1/x"]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(
            said.out.starts_with(&format!("{command}d {receipt}")),
            "{}",
            said.out
        );
        assert_eq!(said.out.contains("tgd_new"), command == "rotate");
        assert!(broker.asked().starts_with(request));
        let said = here.run(&["device", command, "Halle 1/x", "--json"]);
        let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(json["receipt"]["queued"], 3);
        broker.asked();
    }
}

#[test]
fn a_scope_is_changed_list_by_list_or_cleared() {
    let device = DEVICE.replace(
        "\"credentials\"",
        "\"publish\":[\"a/%d/#\"],\"subscribe\":[],\"credentials\"",
    );
    let reply = format!(r#"{{"device":{device},"receipt":{RECEIPT}}}"#);
    let broker = Broker::answering(&[(200, &reply), (200, &reply), (200, &reply)]);
    let here = Place::beside(&broker);
    for (arguments, body) in [
        (
            &["--publish", "a/%d/#", "b"][..],
            r#"{"publish":["a/%d/#","b"]}"#,
        ),
        (
            &["--clear", "--subscribe", "c"],
            r#"{"publish":[],"subscribe":["c"]}"#,
        ),
        (&["--clear"], r#"{"publish":[],"subscribe":[]}"#),
    ] {
        let said = here.run(&[&["device", "scope", "boiler"], arguments].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(
            said.out,
            "changed the scope of boiler (00000000-0000-0000-0000-00000000000a): 1 connections \
             closed; 2 sessions, 5 subscriptions, 3 queued, 6 in-flight and 7 unfinished \
             messages, 8 wills and 9 retained messages dropped; confirmed everywhere in 4 ms\n\
             publish    a/%d/#\nsubscribe  nothing\n"
        );
        let asked = broker.asked();
        assert!(
            asked.starts_with("PATCH /admin/v1/devices/boiler/scope HTTP"),
            "{asked}"
        );
        assert!(asked.ends_with(&format!("\r\n\r\n{body}")), "{asked}");
    }
    let said = here.run(&["device", "scope", "boiler"]);
    assert_eq!(said.code, 2, "{}", said.out);
    assert!(said.err.contains("--clear"), "{}", said.err);
}

#[test]
fn a_token_is_checked_from_argument_or_standard_input_and_never_shown() {
    let live = r#"{"state":"live","device":"00000000-0000-0000-0000-00000000000a",
        "name":"boiler","credential":2,"since_ms":1769860800000}"#;
    let broker = Broker::answering(&[(200, live), (200, live), (200, live)]);
    let here = Place::beside(&broker);
    for (arguments, input) in [
        (&["token", "check", "tgd_secret"][..], ""),
        (&["token", "check"], "tgd_secret\n"),
        (&["token", "check", "-", "--json"], "tgd_secret"),
    ] {
        let said = here.run_with_input(arguments, input);
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(
            said.out.contains("boiler") && !said.out.contains("tgd_secret"),
            "{}",
            said.out
        );
        let asked = broker.asked();
        assert!(
            asked.starts_with("POST /admin/v1/tokens/check HTTP"),
            "{asked}"
        );
        assert!(asked.ends_with(r#"{"token":"tgd_secret"}"#), "{asked}");
    }
}

#[test]
fn telemetry_is_printed_as_table_csv_or_json() {
    let reply = r#"{"device":"00000000-0000-0000-0000-00000000000a","truncated":true,"points":[
        {"key":"temperature","ts":1769860800001,"value":25},
        {"key":"s","ts":1769860800000,"value":"a, b"}]}"#;
    let broker = Broker::answering(&[(200, reply), (200, reply), (200, reply), (200, reply)]);
    let here = Place::beside(&broker);
    let table = here.run(&[
        "query",
        "boiler",
        "--from",
        "2026-01-31T12:00:00Z",
        "--keys",
        "s,t",
    ]);
    let note = "tollgate: showing the newest 2 points; there are more (--limit, --to)\n";
    assert_eq!((table.code, table.err.as_str()), (0, note));
    assert_eq!(
        table.out,
        "TIME                      KEY          VALUE\n\
         2026-01-31T12:00:00.000Z  s            a, b\n\
         2026-01-31T12:00:00.001Z  temperature  25\n"
    );
    let asked = broker.asked();
    let path =
        "GET /admin/v1/devices/boiler/telemetry?order=desc&limit=1000&from=1769860800000&keys=s,t ";
    assert!(asked.starts_with(path), "{asked}");
    let csv = here.run(&["query", "boiler", "--format", "csv"]);
    assert_eq!(
        csv.out.lines().nth(1),
        Some("2026-01-31T12:00:00.000Z,s,\"a, b\"")
    );
    assert!(
        csv.err.contains("the newest 2 points; there are more"),
        "{}",
        csv.err
    );
    for arguments in [
        &["query", "boiler", "--json"][..],
        &["query", "b", "--format", "json"],
    ] {
        let json: serde_json::Value = serde_json::from_str(&here.run(arguments).out).unwrap();
        assert_eq!(json["points"][0]["value"], 25, "newest first, as it came");
    }
    let broker = Broker::answering(&[(
        200,
        r#"{"device":
        "00000000-0000-0000-0000-00000000000a","points":[]}"#,
    )]);
    let said = Place::beside(&broker).run(&["query", "boiler"]);
    let (out, err) = (said.out.as_str(), said.err.as_str());
    assert_eq!((out, err), ("nothing stored in this range\n", ""));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let devices = vec![DEVICE; 2_000].join(",");
    let broker = Broker::answering(&[(200, &format!(r#"{{"devices":[{devices}]}}"#))]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["device", "list", "--json"])
        .env_clear()
        .env("TOLLGATE_ADMIN_URL", &broker.url)
        .env("TOLLGATE_ADMIN_TOKEN", "tga_admin")
        .current_dir(tempfile::tempdir().unwrap().path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take()); // as `| head` does, only earlier
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

/// The line of a check, by what it is about and a word in it.
fn finding<'a>(said: &'a Said, what: &str, word: &str) -> &'a str {
    let is_it = |line: &&str| line.contains(&format!("  {what}  ")) && line.contains(word);
    said.out
        .lines()
        .find(is_it)
        .unwrap_or_else(|| panic!("{what}, {word}:\n{}", said.out))
}

/// Listeners on any free port, so that other programs on this machine do not matter.
fn free_ports() -> Place {
    place()
        .with("TOLLGATE_MQTT_LISTEN", "127.0.0.1:0")
        .with("TOLLGATE_MQTTS_LISTEN", "127.0.0.1:0")
        .with("TOLLGATE_HTTP_LISTEN", "127.0.0.1:0")
        .with("TOLLGATE_ADMIN_URL", "http://127.0.0.1:1")
}

#[test]
fn check_finds_nothing_wrong_in_an_empty_place_and_writes_nothing() {
    let here = free_ports();
    let said = here.run(&["check"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    for (what, word) in [
        ("configuration", "the defaults stand"),
        ("data_dir", "made at the first start"),
        ("secrets_dir", "made at the first start"),
        ("certificate", "made at the next start: there was none"),
        ("broker", "none answers at http://127.0.0.1:1"),
        ("mqtt.listen", "127.0.0.1:0 is free"),
    ] {
        let line = finding(&said, what, word).to_owned();
        assert!(line.starts_with("ok "), "{line}");
    }
    assert_eq!(fs::read_dir(here.dir.path()).unwrap().count(), 0);
    let json: serde_json::Value =
        serde_json::from_str(&here.run(&["check", "--json"]).out).unwrap();
    assert_eq!(json["checks"][0]["what"], "configuration");
    assert_eq!(json["checks"][0]["result"], "ok");
}

#[test]
fn check_names_what_would_keep_the_broker_from_starting() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let here = free_ports().with("TOLLGATE_HTTP_LISTEN", &address);
    fs::write(here.path("data"), "a file").unwrap();
    fs::create_dir_all(here.path("secrets")).unwrap();
    fs::set_permissions(here.path("secrets"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(here.path("secrets/registry.key"), "x").unwrap();
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(here.path("secrets/registry.key"), open).unwrap();
    fs::create_dir(here.path("certs")).unwrap();
    fs::write(here.path("certs/server.pem"), "not ours and no certificate").unwrap();
    fs::write(here.path("secrets/server.key"), "no key").unwrap();
    let closed = fs::Permissions::from_mode(0o600);
    fs::set_permissions(here.path("secrets/server.key"), closed).unwrap();
    let said = here.run(&["check"]);
    assert_eq!(said.code, 4, "{}", said.out);
    for (what, word) in [
        ("data_dir", "data is no directory"),
        ("secrets_dir", "run: chmod 600 secrets/registry.key"),
        (
            "certificate",
            "certs/server.pem: this is no PEM certificate",
        ),
        ("http.listen", "end what uses it"),
    ] {
        let line = finding(&said, what, word).to_owned();
        assert!(line.starts_with("FAILED "), "{line}");
    }
    assert_eq!(
        said.err,
        "tollgate: 4 of the checks failed; the broker would not start\n"
    );
}

#[test]
fn check_warns_of_what_deserves_a_look() {
    let here = free_ports()
        .with("TOLLGATE_MQTT_LISTEN", "off")
        .with("TOLLGATE_MQTTS_LISTEN", "off");
    for dir in ["data", "secrets"] {
        fs::create_dir(here.path(dir)).unwrap();
    }
    fs::set_permissions(here.path("data"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(here.path("secrets"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(here.path("data/something"), "x").unwrap();
    let said = here.run(&["check"]);
    assert_eq!(said.code, 0, "{}", said.out);
    for (what, word) in [
        ("configuration", "no device can connect"),
        ("data_dir", "run: chmod 700 data"),
        ("secrets_dir", "registry.key is missing and there is data"),
    ] {
        let line = finding(&said, what, word).to_owned();
        assert!(line.starts_with("warning "), "{line}");
    }
    finding(&said, "certificate", "not needed");
}

#[test]
fn check_speaks_to_a_running_broker_and_leaves_its_ports_alone() {
    let broker = Broker::answering(&[(200, "ok"), (503, "behind"), (404, "what?")]);
    let url = broker.url.clone();
    let here = free_ports().with("TOLLGATE_ADMIN_URL", &url);
    let said = here.run(&["check"]);
    assert_eq!(said.code, 0, "{}", said.out);
    finding(&said, "broker", "and is well");
    assert!(!said.out.contains("mqtt.listen"), "{}", said.out);
    assert!(broker.asked().starts_with("GET /healthz HTTP"));
    let said = here.run(&["check"]);
    assert_eq!(said.code, 0);
    assert!(finding(&said, "broker", "is not well").starts_with("warning"));
    let said = here.run(&["check"]);
    assert_eq!(said.code, 4);
    assert!(finding(&said, "broker", "is no broker").starts_with("FAILED"));
}

#[test]
fn rel_29_store_verify_names_what_is_damaged_and_store_path_says_where() {
    let here = place();
    let said = here.run(&["store", "path"]);
    let dir = here.dir.path().join("data/history");
    assert_eq!((said.code, said.out), (0, format!("{}\n", dir.display())));
    let said = here.run(&["store", "verify"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out.contains("no files yet"), "{}", said.out);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("1-2.parquet"), "PAR1 this is none PAR1").unwrap();
    let said = here.run(&["store", "verify"]);
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(
        said.err.contains("2 of the history's files are damaged"),
        "{}",
        said.err
    );
    for word in ["manifest.json", "it is missing", "1-2.parquet", "DAMAGED"] {
        assert!(said.out.contains(word), "{word}: {}", said.out);
    }
    let said = here.run(&["store", "verify", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["files"][0]["samples"], 0);
    assert_eq!(said.code, 1);
}
