"""What the bench scripts share: brokers in processes, devices with tokens.

A broker is started on core 0 when it is to be measured, the generator (tollgate bench) on core 1.
"""
import contextlib
import http.client
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time

PASSWORD = "x"  # Mosquitto wants one; the user name is the token, as for Tollgate
APP_TOKEN = "bench-application-token"  # of subscribers, and of who publishes to them
FED_TOKEN = "bench-application-fed"  # of who subscribes to the devices' telemetry
# Where our own questions come from: the ports of 127.0.0.1 are those of the loads, and a load of
# connections that come and go leaves all of them closing for a minute.
QUESTIONS_FROM = ("127.0.0.77", 0)
CLOSING_MAX = 50_000  # connections that the kernel still holds, when a load begins
PORTS_FROM = 10_000  # of the brokers
START_LIMIT_S = 60
STOP_LIMIT_S = 60
WORDS_MAX = 2_000  # characters of what a broker that does not start said
MOSQUITTO = """\
per_listener_settings false
listener {port} 127.0.0.1
listener {tls_port} 127.0.0.1
cafile {dir}/ca.pem
certfile {dir}/server.pem
keyfile {dir}/server.key
allow_anonymous false
password_file {dir}/passwords
persistence false
log_type error
set_tcp_nodelay true
max_queued_messages 0
max_connections -1
"""

NATS = """\
listen: "127.0.0.1:{client_port}"
server_name: bench
max_connections: 100000
jetstream {{ store_dir: "{dir}", sync_interval: always }}
mqtt {{ listen: "127.0.0.1:{port}" }}
authorization {{ users: [
{users}
] }}
"""


def die(message):
    sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {message}")


def release_build():
    root = pathlib.Path(__file__).resolve().parent.parent
    return f"{os.environ.get('CARGO_TARGET_DIR', root / 'target')}/release/tollgate"


def need(program, *tools):
    """Ends the script when something it runs is missing."""
    if not os.access(program, os.X_OK):
        die(f"{program}: run cargo build --release first")
    for tool in tools:
        if not shutil.which(tool):
            die(f"{tool} is missing (Debian packages: mosquitto, util-linux, valgrind)")


def token(number):
    return f"bench-device-token-{number:06}"


def write_tokens(path, count):
    path.write_text("".join(token(number) + "\n" for number in range(count)))


def free_ports(count):
    """Different ones, below those that the kernel gives to connections: a load beside this script
    would take such a port before the broker listens there."""
    first = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if first <= PORTS_FROM + count:
        die(f"net.ipv4.ip_local_port_range begins at {first}: no port is left for the brokers")
    ports = []
    while len(ports) < count:
        port = random.randrange(PORTS_FROM, first)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            if port not in ports:
                ports.append(port)
    return ports


