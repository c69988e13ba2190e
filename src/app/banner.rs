//! The lines an operator pastes: after the first start, and whenever a token is shown.

use std::{
    fmt::Write as _,
    fs, io,
    io::{IsTerminal, Write as _},
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// What the first start made.
#[derive(Debug, Clone, Copy)]
pub struct FirstStart<'a> {
    /// Name of the device that was created.
    pub device: &'a str,
    /// Its token, in clear: this banner is the one place for it (SEC-55's exception).
    pub token: &'a str,
    /// Where MQTT listens, if it does: the bound address, with the real port.
    pub mqtt: Option<SocketAddr>,
    /// Where MQTT with TLS listens, if it does.
    pub mqtts: Option<SocketAddr>,
    /// The CA certificate; shown relative to the working directory.
    pub ca: &'a Path,
}

/// The text of the first start: one device, and a line to paste for each way in.
pub fn first_start(made: &FirstStart<'_>) -> String {
    let mut out = format!(
        "\nFirst start: made the device {:?}. Its token is shown once, here.\n\
         Send its first value from a second terminal in this directory:\n\n",
        made.device
    );
    if let Some(address) = made.mqtt {
        let _ = writeln!(
            out,
            "  {}\n",
            publish_line(&host_of(address), address, made.token, Over::Tcp)
        );
    }
    if let Some(address) = made.mqtts {
        let ca = relative(made.ca);
        let over = Over::Tls { ca: &ca };
        let line = publish_line(&host_of(address), address, made.token, over);
        let _ = writeln!(out, "or with TLS:\n\n  {line}\n");
    }
    let (program, name) = (shell_word(&program()), shell_word(made.device));
    let _ = writeln!(out, "and read it back:\n\n  {program} query {name}\n");
    out
}

/// Shows the text of the first start: on a terminal, otherwise in a file that only this user
/// reads, whose path is printed. A token must not end up in a service manager's journal.
///
/// # Errors
/// What the system said when the file could not be written; the device exists all the same, and
/// `tollgate device rotate` gives it a new token.
pub fn announce(text: &str, secrets_dir: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        out.write_all(text.as_bytes())?;
    } else {
        let path = keep(text, secrets_dir)?;
        writeln!(
            out,
            "first start: the first device and its token are in {}",
            path.display()
        )?;
    }
    out.flush()
}

/// What a `mosquitto_pub` line goes over.
#[derive(Clone, Copy, Debug)]
pub enum Over<'a> {
    /// TCP alone.
    Tcp,
    /// TLS.
    Tls {
        /// The CA file.
        ca: &'a Path,
    },
    /// TLS with a certificate of the client's own, whose files the line leaves to be named.
    MutualTls {
        /// The CA file.
        ca: &'a Path,
    },
}

/// A ready `mosquitto_pub` line.
pub fn publish_line(host: &str, address: SocketAddr, token: &str, over: Over<'_>) -> String {
    let trusting = |ca: &Path| format!(" --cafile {}", shell_word(&ca.display().to_string()));
    let tls = match over {
        Over::Tcp => String::new(),
        Over::Tls { ca } => trusting(ca),
        Over::MutualTls { ca } => trusting(ca) + " --cert CERTIFICATE.pem --key KEY.pem",
    };
    format!(
        "mosquitto_pub -d -q 1{tls} -h {host} -p {} -t v1/devices/me/telemetry -u {} \
         -m '{{\"temperature\":25}}'",
        address.port(),
        shell_word(token)
    )
}

/// The name under which this machine reaches a listener: `localhost`, or the one address bound.
pub fn host_of(address: SocketAddr) -> String {
    if address.ip().is_unspecified() || address.ip().is_loopback() {
        "localhost".to_owned()
    } else {
        address.ip().to_string()
    }
}

/// A word that a POSIX shell gives on unchanged.
pub fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// How this program was called: `tollgate` when it was found by its name, else its path, so that
/// the line works for somebody who has only built it.
fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    if called.contains('/') {
        called
    } else {
        "tollgate".to_owned()
    }
}

/// The path from the working directory, if it lies below it.
pub fn relative(path: &Path) -> PathBuf {
    std::env::current_dir()
        .ok()
        .and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf))
        .unwrap_or_else(|| path.to_path_buf())
}

fn keep(text: &str, secrets_dir: &Path) -> io::Result<PathBuf> {
    let path = secrets_dir.join("first-device.txt");
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)?;
    // The mode above is for a new file only.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> FirstStart<'static> {
        FirstStart {
            device: "first-device",
            token: "tgd_abc",
            mqtt: None,
            mqtts: None,
            ca: Path::new("certs/ca-root.pem"),
        }
    }

    #[test]
    fn the_first_start_shows_a_line_for_each_way_in() {
        let text = first_start(&FirstStart {
            mqtt: Some("[::]:1883".parse().unwrap()),
            mqtts: Some("10.0.0.7:8883".parse().unwrap()),
            ..made()
        });
        assert!(text.contains(
            "  mosquitto_pub -d -q 1 -h localhost -p 1883 -t v1/devices/me/telemetry -u tgd_abc \
             -m '{\"temperature\":25}'\n"
        ));
        assert!(text.contains(
            "  mosquitto_pub -d -q 1 --cafile certs/ca-root.pem -h 10.0.0.7 -p 8883 \
             -t v1/devices/me/telemetry -u tgd_abc -m '{\"temperature\":25}'\n"
        ));
        // This test was called by its path, so the line has that path.
        assert!(text.contains(&format!(
            "  {} query first-device\n",
            shell_word(&program())
        )));
        assert!(program().contains("/deps/tollgate-"));
    }

    #[test]
    fn a_token_that_needs_a_certificate_goes_by_tls_with_one() {
        let address = "[::]:8883".parse().unwrap();
        let ca = Path::new("certs/ca-root.pem");
        assert_eq!(
            publish_line("localhost", address, "tgd_abc", Over::MutualTls { ca }),
            "mosquitto_pub -d -q 1 --cafile certs/ca-root.pem --cert CERTIFICATE.pem --key KEY.pem \
             -h localhost -p 8883 -t v1/devices/me/telemetry -u tgd_abc \
             -m '{\"temperature\":25}'"
        );
    }

    #[test]
    fn a_listener_that_is_off_has_no_line() {
        let text = first_start(&FirstStart {
            mqtt: Some("[::]:1883".parse().unwrap()),
            ..made()
        });
        assert!(!text.contains("TLS") && !text.contains("--cafile"));
    }

    #[test]
    fn a_word_comes_out_of_the_shell_as_it_went_in() {
        for text in [
            "tgd_abc",
            "two words",
            "it's",
            "$HOME `id` \"x\" \\",
            "",
            "a;b|c&d",
            "ü",
        ] {
            let line = format!("printf %s {}", shell_word(text));
            let out = std::process::Command::new("sh")
                .arg("-c")
                .arg(line)
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), text);
        }
    }

    #[test]
    fn sec_78_the_kept_text_is_for_this_user_only() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("first-device.txt"),
            "old and longer than the new",
        )
        .unwrap();
        let path = keep("text", dir.path()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_path_below_the_working_directory_is_shown_relative() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            relative(&here.join("certs/ca-root.pem")),
            Path::new("certs/ca-root.pem")
        );
        assert_eq!(
            relative(Path::new("/elsewhere/ca.pem")),
            Path::new("/elsewhere/ca.pem")
        );
        assert_eq!(
            relative(Path::new("certs/ca.pem")),
            Path::new("certs/ca.pem")
        );
    }
}
