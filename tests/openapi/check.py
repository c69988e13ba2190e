"""Holds the description that a broker serves against what the broker does.

Argument: one JSON object with `host` and `port` of the HTTP listener, `token` (of full rights),
`access_key`, `certificate` (PEM), and `device`, which has telemetry. Every endpoint is called so
that every status it is described with comes, each reply is validated against its schema, and one
JSON object is printed: `wrong` lists what does not fit. An undescribed status or member is wrong,
and so is a status or a member that is described and never seen.
"""

import base64
import hashlib
import hmac
import http.client
import json
import re
import sys
import threading
from email.utils import formatdate
from urllib.parse import quote

import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

site = json.loads(sys.argv[1])
HOST = f"{site['host']}:{site['port']}"
METHODS = ("get", "post", "put", "patch", "delete")
# What any request can be refused with stands under `default`.
COMMON = {401, 403, 408, 429, 500, 503}
# Described, and not to be had from a broker that is well; unit tests of `health` have them.
NOT_SEEN_HERE = {("healthz", "503"), ("readyz", "503")}

wrong = []
seen = set()
members = set()


class Reply:
    def __init__(self, response, is_stream):
        self.status = response.status
        self.kind = (response.getheader("Content-Type") or "").split(";")[0]
        self.location = response.getheader("Location")
        self.body = response.readline() if is_stream else response.read()
        self.json = json.loads(self.body) if self.kind == "application/json" else None


def send(method, path, body=None, token=site["token"], headers=None, stream=False, length=None):
    """One request on a connection of its own; `length` is declared instead of a body's own."""
    connection = http.client.HTTPConnection(site["host"], site["port"], timeout=60)
    sent = {"Host": HOST}
    if token:
        sent["Authorization"] = f"Bearer {token}"
    if body is not None or length:
        sent["Content-Type"] = "application/json"
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        data = (body or "").encode() if not isinstance(body, bytes) else body
        sent["Content-Length"] = str(length or len(data))
    sent |= headers or {}
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in sent.items():
        connection.putheader(name, value)
    connection.endheaders()
    if body is not None:
        connection.send(data)
    reply = Reply(connection.getresponse(), stream)
    connection.close()
    return reply


def signed(method, path, body=b""):
    """The headers of a request that is signed with the access key."""
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    date = formatdate(usegmt=True)
    text = f"{method}\n{path}\n{date};{HOST};{digest}"
    mac = hmac.new(base64.b64decode(site["access_key"]), text.encode(), hashlib.sha256).digest()
    names = "SignedHeaders=x-ms-date;host;x-ms-content-sha256"
    return {
        "x-ms-date": date,
        "x-ms-content-sha256": digest,
        "Authorization": f"HMAC-SHA256 {names}&Signature={base64.b64encode(mac).decode()}",
    }


spec = yaml.safe_load(send("GET", "/admin/v1/openapi.yaml").body)
validate(spec)


def resolve(node):
    """The node itself, or what its `$ref` leads to, with the name of that."""
    if "$ref" not in node:
        return None, node
    parts = node["$ref"].removeprefix("#/").split("/")
    found = spec
    for part in parts:
        found = found[part]
    return parts[-1], found


def strict(node):
    """A schema that takes no member it does not name."""
    if isinstance(node, list):
        return [strict(part) for part in node]
    if not isinstance(node, dict):
        return node
    made = {name: strict(part) for name, part in node.items()}
    if "properties" in node and node.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


STRICT = strict(spec["components"])


def note_members(schema, value, name=None):
    """Notes which members of named schemas a value has."""
    found, schema = resolve(schema)
    name = found or name
    if isinstance(value, dict):
        for member, part in value.items():
            inner = schema.get("properties", {}).get(member)
            if inner is not None:
                members.add((name, member))
                note_members(inner, part)
    elif isinstance(value, list) and "items" in schema:
        for part in value:
            note_members(schema["items"], part)


operations = {}
for path, item in spec["paths"].items():
    for method in METHODS:
        if method in item:
            operation = item[method]
            operations[operation["operationId"]] = (method.upper(), path, operation)


