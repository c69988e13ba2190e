//! `mqtts.client_…`: what is asked of clients in the TLS handshake.

use std::path::PathBuf;

use super::ConfigError;
use super::key;
use super::layer::Layers;

/// Whether clients show certificates, and of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// Whether they are asked.
    pub demand: Demand,
    /// PEM file of authorities; with it every certificate shown must be of one of them.
    pub authority: Option<PathBuf>,
    /// PEM file of revocation lists.
    pub revocations: Option<PathBuf>,
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// They are not.
    Off,
    /// They are, and may have none.
    Optional,
    /// They are, and the handshake fails without one.
    Required,
}

pub(super) fn checked(layers: &Layers) -> Result<ClientCertificates, ConfigError> {
    let demand = match layers.choice(&key::MQTTS_CLIENT_CERTIFICATE)? {
        "required" => Demand::Required,
        "optional" => Demand::Optional,
        _ => Demand::Off,
    };
    let wanted = ClientCertificates {
        demand,
        authority: layers.optional_path(&key::MQTTS_CLIENT_AUTHORITY)?,
        revocations: layers.optional_path(&key::MQTTS_CLIENT_REVOCATIONS)?,
    };
    // A file that is named and not used may be the one that kept somebody out.
    if wanted.authority.is_some() && demand == Demand::Off {
        let what = "has no effect while mqtts.client_certificate is \"off\"; set that too";
        return Err(layers.conflict(&key::MQTTS_CLIENT_AUTHORITY, what.to_owned()));
    }
    if wanted.revocations.is_some() && wanted.authority.is_none() {
        let what = "has no effect without mqtts.client_authority, whose lists these are";
        return Err(layers.conflict(&key::MQTTS_CLIENT_REVOCATIONS, what.to_owned()));
    }
    Ok(wanted)
}
