//! From the registry's words to the API's, and back.

use super::api::{AppView, CredentialView, DeviceView, Terms, TokenReport};
use super::refused::{Code, Refused};
use crate::identity::{
    self, Application, BasicInfo, CredentialInfo, CredentialKind, Device, DeviceName, Fingerprint,
    IdentityKind, RegistryError, Rights, TermsChange, TokenHint,
};
use crate::limits::Network;
use crate::store::StoreError;

/// A device as the API shows it.
pub(super) fn device_view(device: Device) -> DeviceView {
    DeviceView {
        id: device.id,
        name: device.name,
        created_ms: device.created_ms,
        generation: device.generation,
        profile: device.profile,
        label: device.label,
        publish: device.publish,
        subscribe: device.subscribe,
        credentials: credential_views(device.credentials),
    }
}

/// An application as the API shows it.
pub(super) fn app_view(application: Application) -> AppView {
    AppView {
        id: application.id,
        name: application.name,
        created_ms: application.created_ms,
        generation: application.generation,
        publish: application.publish,
        subscribe: application.subscribe,
        credentials: credential_views(application.credentials),
    }
}

fn credential_views(credentials: Vec<CredentialInfo>) -> Vec<CredentialView> {
    credentials.into_iter().map(credential_view).collect()
}

/// A credential as the API shows it.
pub(super) fn credential_view(credential: CredentialInfo) -> CredentialView {
    let terms = credential.terms;
    CredentialView {
        id: credential.id,
        kind: match credential.kind {
            CredentialKind::AccessToken => "access_token",
            CredentialKind::UserToken => "user_token",
            CredentialKind::MqttBasic => "mqtt_basic",
            CredentialKind::X509 => "x509",
            _ => "unknown",
        }
        .to_owned(),
        asks_for: credential.basic.map(asks_for).unwrap_or_default(),
        client_id: credential.client_id,
        user_name: credential.user_name,
        fingerprint: credential.fingerprint.map(|known| known.to_string()),
        created_ms: credential.created_ms,
        revoked_ms: credential.revoked_ms,
        chosen: credential.chosen,
        not_before_ms: terms.not_before_ms,
        expires_ms: terms.expires_ms,
        rights: rights_view(terms.rights),
        networks: networks_view(&terms.networks),
        connections_max: terms.connections_max,
        messages_max: terms.messages_max,
        certificate: terms.certificate.map(|known| known.to_string()),
        superseded_by: credential.superseded_by,
        retires_older: credential.retires_older,
    }
}

fn asks_for(basic: BasicInfo) -> Vec<String> {
    let parts = [
        (basic.client_id, "client_id"),
        (basic.user_name, "user_name"),
        (basic.password, "password"),
    ];
    let wanted = parts.into_iter().filter(|(is_wanted, _)| *is_wanted);
    wanted.map(|(_, name)| name.to_owned()).collect()
}

/// The terms that there are, as they would be asked for; `None` without any.
pub(super) fn terms_view(held: &identity::Terms) -> Option<Terms> {
    let networks = networks_view(&held.networks);
    let terms = Terms {
        not_before_ms: held.not_before_ms.map(Some),
        expires_ms: held.expires_ms.map(Some),
        rights: rights_view(held.rights).map(Some),
        networks: (!networks.is_empty()).then_some(networks),
        connections_max: held.connections_max.map(Some),
        messages_max: held.messages_max.map(Some),
        certificate: held.certificate.map(|known| Some(known.to_string())),
    };
    (terms != Terms::default()).then_some(terms)
}

/// The names of rights, where they are not all.
fn rights_view(rights: Rights) -> Option<Vec<String>> {
    let names = || rights.iter().map(|right| right.to_string()).collect();
    (rights != Rights::ALL).then(names)
}

fn networks_view(networks: &[Network]) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

/// The terms that a caller wants.
pub(super) fn terms_change(wanted: Option<Terms>) -> Result<TermsChange, Refused> {
    let change = wanted.map(change_of).transpose();
    change
        .map(Option::unwrap_or_default)
        .map_err(|(field, what)| {
            Refused::new(Code::BadField, format!("{field} {what}")).target(field)
        })
}

/// The terms that a caller wants; or which field is wrong, and what with it, as the rest of a
/// sentence.
pub(super) fn change_of(wanted: Terms) -> Result<TermsChange, (&'static str, String)> {
    let rights = wanted.rights.map(|names| match names {
        None => Ok(Rights::ALL),
        Some(names) => Rights::named(names.iter().map(String::as_str)),
    });
    let rights = rights.transpose().map_err(|error| match error {
        RegistryError::Invalid { field, what } => (field, what),
        other => ("rights", other.to_string()),
    })?;
    let network = |text: &String| -> Result<Network, (&'static str, String)> {
        let parsed = text.parse();
        parsed.map_err(|error| ("networks", format!("has {text:?}, which is {error}")))
    };
    let networks = wanted
        .networks
        .map(|texts| texts.iter().map(network).collect());
    let fingerprint = |text: String| -> Result<Fingerprint, (&'static str, String)> {
        text.parse().map_err(|what| ("certificate", what))
    };
    let certificate = wanted
        .certificate
        .map(|text| text.map(fingerprint).transpose());
    Ok(TermsChange {
        not_before_ms: wanted.not_before_ms,
        expires_ms: wanted.expires_ms,
        rights,
        networks: networks.transpose()?,
        connections_max: wanted.connections_max,
        messages_max: wanted.messages_max,
        certificate: certificate.transpose()?,
    })
}