def check(name, reply):
    """Notes a reply of an operation and whether it is as described."""
    method, path, operation = operations[name]
    responses = operation["responses"]
    status = str(reply.status)
    place = f"{name} ({method} {path}) {status}"
    described = responses.get(status)
    if described is None and reply.status in COMMON:
        described = responses.get("default")
    if described is None:
        wrong.append(f"{place}: not described: {reply.body[:300]!r}")
        return reply
    seen.add((name, status))
    _, described = resolve(described)
    content = described.get("content", {})
    if reply.body and reply.kind not in content:
        wrong.append(f"{place}: {reply.kind} is not among {list(content)}")
        return reply
    if bool(reply.location) != ("Location" in described.get("headers", {})):
        wrong.append(f"{place}: Location is {reply.location!r}")
    schema = content.get(reply.kind, {}).get("schema")
    if schema is not None:
        root = {"components": STRICT, **strict(schema)}
        for error in Draft202012Validator(root).iter_errors(reply.json):
            where = "/".join(str(step) for step in error.absolute_path)
            wrong.append(f"{place}: {where}: {error.message[:300]}")
        note_members(schema, reply.json)
        code = (reply.json or {}).get("error")
        for known in ("x-codes", "x-identity-codes"):
            is_ours = name in SIGNED if known == "x-identity-codes" else name not in SIGNED
            if code and is_ours and f"{code['code']} {status}" not in spec[known]:
                wrong.append(f"{place}: {code['code']} is not in {known}")
    return reply


SIGNED = {name for name, (_, _, op) in operations.items() if op["x-scope"] == "signature"}
OPEN = {name for name, (_, _, op) in operations.items() if op["x-scope"] == "none"}


def call(name, body=None, query="", expect=None, signed_by_key=False, **named):
    """Calls an operation; its path's variable parts and the parts of `send` are named."""
    method, template, _ = operations[name]
    parts = re.findall(r"{(\w+)}", template)
    path = template
    for part in parts:
        path = path.replace("{%s}" % part, quote(str(named.pop(part)), safe="%"))
    path += query
    if name in SIGNED and not named.get("headers"):
        data = json.dumps(body).encode() if body is not None else b""
        named["headers"] = signed(method, path, data)
    reply = check(name, send(method, path, body, **named))
    if expect is not None and reply.status != expect:
        wrong.append(f"{name}: {expect} expected, {reply.status} came: {reply.body[:300]!r}")
    return reply


def dummies(name, value):
    """Something in every variable part of the path."""
    if name in ("platformKeys", "platformValues", "platformHistory"):
        return {"entityType": "DEVICE", "id": value}
    return {part: value for part in re.findall(r"{(\w+)}", operations[name][1])}


def everywhere():
    """What every operation refuses in the same way."""
    read = call("createAdminToken", {"name": "reader", "scope": "read"}, expect=201).json["token"]
    for name, (method, path, operation) in operations.items():
        if name in OPEN:
            continue
        nothing = dummies(name, "nothing")
        # No token, a wrong host, a scope that is too small.
        call(name, token=None, headers={"Host": HOST}, expect=401, **nothing)
        if name in SIGNED:
            continue
        call(name, headers={"Host": "elsewhere.example"}, expect=403, **nothing)
        if operation["x-scope"] != "read":
            call(name, token=read, expect=403, **nothing)
        call(name, query="?no_such_parameter=1", expect=400, **nothing)
        good = {"publish": []} if name.startswith("scope") else None
        good = {"terms": {"not_before_ms": 1}} if name.startswith("terms") else good
        good = {"devices": ["nothing"]} if name == "revokeAll" else good
        good = {"user_name": "nobody's name"} if name.startswith("addCredential") else good
        if "{" in path:
            call(name, good, expect=400, **dummies(name, "%FF"))
        if "404" in operation["responses"]:
            missing = "00000000-0000-4000-8000-000000000000" if "/api/" in path else "nothing"
            query = "?devices=nothing" if name == "tailTelemetry" else ""
            call(name, good, query, expect=404, **dummies(name, missing))
        kinds = operation.get("requestBody", {}).get("content", {})
        if "application/json" in kinds:
            call(name, "{", expect=400, **nothing)
            call(name, {"no_such_member": 1}, expect=422, **nothing)
            call(name, "x", headers={"Content-Type": "text/plain"}, expect=415, **nothing)
            call(name, length=2 << 20, expect=413, **nothing)


