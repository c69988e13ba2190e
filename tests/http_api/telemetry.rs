//! The history endpoint.

use serde_json::{Value, json};
use tollgate::telemetry::Query;

use crate::harness::Server;

/// Points as `ts key=value`, in the order of the reply.
fn points(view: &Value) -> Vec<String> {
    let points = view["points"]
        .as_array()
        .unwrap_or_else(|| panic!("no points: {view}"));
    let show = |point: &Value| {
        format!(
            "{} {}={}",
            point["ts"],
            point["key"].as_str().unwrap(),
            point["value"]
        )
    };
    points.iter().map(show).collect()
}

#[test]
fn tb_24_what_is_durable_is_read_back_at_once_in_the_order_asked_for() {
    let mut server = Server::start();
    let (id, _) = server.create("boiler");
    let (other, _) = server.create("other");
    server.publish(id, r#"{"ts":1000,"values":{"t":20.5,"on":true}}"#);
    server.publish(
        id,
        r#"{"ts":2000,"values":{"t":21,"s":"a,\"b\"","j":{"b":[1, 2],"a":null}}}"#,
    );
    server.publish(other, r#"{"ts":1500,"values":{"t":99}}"#);

    let get = |query: &str| {
        let path = format!("/admin/v1/devices/boiler/telemetry?{query}");
        let (status, view) = server.call("GET", &path, None);
        assert_eq!(status, 200, "{query}: {view}");
        assert_eq!(view["device"], json!(id));
        (points(&view), view["truncated"].as_bool().unwrap())
    };
    let all = [
        "1000 on=true",
        "1000 t=20.5",
        r#"2000 j={"a":null,"b":[1,2]}"#,
        r#"2000 s="a,\"b\"""#,
        "2000 t=21",
    ];
    assert_eq!(get("order=asc"), (all.map(str::to_owned).to_vec(), false));
    let newest_first: Vec<String> = all.iter().rev().map(|point| (*point).to_owned()).collect();
    assert_eq!(get(""), (newest_first, false));
    assert_eq!(get("keys=t&order=asc").0, ["1000 t=20.5", "2000 t=21"]);
    assert_eq!(
        get("keys=t,on&to=2000&order=asc").0,
        ["1000 on=true", "1000 t=20.5"]
    );
    assert_eq!(get("keys=t&from=2000&to=2001").0, ["2000 t=21"]);
    assert_eq!(get("keys=t&from=2001").0, [""; 0]);
    assert_eq!(get("keys=t&limit=1"), (vec!["2000 t=21".to_owned()], true));
    assert!(!get("keys=t&limit=2").1);
    assert_eq!(get("keys=t&limit=1&order=asc").0, ["1000 t=20.5"]);
}

#[test]
fn a_value_is_returned_as_it_was_stored_and_a_comma_in_a_key_is_possible() {
    let mut server = Server::start();
    let (id, _) = server.create("boiler");
    server.publish(
        id,
        r#"{"ts":1,"values":{"a,b":9007199254740993,"a":1e300}}"#,
    );
    let path = "/admin/v1/devices/boiler/telemetry?keys=a%2Cb";
    let reply = server.request("GET", path, &[&server.authorization()], None);
    let point = r#"{"key":"a,b","ts":1,"value":9007199254740993}"#;
    let expected = format!(r#"{{"device":"{id}","points":[{point}],"truncated":false}}"#);
    assert_eq!(reply.body, expected);
}

#[test]
fn a_bad_parameter_is_named() {
    let server = Server::start();
    server.create("boiler");
    let too_many = format!("keys={}", vec!["k"; 101].join(","));
    for (query, target) in [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("from=yesterday", "from"),
        ("to=1.5", "to"),
        ("from=2&to=1", "from"),
        ("order=up", "order"),
        ("keys=", "keys"),
        ("keys=a,,b", "keys"),
        (too_many.as_str(), "keys"),
        ("key=a", "key"),
        ("from=1&from=2", "from"),
    ] {
        let path = format!("/admin/v1/devices/boiler/telemetry?{query}");
        let (status, refusal) = server.call("GET", &path, None);
        assert_eq!(
            (status, &refusal["error"]["code"]),
            (400, &json!("bad_parameter")),
            "{query}"
        );
        assert_eq!(refusal["error"]["target"], target, "{query}: {refusal}");
    }
    let (status, refusal) = server.call("GET", "/admin/v1/devices/nobody/telemetry", None);
    assert_eq!(
        (status, &refusal["error"]["code"]),
        (404, &json!("device_not_found"))
    );
}

#[test]
fn a_deleted_device_has_no_history_not_even_for_one_of_the_same_name() {
    let mut server = Server::start();
    let (id, _) = server.create("boiler");
    server.publish(id, r#"{"t":1}"#);
    server.call("DELETE", "/admin/v1/devices/boiler", None);
    server.publish(id, r#"{"t":2}"#); // was on its way to the disk
    let (status, _) = server.call("GET", &format!("/admin/v1/devices/{id}/telemetry"), None);
    assert_eq!(status, 404);
    let everything = Query {
        device: id,
        keys: None,
        from_ms: i64::MIN,
        to_ms: i64::MAX,
        limit: 10,
        newest_first: false,
        left_out: Vec::new(),
    };
    assert_eq!(
        server.history.query(&everything).unwrap(),
        [],
        "still there, only hidden by its id"
    );
    server.create("boiler");
    let (status, view) = server.call("GET", "/admin/v1/devices/boiler/telemetry", None);
    assert_eq!((status, points(&view)), (200, Vec::new()));
}

#[test]
fn points_are_aggregated_by_whole_intervals() {
    let mut server = Server::start();
    let (id, _) = server.create("boiler");
    for (ts, value) in [(59_999, 1), (60_000, 2), (61_000, 4), (120_000, 8)] {
        server.publish(id, &format!("{{ts:{ts},values:{{n:{value}}}}}"));
    }
    let path = "/admin/v1/devices/boiler/telemetry?agg=sum&interval=60000";
    let get = |rest: &str| {
        let (status, view) = server.call("GET", &format!("{path}{rest}"), None);
        assert_eq!(status, 200, "{view}");
        (points(&view), view["truncated"].as_bool().unwrap())
    };
    let text =
        |points: &[&str]| -> Vec<String> { points.iter().map(|p| (*p).to_owned()).collect() };
    assert_eq!(
        get(""),
        (text(&["120000 n=8", "60000 n=6", "0 n=1"]), false)
    );
    assert_eq!(
        get("&order=asc&limit=2"),
        (text(&["0 n=1", "60000 n=6"]), true)
    );
    for (query, target) in [
        ("agg=avg", "interval"),
        ("interval=5", "agg"),
        ("agg=mean&interval=5", "agg"),
        ("agg=avg&interval=0", "interval"),
    ] {
        let path = format!("/admin/v1/devices/boiler/telemetry?{query}");
        let (status, refusal) = server.call("GET", &path, None);
        assert_eq!(
            (status, &refusal["error"]["target"]),
            (400, &json!(target)),
            "{query}"
        );
    }
}