/// What is known of a token as the API shows it.
pub(super) fn report_view(report: identity::TokenReport) -> TokenReport {
    match report {
        identity::TokenReport::Live(live) => TokenReport::Live {
            kind: live.kind.to_string(),
            device: live.id,
            name: live.name,
            credential: live.credential,
            since_ms: live.since_ms,
            refused: live.refused,
            not_before_ms: live.terms.not_before_ms,
            expires_ms: live.terms.expires_ms,
            rights: rights_view(live.terms.rights),
            networks: networks_view(&live.terms.networks),
            connections_max: live.terms.connections_max,
            messages_max: live.terms.messages_max,
            certificate: live.terms.certificate.map(|known| known.to_string()),
            publish: live.publish,
            subscribe: live.subscribe,
        },
        identity::TokenReport::Revoked {
            kind,
            device,
            id,
            credential,
            since_ms,
            at_ms,
            expired,
        } => TokenReport::Revoked {
            kind: kind.to_string(),
            device: id,
            name: Some(device),
            credential,
            since_ms,
            revoked_ms: at_ms,
            expired,
        },
        identity::TokenReport::Unknown { hint } => TokenReport::Unknown {
            hint: hint.map(|hint| words(hint).to_owned()),
        },
    }
}

/// A device name that can be used.
pub(super) fn device_name(text: &str) -> Result<DeviceName, Refused> {
    DeviceName::new(text).map_err(|error| refused_by_registry(&error))
}

/// Who is at fault, and what the caller may know of it.
pub(super) fn refused_by_registry(error: &RegistryError) -> Refused {
    let code = match error {
        RegistryError::NameTaken { .. } | RegistryError::AdminTokenExists { .. } => Code::NameTaken,
        RegistryError::NoAdminToken { .. } => Code::AdminTokenNotFound,
        RegistryError::TokenTaken { .. }
        | RegistryError::NamesTaken { .. }
        | RegistryError::CertificateTaken { .. } => Code::TokenTaken,
        RegistryError::NoCredential { .. } => Code::CredentialNotFound,
        RegistryError::NotFound { kind, .. } => match kind {
            IdentityKind::Device => Code::DeviceNotFound,
            IdentityKind::Application => Code::AppNotFound,
            IdentityKind::User => Code::UserNotFound,
        },
        RegistryError::Invalid { .. } => Code::BadField,
        RegistryError::Full { .. }
        | RegistryError::ScopesFull { .. }
        | RegistryError::AdminTokensFull { .. }
        | RegistryError::TokensFull { .. } => Code::RegistryFull,
        RegistryError::KeyReplaced => Code::Unauthorized,
        RegistryError::AuditBehind | RegistryError::Store(StoreError::Full) => Code::StorageFull,
        // These name files of ours: for the log, not for the caller (SEC-76).
        RegistryError::WrongKey { .. } | RegistryError::Store(_) => {
            return Refused::internal(error);
        }
    };
    let refused = Refused::new(code, error.to_string());
    match error {
        RegistryError::NameTaken { .. } | RegistryError::AdminTokenExists { .. } => {
            refused.target("name")
        }
        RegistryError::NoAdminToken { .. } => refused.target("admin_token"),
        RegistryError::TokenTaken { .. } => refused.target("token"),
        RegistryError::NamesTaken { .. } => refused.target("user_name"),
        RegistryError::CertificateTaken { .. } => refused.target("certificate"),
        RegistryError::NoCredential { .. } => refused.target("credential"),
        RegistryError::NotFound { kind, .. } => refused.target(match kind {
            IdentityKind::Device => "device",
            IdentityKind::Application => "app",
            IdentityKind::User => "user",
        }),
        RegistryError::Invalid { field, .. } => refused.target(*field),
        _ => refused,
    }
}

fn words(hint: TokenHint) -> &'static str {
    match hint {
        TokenHint::BadChecksum => {
            "it begins like a device token, but its length or checksum is wrong: mistyped or cut"
        }
        TokenHint::Admin => {
            "it begins like the admin token or an application's; no application has or had it"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_76_the_caller_learns_what_is_his_and_nothing_of_our_files() {
        let failed = StoreError::Failed("disk I/O error at /secret/place".into());
        let key = "/secret/key".into();
        for (error, code) in [
            (RegistryError::Store(StoreError::Full), Code::StorageFull),
            (RegistryError::Store(failed), Code::Internal),
            (RegistryError::Store(StoreError::Stopped), Code::Internal),
            (RegistryError::WrongKey { key }, Code::Internal),
            (
                RegistryError::Full {
                    kind: IdentityKind::Device,
                    limit: 7,
                },
                Code::RegistryFull,
            ),
        ] {
            let refused = refused_by_registry(&error);
            assert_eq!(refused.code, code, "{error}");
            assert!(!refused.message.contains("secret"), "{}", refused.message);
        }
    }
}