def identities(ours, one, made):
    """The life of a device or an application."""
    create, show, rotate = f"create{ours}", f"show{ours}", f"rotate{ours}"
    filters = {"publish": ["site/a"], "subscribe": ["site/+"]}
    first = call(create, {"name": "first", **filters}, expect=201).json
    call(create, {"name": "first"}, expect=409)
    chosen = {"name": "second", "token": "chosen-by-us-" + one, **filters}
    chosen["terms"] = {"certificate": "cd" * 32}
    call(create, chosen, expect=201)
    call(create, chosen, expect=200)
    call(create, {**chosen, "publish": []}, expect=409)
    call(create, {**chosen, "name": "third"}, expect=409)
    page = call(f"list{ours}s", query="?limit=1", expect=200).json
    call(f"list{ours}s", query=f"?after={quote(page['next'])}", expect=200)
    call(show, expect=200, **{one: "first"})
    call(rotate, expect=200, **{one: "first"})
    call(rotate, {"token": "chosen-by-us-" + one}, expect=409, **{one: "first"})
    terms = {"networks": ["127.0.0.0/8"], "connections_max": 5, "messages_max": 50}
    terms |= {"not_before_ms": 1, "expires_ms": 4102444800000, "certificate": "ab" * 32}
    if ours == "Device":
        terms["rights"] = ["telemetry"]
    call(f"terms{ours}", {"terms": terms}, expect=200, **{one: "first"})
    later = {"terms": {"not_before_ms": 4102444700000}, "retire_on_use": True}
    rotated = call(rotate, later, expect=200, **{one: "first"}).json
    call("checkToken", {"token": rotated["token"]}, expect=200)
    call("tokenUsage", query="?limit=1", expect=200)
    call(f"rollBack{ours}", expect=200, **{one: "first"})
    call(f"rollBack{ours}", expect=422, **{one: "second"})
    call(f"scope{ours}", {"publish": []}, expect=200, **{one: "first"})
    call("checkToken", {"token": first["token"]}, expect=200)
    call("checkToken", {"token": chosen["token"]}, expect=200)
    call(f"revoke{ours}", {"dry_run": True}, expect=200, **{one: "second"})
    call(f"revoke{ours}", expect=200, **{one: "second"})
    call("checkToken", {"token": chosen["token"]}, expect=200)
    call(f"delete{ours}", query="?dry_run=true", expect=200, **{one: "second"})
    call(show, expect=200, **{one: "second"})
    for name in ("first", "second"):
        call(f"delete{ours}", expect=200, **{one: name})


def credentials(ours, one):
    """What opens the door besides tokens."""
    add, end = f"addCredential{ours}", f"endCredential{ours}"
    call(f"create{ours}", {"name": "named"}, expect=201)
    named = {one: "named"}
    body = {"client_id": "c", "user_name": "basic-of-" + one, "password": "p"}
    terms = {"connections_max": 5, "expires_ms": 4102444800000}
    first = call(add, {**body, "terms": terms}, expect=201, **named).json["credential"]
    call(add, body, expect=200, **named)
    body["password"] = "another"
    call(add, body, expect=409, **named)
    second = call(add, {**body, "replace": True}, expect=201, **named).json["credential"]
    if second["connections_max"] != 5 or second["expires_ms"] != first["expires_ms"]:
        wrong.append(f"{add}: other terms than before: {second}")
    call(add, {"password": "p"}, expect=422, **named)
    certificate = {"certificate": site["certificate"]}
    call(add, certificate, expect=201, **named)
    call(add, certificate, expect=200, **named)
    call(add, {**certificate, "user_name": "u"}, expect=422, **named)
    call(add, {"certificate": "-----BEGIN CERTIFICATE-----"}, expect=422, **named)
    call(end, credential=first["id"], expect=404, **named)
    call(end, credential=second["id"], expect=200, **named)
    call(f"delete{ours}", expect=200, **named)


def fleet():
    """Import, export, backup."""
    rows = {"Content-Type": "application/x-ndjson"}
    good = json.dumps({"name": "imported", "token": "an-imported-token", "publish": ["a"]})
    terms = {"not_before_ms": 1, "expires_ms": 4102444800000, "rights": ["rpc"]}
    terms |= {"networks": ["127.0.0.0/8"], "connections_max": 5, "messages_max": 50}
    terms["certificate"] = "AB:" * 31 + "AB"
    named = {"name": "imported 2", "token": "another-imported-token", "terms": terms}
    named = json.dumps(named)
    call("importDevices", good + "\n" + named + "\n", headers=rows, expect=200)
    call("importDevices", good + "\n", headers=rows, expect=422)
    call("importDevices", good + "\n", "?skip_bad=true", headers=rows, expect=200)
    call("importDevices", good, headers={"Content-Type": "application/json"}, expect=415)
    call("exportDevices", query="?limit=1", expect=200)
    call("scopeDevice", {"subscribe": ["b"]}, device="imported", expect=200)
    call("exportDevices", expect=200)
    call("backup", {"passphrase": "a passphrase of some length"}, expect=200)


