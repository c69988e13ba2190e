//! The settings that have a flag. Every other one has its key and its environment variable.

use std::path::PathBuf;

use clap::Args;

use crate::config::Sources;

/// Flags that every command takes, so that they may stand before or behind it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub(super) struct Settings {
    /// Configuration file [default: TOLLGATE_CONFIG, else config.toml if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the journal and the state database
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// Directory of the keys and the admin token
    #[arg(long, global = true, value_name = "DIR")]
    secrets_dir: Option<String>,
    /// Directory of the certificates
    #[arg(long, global = true, value_name = "DIR")]
    certs_dir: Option<String>,
    /// Where MQTT listens: ADDRESS:PORT, several with commas, or off
    #[arg(long, global = true, value_name = "ADDRESS")]
    mqtt_listen: Option<String>,
    /// Where MQTT with TLS listens
    #[arg(long, global = true, value_name = "ADDRESS")]
    mqtts_listen: Option<String>,
    /// Where the admin API listens
    #[arg(long, global = true, value_name = "ADDRESS")]
    http_listen: Option<String>,
    /// Log level (error, warn, info, debug) or a list like info,tollgate::net=debug
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
}

impl Settings {
    /// The flags over the environment of this process.
    pub(super) fn sources(self) -> Sources {
        let flags = [
            ("data_dir", "--data-dir", self.data_dir),
            ("secrets_dir", "--secrets-dir", self.secrets_dir),
            ("certs_dir", "--certs-dir", self.certs_dir),
            ("mqtt.listen", "--mqtt-listen", self.mqtt_listen),
            ("mqtts.listen", "--mqtts-listen", self.mqtts_listen),
            ("http.listen", "--http-listen", self.http_listen),
            ("log.level", "--log", self.log),
        ];
        Sources {
            file: self.config,
            flags: flags
                .into_iter()
                .filter_map(|(key, flag, value)| value.map(|value| (key, flag, value)))
                .collect(),
            ..Sources::from_environment()
        }
    }
}