class Broker:
    """A broker's process and its ports; `tls_port` and `http_port` are None where it has none."""

    def __init__(self, name, command, port, tls_port=None, http_port=None, environment=None,
                 folder=None):
        self.name, self.command, self.environment = name, command, environment
        self.folder = folder  # it runs there; None is where the script does
        self.port, self.tls_port, self.http_port = port, tls_port, http_port
        self.process = None
        self.has_own_session = False  # see `share`

    def start(self):
        with tempfile.TemporaryFile() as words:
            self.process = subprocess.Popen(self.command, env=self.environment,
                                            cwd=self.folder,
                                            start_new_session=self.has_own_session,
                                            stdout=words, stderr=words)
            return self.answers(words)

    def answers(self, words):
        """Itself, when it takes connections; the script ends with its words if it does not."""
        end = time.monotonic() + START_LIMIT_S
        while True:
            with contextlib.suppress(OSError):
                address = ("127.0.0.1", self.port)
                socket.create_connection(address, 1, QUESTIONS_FROM).close()
                return self
            if self.process.poll() is not None or time.monotonic() > end:
                words.seek(0)
                said = words.read().decode(errors="replace")[-WORDS_MAX:]
                die(f"{self.name} does not start: {self.command}\n{said}")
            time.sleep(0.05)

    def stop(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    @property
    def pid(self):
        return self.process.pid


def spawn(command, nicer_by):
    """A generator in a process with a share of the machine of its own; its words are read later."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    share(process.pid, nicer_by)
    return process


def share(pid, nicer_by):
    """Lowers the share of a process. Linux may share the processors out by session first, then
    within each; niceness counts on both levels."""
    with contextlib.suppress(OSError):  # it has ended, or there are no shares by session
        os.setpriority(os.PRIO_PROCESS, pid, nicer_by)
        pathlib.Path(f"/proc/{pid}/autogroup").write_text(str(nicer_by))


def percentiles(values):
    """As the generator tells them; of no values none."""
    values = sorted(values)
    if not values:
        return None
    return {name: values[min(len(values) - 1, int(len(values) * part))]
            for name, part in [("p50", 0.5), ("p99", 0.99), ("max", 1)]}


def pinned(core, command):
    return ["taskset", "-c", str(core), *command]


def raw(program, wrap, certificates=None):
    """Over TLS too where it is told whose certificate to show: that of a Tollgate in a folder."""
    port, tls_port = free_ports(2)
    command = [program, "bench", "raw", "--listen", f"127.0.0.1:{port}", "--seconds", "86400"]
    if certificates:
        command += ["--tls-listen", f"127.0.0.1:{tls_port}",
                    "--certificate", str(certificates / "certs/server.pem"),
                    "--key", str(certificates / "secrets/server.key")]
    return Broker("raw", wrap(command), port, tls_port)


def tollgate(program, folder, wrap, settings=None):
    """Its directories are in `folder`; what it made there before is still there."""
    folder = folder.resolve()
    port, tls_port, http_port = free_ports(3)
    environment = dict(
        os.environ,
        TOLLGATE_MQTT_LISTEN=f"127.0.0.1:{port}",
        TOLLGATE_MQTTS_LISTEN=f"127.0.0.1:{tls_port}",
        TOLLGATE_HTTP_LISTEN=f"127.0.0.1:{http_port}",
        TOLLGATE_DATA_DIR=str(folder / "data"),
        TOLLGATE_SECRETS_DIR=str(folder / "secrets"),
        TOLLGATE_CERTS_DIR=str(folder / "certs"),
        **(settings or {}),
    )
    # Not where a config.toml lies: an older build may not know all that stands there.
    command = wrap([os.path.abspath(program), "serve"])
    return Broker("tollgate", command, port, tls_port, http_port, environment, folder)


def mosquitto(home, wrap, count, certificates, more=""):
    """The tokens of `count` devices are its users; it has the certificate of that Tollgate."""
    port, tls_port = free_ports(2)
    passwords = home / "passwords"
    users = [APP_TOKEN, *map(token, range(count))]
    passwords.write_text("".join(f"{user}:{PASSWORD}\n" for user in users))
    subprocess.run(["mosquitto_passwd", "-U", passwords], check=True)
    shutil.copy(certificates / "certs/ca-root.pem", home / "ca.pem")
    shutil.copy(certificates / "certs/server.pem", home / "server.pem")
    shutil.copy(certificates / "secrets/server.key", home / "server.key")
    config = MOSQUITTO.format(port=port, tls_port=tls_port, dir=home) + more
    (home / "mosquitto.conf").write_text(config)
    # Mosquitto gives up root for a user of its own, who then reads the files.
    home.chmod(0o755)
    for path in home.iterdir():
        path.chmod(0o644)
    command = wrap(["mosquitto", "-c", str(home / "mosquitto.conf")])
    return Broker("mosquitto", command, port, tls_port)


def nats(program, folder, wrap, count):
    """The same users; every message of QoS 1 is synced before its ack."""
    home = folder / "nats"
    home.mkdir()
    port, client_port = free_ports(2)
    users = [FED_TOKEN, *map(token, range(count))]
    lines = (f'{{ user: "{user}", password: "{PASSWORD}" }}' for user in users)
    config = NATS.format(port=port, client_port=client_port, dir=home / "store",
                         users="\n".join(lines))
    (home / "nats.conf").write_text(config)
    return Broker("nats", wrap([program, "-c", str(home / "nats.conf")]), port)


def create_devices(broker, folder, count):
    """All in one change."""
    rows = ({"name": f"bench-{number}", "token": token(number)} for number in range(count))
    body = "".join(f"{json.dumps(row)}\n" for row in rows)
    post(broker, folder, "/admin/v1/bulk/devices", "application/x-ndjson", body)


def create_apps(broker, folder):
    """An application that may publish and receive below bench/, and one that is fed telemetry."""
    scope = ["bench/#"]
    apps = [{"name": "bench-app", "token": APP_TOKEN, "publish": scope, "subscribe": scope},
            {"name": "bench-fed", "token": FED_TOKEN, "subscribe": ["v1/devices/+/telemetry"]}]
    for app in apps:
        post(broker, folder, "/admin/v1/apps", "application/json", json.dumps(app))


def post(broker, folder, path, content_type, body):
    admin = (folder / "secrets/admin.token").read_text().strip()
    client = http.client.HTTPConnection("127.0.0.1", broker.http_port)
    headers = {"Authorization": f"Bearer {admin}", "Content-Type": content_type}
    client.request("POST", path, body, headers)
    reply = client.getresponse()
    said = reply.read()
    if reply.status not in (200, 201):
        die(f"{path}: {reply.status} {said.decode()}")


def metric(broker, name):
    """The sum over all labels."""
    client = http.client.HTTPConnection("127.0.0.1", broker.http_port, timeout=10,
                                        source_address=QUESTIONS_FROM)
    client.request("GET", "/metrics")
    lines = client.getresponse().read().decode().splitlines()
    values = [line.split() for line in lines if line and not line.startswith("#")]
    found = [float(value) for key, value in values if key.split("{")[0] == name]
    if not found:
        die(f"the broker has no figure {name}")
    return sum(found)


def wait_for_ports():
    """Until most of the connections that earlier loads closed are gone, a minute at most."""
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        words = pathlib.Path("/proc/net/sockstat").read_text(encoding="ascii").split()
        if int(words[words.index("tw") + 1]) <= CLOSING_MAX:
            return
        time.sleep(1)


def wait_until_at_rest(broker):
    """After a start: until history has been read again and memory does not grow any more."""
    end = time.monotonic() + START_LIMIT_S
    before = 0
    while time.monotonic() < end:
        time.sleep(1)
        now = rss_kib(broker.pid)
        is_read = not broker.http_port or metric(broker, "tollgate_history_lag_records") == 0
        if is_read and now == before:
            return
        before = now
    die(f"{broker.name} does not come to rest")


def file_system(folder):
    """The type of the one that a folder is on."""
    done = subprocess.run(["df", "--output=fstype", folder], capture_output=True, text=True,
                          check=True)
    return done.stdout.split()[-1]


def rss_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