def service():
    """The identity service."""
    version = "?api-version=2023-10-01"
    call("showIdentityService", expect=200)
    call("renewAccessKey", key="secondary", expect=200)
    wanted = {"createTokenWithScopes": ["chat"], "expiresInMinutes": 60}
    user = call("createIdentity", wanted, version, expect=201).json["identity"]["id"]
    other = call("createIdentity", None, version, expect=201).json["identity"]["id"]
    call("createIdentity", {"createTokenWithScopes": ["no such"]}, version, expect=400)
    call("issueAccessToken", {"scopes": ["chat"]}, version, id=user, expect=200)
    call("issueAccessToken", {"scopes": []}, version, id=user, expect=400)
    call("issueAccessToken", {"scopes": ["chat"]}, version, id="nobody", expect=404)
    wanted = {"token": "t", "appId": "a", "userId": "u"}
    call("exchangeTeamsUserAccessToken", wanted, version, expect=400)
    page = call("listUsers", query="?limit=1", expect=200).json
    call("listUsers", query=f"?after={quote(page['next'])}", expect=200)
    call("showUser", user=user, expect=200)
    call("revokeAccessTokens", None, version, id=user, expect=204)
    call("revokeUser", {"dry_run": True}, user=user, expect=200)
    call("revokeAll", {"users": [user], "devices": ["imported"]}, expect=200)
    call("revokeAccessTokens", None, version, id="nobody", expect=404)
    for name in ("createIdentity", "issueAccessToken"):
        method, path, _ = operations[name]
        path = path.replace("{id}", quote(user)) + version
        reply = send(method, path, length=1 << 20, headers=signed(method, path))
        if check(name, reply).status != 413:
            wrong.append(f"{name}: 413 expected, {reply.status} came")
    for id in (user, other):
        call("deleteIdentity", None, version, id=id, expect=204)
    call("deleteIdentity", None, version, id="nobody", expect=404)


def history():
    """What a device sent, in all the ways there are."""
    device = site["device"]
    id = call("showDevice", device=device).json["id"]
    call("queryTelemetry", query="?limit=1", device=device, expect=200)
    call("queryTelemetry", query="?agg=avg&interval=1000", device=device, expect=200)
    call("tailTelemetry", query="?from=earliest", stream=True, expect=200)
    for name in ("platformKeys", "platformValues", "platformHistory"):
        call(name, entityType="DEVICE", id=id, expect=200)
    call("tokenUsage", expect=200)
    call("revokeDevice", {"since_ms": 1}, device=device, expect=200)
    call("queryTelemetry", query="?limit=1", device=device, expect=200)


def audit():
    """What was done, who was refused."""
    call("readAudit", query="?since=1", expect=200)
    call("listRefused", expect=200)
    done = threading.Event()

    def go_on():
        # The stream begins with what comes after it.
        while not done.wait(0.05):
            send("POST", "/admin/v1/tokens/check", {"token": "a-token-of-nobody"})

    thread = threading.Thread(target=go_on)
    thread.start()
    call("followEvents", query="?events=call", stream=True, expect=200)
    done.set()
    thread.join()


everywhere()
identities("Device", "device", "devices")
identities("App", "app", "apps")
credentials("Device", "device")
credentials("App", "app")
call("checkToken", {"token": "tgd_mistyped"}, expect=200)
fleet()
service()
history()
audit()
end = {"name": "ends", "scope": "operate", "expires_ms": 4102444800000}
call("createAdminToken", end, expect=201)
call("createAdminToken", end, expect=409)
page = call("listAdminTokens", query="?limit=1", expect=200).json
call("listAdminTokens", query=f"?after={page['next']}", expect=200)
call("showAdminToken", admin_token="ends", expect=200)
call("revokeAdminToken", admin_token="ends", expect=200)
call("openapi", expect=200)
for name in OPEN:
    call(name, token=None, expect=200)

for name, (method, path, operation) in operations.items():
    for status in operation["responses"]:
        if status != "default" and not {(name, status)} & (seen | NOT_SEEN_HERE):
            wrong.append(f"{name} ({method} {path}) {status}: described and never seen")
    if name not in OPEN and "default" not in operation["responses"]:
        wrong.append(f"{name}: has no default for what any request is refused with")


def of_replies(node, found):
    """Names of the schemas that replies are made of."""
    if isinstance(node, list):
        for part in node:
            of_replies(part, found)
    elif isinstance(node, dict):
        name = node.get("$ref", "").removeprefix("#/components/schemas/")
        if name in spec["components"]["schemas"] and name not in found:
            found.add(name)
            of_replies(spec["components"]["schemas"][name], found)
        elif "$ref" in node and not name.startswith("#/components/parameters"):
            of_replies(resolve(node)[1], found)
        for part in node.values():
            of_replies(part, found)
    return found


replied = of_replies([op["responses"] for _, _, op in operations.values()], set())
for name in sorted(replied):
    for member in spec["components"]["schemas"][name].get("properties", {}):
        if (name, member) not in members:
            wrong.append(f"{name}.{member}: described and in no reply")

print(json.dumps({"wrong": wrong, "operations": len(operations), "replies": len(seen)}))
