//! The device platform's REST calls for telemetry (TB-93, TB-94).

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::Server;

struct Scene {
    server: Server,
    id: Uuid,
}

impl Scene {
    fn new() -> Self {
        let mut server = Server::start();
        let (id, _) = server.create("boiler");
        for payload in [
            r#"{"ts":1000,"values":{"t":20.5,"n":1,"on":true}}"#,
            r#"{"ts":2000,"values":{"t":21,"s":"x","j":{"a":1}}}"#,
            r#"{"ts":3000,"values":{"t":22.5,"n":4}}"#,
        ] {
            server.publish(id, payload);
        }
        Self { server, id }
    }

    fn get(&self, rest: &str) -> (u16, Value) {
        let path = format!("/api/plugins/telemetry/DEVICE/{}/{rest}", self.id);
        self.server.call("GET", &path, None)
    }

    fn good(&self, rest: &str) -> Value {
        let (status, body) = self.get(rest);
        assert_eq!(status, 200, "{rest}: {body}");
        body
    }
}

#[test]
fn tb_93_latest_values_are_strings_unless_asked_otherwise() {
    let scene = Scene::new();
    assert_eq!(
        scene.good("values/timeseries?keys=t,on,j"),
        json!({
            "j": [{"ts": 2000, "value": "{\"a\":1}"}],
            "on": [{"ts": 1000, "value": "true"}],
            "t": [{"ts": 3000, "value": "22.5"}],
        })
    );
    assert_eq!(
        scene.good("values/timeseries?key=n&key=j&useStrictDataTypes=true&unknown=1"),
        json!({"j": [{"ts": 2000, "value": {"a": 1}}], "n": [{"ts": 3000, "value": 4}]})
    );
    let all = scene.good("values/timeseries");
    assert_eq!(all.as_object().unwrap().len(), 5, "{all}");
    let never = scene.good("values/timeseries?keys=never");
    assert_eq!(never["never"][0]["value"], Value::Null);
    assert!(never["never"][0]["ts"].as_i64().unwrap() > 1_600_000_000_000);
    assert_eq!(
        scene.good("keys/timeseries"),
        json!(["j", "n", "on", "s", "t"])
    );
}

#[test]
fn tb_94_history_has_range_limit_order_and_aggregates() {
    let scene = Scene::new();
    for end in ["values/timeseries", "values/timeseries/history"] {
        assert_eq!(
            scene.good(&format!("{end}?keys=t,never&startTs=1000&endTs=3000")),
            json!({"t": [{"ts": 2000, "value": "21"}, {"ts": 1000, "value": "20.5"}]})
        );
    }
    // The limit is one for each key.
    assert_eq!(
        scene.good("values/timeseries?keys=t,n&startTs=0&endTs=9000&limit=1&orderBy=ASC"),
        json!({"n": [{"ts": 1000, "value": "1"}], "t": [{"ts": 1000, "value": "20.5"}]})
    );
    // Buckets begin at startTs, the last one is cut at endTs; a bucket's time is its middle.
    let aggregated = |agg: &str| {
        scene.good(&format!(
            "values/timeseries?keys=t,n,s&startTs=500&endTs=3200&interval=2000&agg={agg}\
             &orderBy=ASC&useStrictDataTypes=true"
        ))
    };
    assert_eq!(
        aggregated("AVG"),
        json!({
            "n": [{"ts": 1500, "value": 1.0}, {"ts": 2850, "value": 4.0}],
            "t": [{"ts": 1500, "value": 20.75}, {"ts": 2850, "value": 22.5}],
        })
    );
    assert_eq!(
        aggregated("COUNT"),
        json!({
            "n": [{"ts": 1500, "value": 1}, {"ts": 2850, "value": 1}],
            "s": [{"ts": 1500, "value": 1}],
            "t": [{"ts": 1500, "value": 2}, {"ts": 2850, "value": 1}],
        })
    );
    let raw = "values/timeseries?keys=n&startTs=0&endTs=9000&agg=SUM&interval=0";
    assert_eq!(scene.good(raw)["n"].as_array().unwrap().len(), 2);
}

#[test]
fn tb_93_refusals_have_the_form_of_the_platform() {
    let scene = Scene::new();
    for rest in [
        "values/timeseries?startTs=2&endTs=1",
        "values/timeseries?startTs=1",
        "values/timeseries?endTs=1",
        "values/timeseries?startTs=0&endTs=1&agg=MEDIAN",
        "values/timeseries?startTs=0&endTs=1&orderBy=UP",
        "values/timeseries?startTs=0&endTs=1&limit=0",
        "values/timeseries?startTs=0&endTs=701000&interval=1000&agg=AVG&limit=5",
        "values/timeseries?startTs=x&endTs=1",
        "values/timeseries?useStrictDataTypes=perhaps",
    ] {
        let (status, body) = scene.get(rest);
        assert_eq!(status, 400, "{rest}: {body}");
        assert_eq!(body["status"], 400);
        assert_eq!(body["errorCode"], 30, "{rest}: {body}");
        assert!(body["message"].is_string() && body["timestamp"].is_u64());
    }
    scene.good("values/timeseries?startTs=0&endTs=700000&interval=1000&agg=AVG");
    let server = &scene.server;
    for (path, status, code) in [
        (
            format!("DEVICE/{}/values/timeseries", Uuid::from_u128(7)),
            404,
            32,
        ),
        ("DEVICE/boiler/values/timeseries".to_owned(), 400, 30),
        (format!("ASSET/{}/keys/timeseries", scene.id), 400, 30),
    ] {
        let found = server.call("GET", &format!("/api/plugins/telemetry/{path}"), None);
        assert_eq!(
            (found.0, &found.1["errorCode"]),
            (status, &json!(code)),
            "{path}: {found:?}"
        );
    }
    // Either header lets in, neither or a wrong one does not.
    let path = format!("/api/plugins/telemetry/DEVICE/{}/keys/timeseries", scene.id);
    let other = format!("X-Authorization: Bearer {}", server.admin_token);
    assert_eq!(server.request("GET", &path, &[&other], None).status, 200);
    for headers in [&[][..], &["X-Authorization: Bearer wrong"]] {
        let reply = server.request("GET", &path, headers, None);
        assert_eq!(
            (reply.status, &reply.json()["errorCode"]),
            (401, &json!(10))
        );
    }
    let admin = "/admin/v1/devices";
    assert_eq!(
        server.request("GET", admin, &[&other], None).status,
        401,
        "for the platform only"
    );
}
